"""Scenes of this machine: folders, patterns, mosaics."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from fakes import UTM, blobs, detect_brightness, model_info, write_scene
from rasterio.shutil import copy as gdal_copy
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.remote import is_local
from landslide_mapper.geo.scene import Source, open_scene
from landslide_mapper.geo.scene_files import files_of
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.plan import plan_detection


def read_all(source: str | Source, *window: int) -> np.ndarray:
    scene = open_scene(source)
    with SceneReader(scene) as reader:
        return reader.read(*(window or (0, 0, scene.height, scene.width)))[0]


def noise(seed: int = 0, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)


def test_a_folder_is_its_rasters_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.TIF", "a.tif", "c.vrt.txt", "d.csv", "f.jpeg"):
        write_scene(tmp_path / name, noise())
    (tmp_path / "inside").mkdir()
    write_scene(tmp_path / "inside" / "e.tif", noise())
    found = expand_sources([str(tmp_path)])
    assert [source.path for source in found] == [
        str(tmp_path / "a.tif"),
        str(tmp_path / "b.TIF"),
        str(tmp_path / "f.jpeg"),
    ]
    assert f"{tmp_path}: 3 scenes" in capsys.readouterr().err


def test_a_pattern_is_what_it_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("n2.tif", "n1.tif", "m1.tif", "odd[1].tif"):
        write_scene(tmp_path / name, noise())
    found = expand_sources([f"{tmp_path}/n?.tif", f"{tmp_path}/odd[1].tif"])
    assert [Path(source.path).name for source in found] == ["n1.tif", "n2.tif", "odd[1].tif"]
    assert "n?.tif: 2 scenes" in capsys.readouterr().err


def test_a_folder_goes_through_the_plan(tmp_path: Path) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()
    for number in range(3):
        write_scene(folder / f"{number}.tif", noise(number))
    config = DetectConfig((str(folder),), tmp_path / "out.gpkg", mask=tmp_path / "masks")
    plans = plan_detection(config, model_info())
    assert [plan.scene.name for plan in plans] == ["0.tif", "1.tif", "2.tif"]
    assert [plan.mask.name for plan in plans if plan.mask] == [f"{n}_mask.tif" for n in range(3)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty", "no raster in this folder"),
        ("x*.tif", "no file matches this pattern"),
        ("absent.json", "no such file"),
        ("text.json", "not a STAC item"),
        ("collection.json", "this collection is not a STAC item"),
        ("list.json", "not a STAC item"),
    ],
)
def test_what_is_none_is_said_in_one_line(tmp_path: Path, name: str, says: str) -> None:
    if name.endswith(".json"):
        pytest.importorskip("pystac")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("no JSON")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "collection.json").write_text('{"type": "Collection", "id": "c"}')
    with pytest.raises(LsmapError, match=says) as error:
        expand_sources([str(tmp_path / name)])
    assert "\n" not in str(error.value)


def test_a_name_with_spaces_that_lacks_its_quotes(tmp_path: Path) -> None:
    name = str(tmp_path / "north of A.tif")
    write_scene(Path(name), noise())
    with pytest.raises(LsmapError, match=f'quotes: "{name}"'):
        expand_sources(name.split(" "))


def mosaic(path: Path, tiles: list[list[str]], height: int, width: int) -> str:
    """A VRT of tiles (h, w), all of one size, laid out in rows."""
    sources = [
        f"<SimpleSource><SourceFilename>{tile}</SourceFilename><SourceBand>BAND</SourceBand>"
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="Byte" '
        f'BlockXSize="{width}" BlockYSize="1"/>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{col * width}" yOff="{row * height}" xSize="{width}" ySize="{height}"/>'
        "</SimpleSource>"
        for row, line in enumerate(tiles)
        for col, tile in enumerate(line)
    ]
    bands = [
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(sources).replace("BAND", str(band))
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    ]
    place = ",".join(str(value) for value in UTM.to_gdal())
    size = f'rasterXSize="{width * len(tiles[0])}" rasterYSize="{height * len(tiles)}"'
    path.write_text(
        f"<VRTDataset {size}><SRS>EPSG:32648</SRS><GeoTransform>{place}</GeoTransform>"
        f"{''.join(bands)}</VRTDataset>"
    )
    return str(path)


def test_a_mosaic_is_one_scene(tmp_path: Path) -> None:
    tiles = [
        [write_scene(tmp_path / f"{r}{c}.tif", noise(2 * r + c)) for c in range(2)]
        for r in range(2)
    ]
    path = mosaic(tmp_path / "all.vrt", tiles, 60, 80)
    whole = np.block([[noise(0), noise(1)], [noise(2), noise(3)]])
    assert (read_all(path) == whole).all()
    assert (read_all(path, 50, 70, 20, 30)[0] == whole[50:70, 70:100]).all()


def test_a_mosaic_that_loses_a_tile_is_a_failure(tmp_path: Path) -> None:
    tiles = [[write_scene(tmp_path / f"{c}.tif", noise(c)) for c in range(2)]]
    scene = open_scene(mosaic(tmp_path / "all.vrt", tiles, 60, 80))
    with SceneReader(scene) as reader:
        Path(tiles[0][1]).unlink()
        reader.read(0, 0, 60, 80)
        with pytest.raises(LsmapFailure, match="row 0, column 90 cannot be read") as error:
            reader.read(0, 90, 60, 20)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)


def test_what_lsmap_made_and_pieces_of_a_mosaic_are_no_scenes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    band = np.where(blobs(1, (60, 80)), 200, 50).astype(np.uint8)
    for name in ("a", "b", "c"):
        write_scene(tmp_path / f"{name}.tif", band)
    more = {"mask": tmp_path / "a_mask.tif", "probability": tmp_path / "a_percent.tif"}
    detect_brightness(str(tmp_path / "a.tif"), tmp_path / "slides.gpkg", **more)
    (tmp_path / "both.vrt").write_text(stack([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]))
    for name in (str(tmp_path), f"{tmp_path}/*.[tv]*"):
        found = [Path(source.path).name for source in expand_sources([name])]
        assert found == ["both.vrt", "c.tif"]
        said = "2 scenes; left out: 2 that lsmap made itself, 2 that a mosaic in it shows"
        assert said in capsys.readouterr().err
    picture = {"overlay": tmp_path / "a_overlay.png"}
    detect_brightness(str(tmp_path / "a.tif"), tmp_path / "slides.geojson", **picture)
    assert not (tmp_path / "a_overlay.png.aux.xml").exists()
    assert [Path(source.path).name for source in expand_sources([str(tmp_path)])] == found
    with pytest.raises(LsmapError, match="nothing in it but what lsmap made"):
        expand_sources([f"{tmp_path}/a_*.tif"])


@pytest.mark.parametrize("kind", ["corner", "coarse", "whole"])
@pytest.mark.parametrize("rows_go", ["south", "north"])
def test_a_preview_does_not_stand_for_the_scene(tmp_path: Path, kind: str, rows_go: str) -> None:
    band = np.where(blobs(1, (60, 80)), 200, 50).astype(np.uint8)
    transform = UTM if rows_go == "south" else UTM * Affine.scale(1, -1)
    write_scene(tmp_path / "a.tif", band, transform=transform)
    size = {"corner": (30, 30), "coarse": (20, 20), "whole": (60, 80)}[kind]
    with rasterio.open(tmp_path / "a.tif") as raster:
        cut = raster.bounds if kind != "corner" else raster.window_bounds(Window(0, 0, 30, 30))
        west, bottom, east, top = cut
        place = from_bounds(west, min(bottom, top), east, max(bottom, top), size[1], size[0])
        options = {"transform": place, "height": size[0], "width": size[1], "crs": raster.crs}
        with WarpedVRT(raster, **options) as warped:
            gdal_copy(warped, tmp_path / "preview.vrt", driver="VRT")
    if kind == "whole":  # as it lies, too
        (tmp_path / "same.vrt").write_text(stack([str(tmp_path / "a.tif")]))
        assert "a.tif" not in {Path(it.path).name for it in expand_sources([f"{tmp_path}/[as]*"])}
        (tmp_path / "same.vrt").unlink()
    found = [Path(source.path).name for source in expand_sources([str(tmp_path)])]
    assert found == (["preview.vrt"] if kind == "whole" else ["a.tif", "preview.vrt"])


def test_hidden_files_of_a_folder_are_no_scenes(tmp_path: Path) -> None:
    """What macOS leaves on other systems' disks has the suffix of the file that it belongs to."""
    scene = write_scene(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    (tmp_path / "._a.tif").write_bytes(b"Mac OS X")
    assert [source.path for source in expand_sources([str(tmp_path)])] == [scene]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["2024-01-01T10:00:00.tif", "run:1/a.tif"])
def test_files_with_colons_in_their_names_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An unfinished run goes on where its files are as they were, so they have to be known."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    scene = open_scene(write_scene(Path(name), np.ones((8, 8), np.uint8)))
    assert files_of(scene) == [tmp_path / name]
    assert scene.anywhere().opened == str(tmp_path / name)
    assert not is_local("NETCDF:rain.nc:rain")
    if Path(name).parent.name:
        assert [source.path for source in expand_sources(["run:1"])] == [name]
