"""`lsmap prepare` on scenes: every assertion is made on the files it wrote."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from preparing import GRID, make
from range_server import serve
from test_scene import write

from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.data.report import PrepareReport
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.aoi import place, read_area
from landslide_mapper.geo.scan import link
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.info import describe
from landslide_mapper.prepare import PrepareConfig, prepare


def pixels_of(dataset: Dataset) -> list[tuple[Any, np.ndarray, np.ndarray, Affine]]:
    """(tile, image, mask, transform) of every tile, read from disk."""
    out = []
    for tile in dataset.tiles:
        with rasterio.open(tile.image) as image, rasterio.open(tile.mask) as mask:
            assert image.transform == mask.transform
            assert image.crs == mask.crs
            assert image.nodata == 0
            assert image.dtypes == ("uint8",) * image.count
            assert mask.colormap(1)[1] != mask.colormap(1)[255]
            out.append((tile, image.read(), mask.read(1), image.transform))
    return out


def area_ratio(dataset: Dataset) -> float:
    area = dataset.info["landslide_area"]
    return area["tiles"] / area["polygons"]


def painted(dataset: Dataset, shape: tuple[int, int]) -> np.ndarray:
    """How often each scene pixel is valid in some tile, per split (3, H, W)."""
    seen = np.zeros((3, *shape), int)
    for tile, image, mask, transform in pixels_of(dataset):
        col, row = ~GRID * (transform.c, transform.f)
        row, col, size = round(row), round(col), mask.shape[0]
        inside = np.s_[max(row, 0) : row + size, max(col, 0) : col + size]
        target = seen[["train", "val", "test"].index(tile.split)][inside]
        top, left = max(-row, 0), max(-col, 0)
        part = np.s_[top : top + target.shape[0], left : left + target.shape[1]]
        target += image.any(axis=0)[part]
    return seen


def test_tiles_masks_and_manifest_agree(tmp_path: Path, scene: str, slides: str) -> None:
    dataset = make(tmp_path, [scene], slides)
    assert {t.split for t in dataset.tiles} == {"train", "val", "test"}
    for tile, image, mask, _ in pixels_of(dataset):
        assert image.shape == (3, 64, 64)
        assert set(np.unique(mask)) <= {0, 1, 255}
        assert ((mask == 255) == ~image.any(axis=0)).all()  # nodata and padding, nothing else
        assert (image.all(axis=0) == image.any(axis=0)).all()  # 0 in every band or in none
        assert tile.landslide_px == (mask == 1).sum()
        assert tile.valid_px == (mask != 255).sum()
        assert tile.landslide_fraction == pytest.approx(tile.landslide_px / tile.valid_px)
    frame = pyogrio.read_dataframe(dataset.root / "tiles.gpkg", layer="tiles")
    assert frame.crs.to_epsg() == 32632
    for row in frame.itertuples():
        with rasterio.open(dataset.root / "images" / f"{row.tile_id}.tif") as raster:
            tile = shapely.box(*raster.bounds)
            assert row.geometry.equals(tile & on_grid(GRID, 0, 0, 900, 700))  # without padding
    info = json.loads((dataset.root / "dataset.json").read_text())
    assert info["labels"]["outside"] == 1
    assert info["landslide_area"]["hidden"] == pytest.approx(1600, rel=0.06)
    for split, counts in info["counts"].items():
        mine = dataset.split(split)
        assert counts["tiles"] == len(mine)
        assert counts["landslide_px"] == sum(t.landslide_px for t in mine)
        assert counts["tiles"] - counts["positive_tiles"] == round(counts["positive_tiles"] * 0.33)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 40}, {"sampling": "centered"}, {"negatives": "all"}]
)
def test_splits_share_no_pixel(
    tmp_path: Path, scene: str, slides: str, options: dict[str, Any]
) -> None:
    dataset = make(tmp_path, [scene], slides, **options)
    seen = np.greater(painted(dataset, (700, 900)), 0)
    assert seen.sum(axis=0).max() == 1
    if "sampling" in options:  # what lies in the middle of a crop is its own split's
        assert sum("_s0" in tile.tile_id for tile in dataset.tiles) == 28
    if options.get("negatives") == "all":
        assert seen.any(axis=0)[:, 40:].all()
        assert painted(dataset, (700, 900)).max() == 1


def test_a_stride_that_changes_nothing_is_told(
    tmp_path: Path,
    scene: str,
    slides: str,
    bundled_scene: Path,
    bundled_labels: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = make(tmp_path, [scene], slides, stride=32)
    assert painted(dataset, (700, 900)).max() > 1
    assert "--stride" not in capsys.readouterr().err
    assert "tiles overlap" in "\n".join(PrepareReport(dataset.root, dataset.info).lines())
    given: dict[str, Any] = {"scenes": (str(bundled_scene),), "labels": str(bundled_labels)}
    report = prepare(PrepareConfig(tmp_path / "d", tile_size=256, stride=128, **given))
    plain = prepare(PrepareConfig(tmp_path / "p", tile_size=256, **given))
    assert report.info["counts"] == plain.info["counts"]
    assert "--stride 128 changes nothing: too few blocks hold" in capsys.readouterr().err
    assert "(100.00%)" in "\n".join(report.lines())


def test_one_radiometry_for_the_whole_scene(tmp_path: Path, scene: str, slides: str) -> None:
    dataset = make(tmp_path, [scene], slides, negatives="all")
    with rasterio.open(scene) as raster:
        source = raster.read()
    table = np.full((3, 256), -1)
    for _, image, _, transform in pixels_of(dataset):
        col, row = (round(v) for v in ~GRID * (transform.c, transform.f))
        part = source[:, row : row + 64, col : col + 64]
        image = image[:, : part.shape[1], : part.shape[2]]
        for band in range(3):
            valid = image[band] > 0
            known = table[band][part[band][valid]]
            assert ((known == -1) | (known == image[band][valid])).all()
            table[band][part[band][valid]] = image[band][valid]


def test_centered_crops_hold_whole_landslides(tmp_path: Path, scene: str) -> None:
    big = shapely.box(500300, 3999000, 500700, 3999300)  # 200 × 150 pixels
    small = shapely.box(501000, 3999500, 501040, 3999540)
    frame = geopandas.GeoDataFrame({"a": [1, 2]}, geometry=[big, small], crs="EPSG:32632")
    pyogrio.write_dataframe(frame, tmp_path / "two.gpkg")
    split = tmp_path / "split.csv"
    split.write_text("scene,split\nscene one (a),train\n")
    dataset = make(
        tmp_path, [scene], str(tmp_path / "two.gpkg"), sampling="centered", split_file=split,
        negatives=0.0,
    )  # fmt: skip
    first, second = pixels_of(dataset)
    assert first[3].a == pytest.approx(2 * 250 / 64)
    assert second[3].a == 2
    assert (first[2] == 1).sum() * first[3].a ** 2 == pytest.approx(big.area, rel=0.05)
    assert (second[2] == 1).sum() * 4 == pytest.approx(small.area, rel=0.01)


def test_parts_of_a_dissolved_layer_have_crops_of_their_own(tmp_path: Path, scene: str) -> None:
    one, two = (shapely.box(left, 3999500, left + 40, 3999540) for left in (500300.0, 500800.0))
    near = shapely.box(500360, 3999500, 500380, 3999540)  # fits the tile of `one`
    split = tmp_path / "split.csv"
    split.write_text("scene,split\nscene one (a),train\n")
    for name, parts, centres in (
        ("dissolved", [one, two], [500320.0, 500820.0]),
        ("together", [one, near], [500340.0]),
    ):
        layer = geopandas.GeoSeries([shapely.MultiPolygon(parts)], crs="EPSG:32632")
        layer.to_file(tmp_path / f"{name}.gpkg")
        dataset = make(
            tmp_path, [scene], str(tmp_path / f"{name}.gpkg"), sampling="centered",
            split_file=split, negatives=0.0, name=f"{name}-tiles",
        )  # fmt: skip
        found = list(pixels_of(dataset))
        assert [transform.c + 32 * transform.a for *_, transform in found] == centres
        assert {transform.a for *_, transform in found} == {2.0}
        assert sum((mask == 1).sum() for _, _, mask, _ in found) * 4 == sum(p.area for p in parts)


def test_crops_lie_in_the_scene_where_it_is_large_enough(tmp_path: Path) -> None:
    """One of what is seen of each landslide: at a corner, a tall one, and in a narrow scene."""
    narrow = GRID * Affine.translation(5000, 0)
    scenes = [
        write(tmp_path / "a.tif", np.full((3, 300, 400), 9, np.uint8), transform=GRID),
        write(tmp_path / "b.tif", np.full((3, 120, 50), 9, np.uint8), transform=narrow),
    ]
    shapes = [  # in pixels of each scene: x and y of two corners
        on_grid(GRID, 390, 280, 450, 340),
        on_grid(GRID, 100, 50, 120, 210),
        on_grid(narrow, 20, 60, 40, 70),
    ]
    geopandas.GeoSeries(shapes, crs="EPSG:32632").to_file(tmp_path / "l.gpkg")
    split = tmp_path / "split.csv"
    split.write_text("scene,split\na,train\nb,train\n")
    dataset = make(
        tmp_path, scenes, str(tmp_path / "l.gpkg"), sampling="centered", split_file=split,
        negatives=0.0,
    )  # fmt: skip
    found = {}
    for tile, _, mask, transform in pixels_of(dataset):
        grid = narrow if tile.source == "b" else GRID
        col, row = ~grid * (transform.c, transform.f)
        found[tile.tile_id] = (round(col), round(row), transform.a / 2, (mask == 1).sum())
    assert found == {
        "a_s00000": (400 - 64, 300 - 64, 1, 10 * 20),
        "a_s00001": (110 - 100, 130 - 100, 200 / 64, pytest.approx(20 * 160 / 3.125**2, rel=0.1)),
        "b_s00000": (-7, 65 - 32, 1, 20 * 10),
    }
    assert dataset.info["landslide_area"]["hidden"] == 0


def on_grid(grid: Affine, *corners: float) -> shapely.Polygon:
    """A box between two corners in pixels, on the map."""
    (left, top), (right, bottom) = grid * corners[:2], grid * corners[2:]
    return shapely.box(left, bottom, right, top)


def test_labels_are_counted_over_all_scenes(tmp_path: Path) -> None:
    """The first polygon lies in the second scene, over its edge; one in neither."""
    other = GRID * Affine.translation(5000, 0)
    scenes = [
        write(tmp_path / f"{n}.tif", np.full((3, 100, 100), 9, np.uint8), transform=grid)
        for n, grid in enumerate((GRID, other))
    ]
    shapes = [
        on_grid(other, 80, 10, 120, 30),
        on_grid(GRID, 10, 10, 30, 30),
        on_grid(GRID, 105, 10, 125, 30),
    ]
    geopandas.GeoSeries(shapes, crs="EPSG:32632").to_file(tmp_path / "l.gpkg")
    info = make(tmp_path, scenes, str(tmp_path / "l.gpkg")).info
    assert (info["labels"]["outside"], info["labels"]["lost"]) == (1, 0)
    assert [source["landslides"] for source in info["sources"]] == [1, 1]
    area = info["landslide_area"]
    assert area["polygons"] == pytest.approx(2 * 400 * 4, rel=1e-3)
    assert area["hidden"] == 0  # what is beyond the edge is nothing that a tile lacks


def test_polygons_that_cannot_be_brought_to_a_scene_are_counted(tmp_path: Path) -> None:
    """One reaches to the south pole, which Lambert-93 has not; so where it lies is not known."""
    scenes = [
        write(
            tmp_path / f"{n}.tif", np.full((3, 64, 64), 9, np.uint8), crs="EPSG:2154",
            transform=Affine(10, 0, x, 0, -10, 6_600_640),
        )
        for n, x in enumerate((700_000, 200_000))
    ]  # fmt: skip
    inside = shapely.box(700_100, 6_600_100, 700_300, 6_600_300)
    shapes = geopandas.GeoSeries([inside], crs=2154).to_crs(4326).tolist()
    shapes.append(shapely.box(2.9, -90, 3.1, 50))
    geopandas.GeoSeries(shapes, crs=4326).to_file(tmp_path / "l.gpkg")
    labels = make(tmp_path, scenes, str(tmp_path / "l.gpkg")).info["labels"]
    assert (labels["lost"], labels["outside"]) == (1, None)


def test_landslides_of_any_scene_are_shared_out(tmp_path: Path, scene: str, slides: str) -> None:
    bare = write(
        tmp_path / "bare.tif", np.full((3, 700, 900), 9, np.uint8),
        transform=GRID * Affine.translation(5000, 0),
    )  # fmt: skip
    # With this seed, blocks of the second scene that pass for empty give 0.74 to training.
    dataset = make(tmp_path, [bare, scene], slides, negatives=0.0, seed=5)
    counts = [sum(tile.landslide_px for tile in dataset.split(s)) for s in ("train", "val", "test")]
    assert np.array(counts) / sum(counts) == pytest.approx([0.6, 0.2, 0.2], abs=0.05)


def test_ignored_polygons_and_aoi(tmp_path: Path, scene: str, slides: str) -> None:
    area = geopandas.GeoDataFrame(
        {"a": [1]}, geometry=[shapely.box(500000, 3998600, 501000, 4000000)], crs="EPSG:32632"
    )
    pyogrio.write_dataframe(area, tmp_path / "aoi.fgb")
    plain = make(tmp_path, [scene], slides, name="plain", negatives="all")
    dataset = make(
        tmp_path, [scene], slides, negatives="all", where="kind = 'slide'",
        ignore_where="kind = 'maybe'", aoi=str(tmp_path / "aoi.fgb"),
    )  # fmt: skip
    assert dataset.info["labels"]["ignore"]["polygons"] == 10
    counts = [sum(c["landslide_px"] for c in d.info["counts"].values()) for d in (plain, dataset)]
    assert 0 < counts[1] < counts[0]
    for _, _, mask, transform in pixels_of(dataset):
        xs = transform.c + (np.arange(64) + 0.5) * 2
        assert (mask[:, xs > 501000] == 255).all()


def test_long_edges_of_the_aoi_are_where_detect_has_them(
    tmp_path: Path, scene: str, slides: str
) -> None:
    """A parallel in degrees is bent in metres: its chord over six degrees is kilometres off."""
    middle = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(500900, 3999300)
    asked = geopandas.GeoDataFrame(geometry=[shapely.box(6, middle[1], 12, 38)], crs=4326)
    pyogrio.write_dataframe(asked, tmp_path / "aoi.gpkg")
    dataset = make(tmp_path, [scene], slides, negatives="all", aoi=str(tmp_path / "aoi.gpkg"))
    seen = np.zeros((700, 900), bool)
    for _, _, mask, transform in pixels_of(dataset):
        col, row = (round(v) for v in ~GRID * (transform.c, transform.f))
        part = seen[row : row + 64, col : col + 64]
        part |= (mask != 255)[: part.shape[0], : part.shape[1]]
    wanted = place(read_area(None, None, str(tmp_path / "aoi.gpkg")), open_scene(scene))
    inside = wanted.inside(0, 0, 700, 900)
    assert 0.3 < inside.mean() < 0.7
    assert (seen[:, 40:] == inside[:, 40:]).all()


@pytest.mark.parametrize(
    ("crs", "sampling"), [("EPSG:32632", "grid"), (None, "grid"), ("EPSG:32632", "centered")]
)
def test_overlapping_scenes_are_kept_apart(
    tmp_path: Path, scene: str, slides: str, crs: str | None, sampling: str
) -> None:
    rng = np.random.default_rng(3)
    shifted = Affine(2, 0, 500000 + 2 * 400, 0, -2, 4000000 - 2 * 30)
    other = write(
        tmp_path / "b.tif", rng.integers(1, 255, (3, 600, 500), np.uint8),
        transform=shifted, crs=crs,
    )  # fmt: skip
    if crs is None:
        with rasterio.open(scene) as raster:
            scene = write(tmp_path / "a.tif", raster.read(), transform=GRID, crs=None, nodata=0)
        frame = pyogrio.read_dataframe(slides).to_crs(32632).set_crs(None, allow_override=True)
        slides = str(tmp_path / "plain.gpkg")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_dataframe(frame, slides)
    dataset = make(tmp_path, [scene, other], slides, negatives="all", sampling=sampling)
    assert dataset.info["dropped"]["overlapping"] > 0
    frame = pyogrio.read_dataframe(dataset.root / "tiles.gpkg", layer="tiles")
    split, source = frame["split"].to_numpy(), frame["source"].to_numpy()
    one, two = shapely.STRtree(frame.geometry).query(frame.geometry, predicate="intersects")
    shared = shapely.area(
        shapely.intersection(frame.geometry.values[one], frame.geometry.values[two])
    )
    apart = split[one] != split[two]
    if sampling == "centered":  # crops of one scene hold what is another split's as ignored
        apart &= source[one] != source[two]
    assert not (shared[apart] > 1).any()


def test_sheets_that_adjoin_keep_all_windows(tmp_path: Path) -> None:
    """At its edges a sheet is padded, and what is beyond them is another one's ground."""
    sheets, shapes = [], []
    for n in range(4):
        grid = GRID * Affine.translation(100 * (n % 2), 100 * (n // 2))
        pixels = np.random.default_rng(n).integers(1, 255, (3, 100, 100), np.uint8)
        sheets.append(write(tmp_path / f"{n}.tif", pixels, transform=grid))
        shapes += [on_grid(grid, x, y, x + 9, y + 9) for x in (20, 80) for y in (20, 80)]
    geopandas.GeoSeries(shapes, crs="EPSG:32632").to_file(tmp_path / "l.gpkg")
    dataset = make(tmp_path, sheets, str(tmp_path / "l.gpkg"))
    assert dataset.info["dropped"]["overlapping"] == 0
    assert len(dataset.tiles) == 16
    assert {tile.split for tile in dataset.tiles} == {"train", "val", "test"}


def test_images_of_several_dates_are_split_alike(tmp_path: Path, scene: str, slides: str) -> None:
    rng = np.random.default_rng(4)
    later = rng.integers(1, 255, (3, 700, 900), np.uint8)
    other = write(tmp_path / "later.tif", later, transform=GRID)
    dataset = make(tmp_path, [scene, other], slides, negatives="all")
    assert dataset.info["dropped"]["overlapping"] == 0
    where: dict[str, set[str]] = {}
    for tile in dataset.tiles:
        where.setdefault(tile.tile_id.removeprefix(tile.source), set()).add(tile.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_rotated_float_scene_with_nan(tmp_path: Path) -> None:
    turned = GRID * Affine.rotation(30)
    rng = np.random.default_rng(5)
    pixels = rng.normal(0.2, 0.05, (4, 400, 400)).astype(np.float32)
    pixels[1, :100, :100] = np.nan
    path = write(tmp_path / "s.tif", pixels, transform=turned, crs="EPSG:3857")
    col, row = rng.uniform(120, 360, (2, 20))
    centres = shapely.points(*(turned * (col, row)))
    frame = geopandas.GeoDataFrame({"a": range(20)}, geometry=centres, crs="EPSG:3857")
    frame["geometry"] = frame.buffer(40)
    pyogrio.write_dataframe(frame.to_crs(4326), tmp_path / "l.fgb")
    dataset = make(tmp_path, [path], str(tmp_path / "l.fgb"), stretch="percentile", negatives="all")
    assert area_ratio(dataset) == pytest.approx(1, abs=0.005)
    assert sum(t.valid_px for t in dataset.tiles) == 400 * 400 - 100 * 100
    # Web Mercator: the polygons' own area is the one on the ground.
    assert dataset.info["landslide_area"]["polygons"] < 0.7 * frame.union_all().area


def test_a_folder_and_a_pattern_stand_for_scenes(tmp_path: Path, scene: str, slides: str) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    copy = shutil.copy(scene, folder / "sheet.tif")
    tiles = [
        {tile.tile_id: tile.split for tile in make(tmp_path, [given], slides, name=name).tiles}
        for given, name in ((copy, "one"), (str(folder), "two"), (f"{folder}/s*.tif", "three"))
    ]
    assert tiles[0] == tiles[1] == tiles[2]
    with pytest.raises(LsmapError, match="no file matches"):
        make(tmp_path, [f"{folder}/x*.tif"], slides, name="four")


def test_same_seed_same_tiles(tmp_path: Path, scene: str, slides: str) -> None:
    names = [
        [(t.tile_id, t.split) for t in make(tmp_path, [scene], slides, name=n, seed=s).tiles]
        for n, s in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert names[0] == names[1] != names[2]


def test_a_data_set_does_not_hand_on_signatures(tmp_path: Path, scene: str, slides: str) -> None:
    (tmp_path / "scene.tif").write_bytes(Path(scene).read_bytes())
    with serve(tmp_path) as web:
        signed = f"{web.url}/scene.tif?sig=secret&se=2030"
        dataset = make(tmp_path, [signed], slides, command=("prepare", signed, slides))
    text = (dataset.root / "dataset.json").read_text()
    assert "secret" not in text
    assert f"{web.url}/scene.tif" in text
    assert {tile.source for tile in dataset.tiles} == {"scene"}
    assert all(tile.tile_id.startswith("scene_r") for tile in dataset.tiles)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14),
)
def test_linked_blocks_are_one_group(pairs: list[tuple[int, int]]) -> None:
    groups = list(range(12))
    for a, b in pairs:
        low, high = sorted((groups[a], groups[b]))
        groups = [low if group == high else group for group in groups]
    parent = np.arange(12)
    link(parent, *np.array(pairs, dtype=int).reshape(-1, 2).T)
    assert parent.tolist() == groups


@pytest.mark.parametrize(
    ("scene_file", "labels", "tiles", "options"),
    [
        ("everest/LE71400412000304SGS00_RGB.tif", "everest/15_rgi60_glacier_outlines.gpkg", 4, {}),
        ("mars/mars_vm_rgb.tif", "mars/mars_vm_labels.gpkg", 76, {}),
        (
            "chattogram/chattogram_s2_rgbn.tif",
            "chattogram/chattogram_landslide_cls2.geojson",
            7,
            {"bands": (1, 2, 3, 4)},
        ),
    ],
)
def test_real_scenes(
    tmp_path: Path, shared_data: Path, scene_file: str, labels: str, tiles: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    folder = shared_data / "scenes"
    dataset = make(
        tmp_path, [str(folder / scene_file)], str(folder / labels), tile_size=512, **options
    )
    assert len(dataset.tiles) == tiles
    assert area_ratio(dataset) == pytest.approx(1, abs=0.005)
    with (
        rasterio.open(folder / scene_file) as source,
        rasterio.open(dataset.tiles[0].image) as tile,
    ):
        assert tile.crs == source.crs
        assert tile.count == len(options.get("bands", (1, 2, 3)))


def test_polygon_z_with_an_odd_codepage_file(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "scenes/balakot"
    dataset = make(
        tmp_path, [str(folder / "balakot_hillshade3.tif")], str(folder / "landslides.shp"),
        tile_size=512,
    )  # fmt: skip
    assert dataset.info["labels"]["features"] == 3820
    assert dataset.info["labels"]["repaired"] == 1
    assert area_ratio(dataset) == pytest.approx(1, abs=0.005)


def test_author_split_of_many_scenes(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "sichuan"
    scenes = [str(folder / "scenes" / f"site_{n:03d}.tif") for n in (1, 2, 15)]
    manifest = folder / "manifest.csv"
    dataset = make(tmp_path, scenes, str(folder / "labels.shp"), tile_size=512, split_file=manifest)
    listed = dict(line.split(",")[:2] for line in manifest.read_text().splitlines()[1:])
    assert {t.split for t in dataset.tiles} == {listed[Path(s).name] for s in scenes}
    for tile in dataset.tiles:
        assert tile.split == listed[f"{tile.source}.tif"]
    assert area_ratio(dataset) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("aoi", [True, False])
@pytest.mark.parametrize("ignore", [True, False])
def test_the_report_says_where_landslide_area_went(
    tmp_path: Path, scene: str, aoi: bool, ignore: bool
) -> None:
    """Three landslides of 10000 m²: one is ignored by a quarter, one lies outside the AOI."""
    shapes = [shapely.box(x, 3999000, x + 100, 3999100) for x in (500200, 500800, 501400)]
    shapes.append(shapely.box(500250, 3999050, 500400, 3999400))
    frame = geopandas.GeoDataFrame(
        {"kind": ["slide"] * 3 + ["maybe"]}, geometry=shapes, crs="EPSG:32632"
    )
    pyogrio.write_dataframe(frame, tmp_path / "l.gpkg")
    area = geopandas.GeoSeries([shapely.box(500000, 3998600, 501400, 4000000)], crs="EPSG:32632")
    pyogrio.write_dataframe(area.to_frame("geometry"), tmp_path / "aoi.gpkg")
    config = PrepareConfig(
        tmp_path / "d", scenes=(scene,), labels=str(tmp_path / "l.gpkg"), tile_size=64, workers=2,
        where="kind = 'slide'", ignore_where="kind = 'maybe'" if ignore else None,
        aoi=str(tmp_path / "aoi.gpkg") if aoi else None,
    )  # fmt: skip
    report = prepare(config)
    found = report.info["landslide_area"]
    missing = 2500 * ignore + 10000 * aoi
    assert found["left_out"] == pytest.approx(missing, rel=0.01, abs=1e-3)
    assert found["tiles"] + missing == pytest.approx(found["polygons"], rel=0.01)
    said = "\n".join(report.lines())
    words = ["outside the AOI"] * aoi + ["on ignored ground"] * ignore
    assert ("of it lies" in said) == bool(words)
    if words:
        assert f" km² of it lies {' or '.join(words)}." in said


def test_the_next_command_suits_the_tiles(
    tmp_path: Path, bundled_scene: Path, bundled_labels: Path
) -> None:
    given: dict[str, Any] = {"scenes": (str(bundled_scene),), "labels": str(bundled_labels)}
    for size, said in (
        (512, "--batch-size 2"),
        (256, f"Next: lsmap train {tmp_path / '256'}"),
    ):
        report = prepare(PrepareConfig(tmp_path / str(size), tile_size=size, **given))
        assert report.lines()[-1].endswith(said)
        assert report.lines()[-1] == f"Next: {describe(str(tmp_path / str(size))).next_command}"
    given["scenes"] *= 2
    with pytest.raises(LsmapError, match="given twice"):
        prepare(PrepareConfig(tmp_path / "d", **given))


@pytest.mark.parametrize("factor", [1, 4])
def test_scenes_of_several_pixel_sizes_are_warned_of(
    tmp_path: Path,
    train_scenes: list[Path],
    train_labels: Path,
    factor: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with rasterio.open(train_scenes[0]) as fine:
        side = fine.width // factor
        pixels = fine.read(out_shape=(fine.count, side, side))
        transform = fine.transform * Affine.scale(factor)
    coarse = write(tmp_path / "coarse.tif", pixels, transform=transform, crs="EPSG:32648")
    prepare(
        PrepareConfig(
            tmp_path / "d", (coarse, str(train_scenes[1])), str(train_labels), tile_size=128
        )
    )
    said = "Warning: pixels of these tiles are 0.5 to 2 m, and detect shows a model one size"
    assert (said in capsys.readouterr().err) == (factor > 1)


def test_no_training_is_advised_where_there_is_nothing_to_validate_on(
    tmp_path: Path, train_scenes: list[Path], train_labels: Path
) -> None:
    scenes = tuple(map(str, train_scenes))
    config = PrepareConfig(
        tmp_path / "d", scenes=scenes, labels=str(train_labels), tile_size=128, sampling="centered"
    )
    report = prepare(config)
    assert report.info["counts"]["train"]["positive_tiles"] >= 2
    assert report.info["counts"]["val"]["tiles"] == 0
    said = "\n".join(report.lines())
    assert "No tiles in val: too few blocks hold landslides" in said
    assert "Next: lsmap train" not in said
    assert describe(str(tmp_path / "d")).next_command is None
    assert report.lines()[-1].startswith("Not enough for lsmap train")


@pytest.mark.parametrize(("size", "half"), [(64, None), (120, None), (136, 64), (512, 256)])
def test_smaller_tiles_are_advised_where_there_are_any(
    dataset: Path, size: int, half: int | None
) -> None:
    info = load_dataset(dataset).info
    train = info["counts"]["train"] | {"positive_tiles": 1}
    few = info | {"tile_size": size, "counts": info["counts"] | {"train": train}}
    smaller = f" or make tiles smaller, e.g. --tile-size {half}" if half else ""
    said = f"Too few tiles with landslide to train on: add scenes{smaller}"
    assert PrepareReport(dataset, few).lines()[-1] == said
    # Of images that are scaled to a tile there are no more of smaller ones.
    pairs = few["options"] | {"pairs": [["images", "masks"]]}
    said = PrepareReport(dataset, few | {"options": pairs}).lines()[-1]
    assert said == "Too few tiles with landslide to train on: add images"
