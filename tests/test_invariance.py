"""What must not matter does not: batches, blocks, how a scene is cut into files, how often a
landslide is seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from fakes import UTM, blobs, brightness, detect_brightness, grey, model_info, read, write_scene
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.shutil import copy as gdal_copy
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landslide_mapper import detect as detect_module
from landslide_mapper.detect import detect, detect_with
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.blocks import Layout
from landslide_mapper.mapping.config import DetectConfig


def maps(folder: Path, scene: Path, model: Path, **options: Any) -> tuple[Any, np.ndarray]:
    """Layer and probability in percent that the real network gives."""
    folder.mkdir()
    config = DetectConfig(
        (str(scene),),
        folder / "slides.gpkg",
        model=str(model),
        probability=folder / "percent.tif",
        device="cpu",
        **options,
    )
    detect(config)
    with rasterio.open(folder / "percent.tif") as raster:
        return read(folder / "slides.gpkg"), raster.read(1)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory, bundled_scene: Path) -> Path:
    """A part of the bundled scene, so that the network has less to do."""
    path = tmp_path_factory.mktemp("corner") / "corner.tif"
    with rasterio.open(bundled_scene) as raster:
        window = Window(300, 200, 700, 620)
        part = raster.read(window=window)
        profile = {"crs": raster.crs, "transform": raster.window_transform(window)}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, width=700, height=620, dtype="uint8", **profile
    ) as raster:
        raster.write(part)
    return path


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, corner: Path, bundled_model: Path
) -> tuple[Any, np.ndarray]:
    layer, percent = maps(tmp_path_factory.mktemp("once") / "out", corner, bundled_model)
    assert len(layer) > 0
    return layer, percent


def test_batches_of_the_real_network_change_nothing_beyond_rounding(
    tmp_path: Path, corner: Path, bundled_model: Path, expected: tuple[Any, np.ndarray]
) -> None:
    """Tolerance: one percent of probability where rounding tips it, no other polygon."""
    layer, percent = maps(tmp_path / "out", corner, bundled_model, batch_size=5)
    difference = np.abs(percent.astype(int) - expected[1])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-4
    assert len(layer) == len(expected[0])
    area = layer.symmetric_difference(expected[0], align=False).area.sum()
    assert area < 1e-4 * layer.area.sum()


def test_blocks_of_the_real_network_change_no_bit(
    tmp_path: Path,
    corner: Path,
    bundled_model: Path,
    expected: tuple[Any, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = partial(Layout, max_width=400, max_pixels=400 * 200)
    monkeypatch.setattr(detect_module, "Layout", small)
    layer, percent = maps(tmp_path / "out", corner, bundled_model, simplify=0)
    np.testing.assert_array_equal(percent, expected[1])
    monkeypatch.undo()
    whole, _ = maps(tmp_path / "whole", corner, bundled_model, simplify=0)
    assert set(layer.normalize().to_wkb()) == set(whole.normalize().to_wkb())


def test_a_mosaic_of_pieces_is_the_scene(
    tmp_path: Path, corner: Path, bundled_model: Path, expected: tuple[Any, np.ndarray]
) -> None:
    """The same pixels in four files behind a VRT: no bit changes."""
    pieces = []
    with rasterio.open(corner) as raster:
        for row, height in ((0, 250), (250, 370)):
            for col, width in ((0, 411), (411, 289)):
                window = Window(col, row, width, height)
                path = tmp_path / f"{row}-{col}.tif"
                profile = {"crs": raster.crs, "transform": raster.window_transform(window)}
                with rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    count=3,
                    width=width,
                    height=height,
                    dtype="uint8",
                    **profile,
                ) as piece:
                    piece.write(raster.read(window=window))
                pieces.append((path, window))
        lines = [f'<VRTDataset rasterXSize="{raster.width}" rasterYSize="{raster.height}">']
        lines.append(f"<SRS>{raster.crs.to_wkt()}</SRS>".replace('"', "&quot;"))
        lines.append(
            f"<GeoTransform>{','.join(map(str, raster.transform.to_gdal()))}</GeoTransform>"
        )
    for band in (1, 2, 3):
        colour = ("Red", "Green", "Blue")[band - 1]
        lines.append(f'<VRTRasterBand dataType="Byte" band="{band}">')
        lines.append(f"<ColorInterp>{colour}</ColorInterp>")
        for path, window in pieces:
            place = (
                f'xOff="{window.col_off}" yOff="{window.row_off}" '
                f'xSize="{window.width}" ySize="{window.height}"'
            )
            lines.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename>'
                f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" '
                f'xSize="{window.width}" ySize="{window.height}"/><DstRect {place}/></SimpleSource>'
            )
        lines.append("</VRTRasterBand>")
    (tmp_path / "mosaic.vrt").write_text("\n".join([*lines, "</VRTDataset>"]))
    layer, percent = maps(tmp_path / "out", tmp_path / "mosaic.vrt", bundled_model)
    np.testing.assert_array_equal(percent, expected[1])
    same = layer.drop(columns="scene").to_csv() == expected[0].drop(columns="scene").to_csv()
    assert same


@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(1, 1600), st.integers(1, 1600)),
    tile=st.sampled_from([64, 128, 256]),
    overlap=st.integers(0, 255),
    batch=st.integers(1, 40),
    blocks=st.tuples(st.integers(64, 2000), st.integers(64**2, 1600**2)),
    seed=st.integers(0, 99),
)
@example((70, 50), 32, 31, 7, (64, 64**2), 3)
@example((41, 77), 64, 60, 40, (2000, 1600**2), 4)
def test_a_per_pixel_predictor_gives_its_function_for_any_size_and_layout(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    tile: int,
    overlap: int,
    batch: int,
    blocks: tuple[int, int],
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("size")
    band = grey(blobs(seed, size, smooth=1))
    band[: size[0] // 3, size[1] // 2 :] = 0
    if not band.any():
        band[0, 0] = 200
    scene = write_scene(folder / "scene.tif", band, nodata=0)
    config = DetectConfig(
        (scene,),
        folder / "slides.gpkg",
        mask=folder / "mask.tif",
        probability=folder / "percent.tif",
        # Any overlap at all where that leaves few enough windows.
        overlap=min(overlap, tile - 1 if max(size) <= 80 else tile // 2),
        batch_size=batch,
    )
    with pytest.MonkeyPatch.context() as patch:
        layout = partial(Layout, max_width=blocks[0], max_pixels=blocks[1])
        patch.setattr(detect_module, "Layout", layout)
        detect_with(config, brightness, model_info(tile_size=tile))
    with (
        rasterio.open(folder / "mask.tif") as mask,
        rasterio.open(folder / "percent.tif") as percent,
    ):
        np.testing.assert_array_equal(mask.read(1), np.where(band, band == 200, 255))
        wanted = np.where(band, np.rint(band / 2.55), 255)
        np.testing.assert_array_equal(percent.read(1), wanted)


def apart(layer: Any) -> int:
    """How many polygons there are, which are to be valid and share no ground."""
    assert layer.is_valid.all()
    polygons = layer.geometry.to_numpy()
    a, b = layer.sindex.query(polygons, predicate="intersects")
    a, b = polygons[a[a < b]], polygons[b[a < b]]
    assert not shapely.relate_pattern(a, b, "T********").any()
    return len(layer)


@pytest.mark.parametrize("second_crs", ["EPSG:32648", "EPSG:4326"])
def test_a_landslide_on_two_overlapping_scenes_is_one(tmp_path: Path, second_crs: str) -> None:
    mask = blobs(12, (240, 400), 0.3, smooth=6)
    whole = write_scene(tmp_path / "whole.tif", grey(mask))
    left = write_scene(tmp_path / "left.tif", grey(mask[:, :250]))
    shifted = UTM * type(UTM).translation(170, 0)
    right = write_scene(tmp_path / "right.tif", grey(mask[:, 170:]), transform=shifted)
    if second_crs != "EPSG:32648":
        with rasterio.open(right) as raster, WarpedVRT(raster, crs=second_crs) as warped:
            right = str(tmp_path / "warped.tif")
            gdal_copy(warped, right, driver="GTiff")
    detect_brightness(whole, tmp_path / "whole.gpkg", simplify=0)
    detect_brightness([left, right], tmp_path / "two.gpkg", simplify=0, gsd="native")
    one, two = read(tmp_path / "whole.gpkg"), read(tmp_path / "two.gpkg")
    assert two.crs == "EPSG:32648"
    assert (two["scene"].str.contains(", ")).any()
    joined = two.union_all()
    overlap = one.union_all().intersection(joined).area / one.union_all().union(joined).area
    if second_crs == "EPSG:32648":
        assert set(one.normalize().to_wkb()) == set(two.normalize().to_wkb())
        np.testing.assert_allclose(sorted(one["area_m2"]), sorted(two["area_m2"]), rtol=1e-6)
    else:
        assert overlap > 0.85  # nearest pixels of another grid
    for simplify in (0, None, 3.0):
        options = {"simplify": simplify, "fill_holes": 5.0, "min_area": 5.0}
        detect_brightness(
            [left, right], tmp_path / "on.gpkg", gsd="native", overwrite=True, **options
        )
        assert apart(read(tmp_path / "on.gpkg")) > 3


def test_sheets_with_a_slit_between_them_share_their_landslides(tmp_path: Path) -> None:
    """One fiftieth of a pixel wide, and rows that are shifted by parts of a pixel."""
    mask = np.zeros((80, 90), bool)
    mask[30:50, 60:] = True
    left = write_scene(tmp_path / "left.tif", grey(mask))
    beside = UTM * type(UTM).translation(90.02, 0.3)
    right = write_scene(tmp_path / "right.tif", grey(mask[:, ::-1]), transform=beside)
    detect_brightness([left, right], tmp_path / "slides.gpkg")
    (found,) = read(tmp_path / "slides.gpkg")["scene"]
    assert found == "left.tif, right.tif"


def test_simplified_landslides_stay_apart_where_blocks_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_module, "Layout", partial(Layout, max_width=80, max_pixels=80 * 80))
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(0, (240, 240), 0.6, 3)))
    detect_brightness(scene, tmp_path / "slides.gpkg", simplify=3.0)
    assert apart(read(tmp_path / "slides.gpkg")) > 20


@pytest.mark.parametrize("where", ["over the cut", "beyond the cut"])
def test_landslides_keep_away_from_those_of_the_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """From one in a bay; and from one beside an edge that a ledge in another scene would tilt."""
    layout = partial(Layout, max_width=100, max_pixels=100 * 200)
    monkeypatch.setattr(detect_module, "Layout", layout)
    band = np.full((64, 192), 50, np.uint8)
    if where == "over the cut":
        band[:40, :40] = band[35:, 35:] = 200
        band[32:40, 32:35] = band[32:35, 32:40] = 50
    else:
        band[:, 50:95] = band[5:40, 96:98] = 200
    below = np.full((20, 100), 50, np.uint8)
    below[:, 50:] = 200
    place = UTM * type(UTM).translation(0, 64)
    scenes = [
        write_scene(tmp_path / "scene.tif", band),
        write_scene(tmp_path / "below.tif", below, transform=place),
    ]
    detect_brightness(scenes[: 1 + (where != "over the cut")], tmp_path / "s.gpkg", simplify=3.0)
    assert apart(read(tmp_path / "s.gpkg")) == 2


def test_stacked_bands_are_the_scene(tmp_path: Path) -> None:
    band = grey(blobs(3, (90, 80)))
    paths = [write_scene(tmp_path / f"{n}.tif", band, count=1) for n in "rgb"]
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(stack(paths))
    whole = write_scene(tmp_path / "whole.tif", band)
    for scene, name in ((str(vrt), "a"), (whole, "b")):
        detect_brightness(scene, tmp_path / f"{name}.gpkg")
    a, b = read(tmp_path / "a.gpkg"), read(tmp_path / "b.gpkg")
    assert (a.geometry == b.geometry).all()
