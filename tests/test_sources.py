"""Scenes from anywhere: folders, patterns, mosaics, web servers, S3, STAC items."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import UTM, blobs, detect_brightness, grey, model_info, write_scene
from range_server import Traffic, serve
from rasterio.shutil import copy as gdal_copy
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.remote import gdal_name, is_local, shown_name
from landslide_mapper.geo.scene import Source, open_scene
from landslide_mapper.geo.scene_files import files_of
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.info import describe
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.outputs import extra_outputs
from landslide_mapper.mapping.plan import plan_detection


def read(source: str | Source, *window: int) -> np.ndarray:
    scene = open_scene(source)
    with SceneReader(scene) as reader:
        return reader.read(*(window or (0, 0, scene.height, scene.width)))[0]


def noise(seed: int = 0, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)


# --- files of this machine --------------------------------------------------------------------


def test_a_folder_is_its_rasters_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.TIF", "a.tif", "c.vrt.txt", "d.csv"):
        write_scene(tmp_path / name, noise())
    (tmp_path / "inside").mkdir()
    write_scene(tmp_path / "inside" / "e.tif", noise())
    found = expand_sources([str(tmp_path)])
    assert [source.path for source in found] == [
        str(tmp_path / "a.tif"),
        str(tmp_path / "b.TIF"),
    ]
    assert f"{tmp_path}: 2 scenes" in capsys.readouterr().err


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
    assert (read(path) == whole).all()
    assert (read(path, 50, 70, 20, 30)[0] == whole[50:70, 70:100]).all()


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


# --- the network ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of these tests are on this machine, and failures are not tried again for long."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Traffic]:
    folder = tmp_path / "web"
    folder.mkdir()
    with serve(folder) as traffic:
        yield traffic


def write_cog(path: Path, side: int) -> str:
    """A tiled GeoTIFF with overviews of real-looking, compressible noise."""
    band = np.cumsum(noise(0, (side, side)).astype(np.int64) - 127, axis=1)
    plain = write_scene(path.with_suffix(".plain.tif"), (band % 250 + 1).astype(np.uint8))
    gdal_copy(plain, path, driver="COG", compress="deflate", blocksize=256)
    Path(plain).unlink()
    return str(path)


def test_names_for_gdal_and_for_people() -> None:
    assert gdal_name("https://a.b/c.tif?x=1") == "/vsicurl/https://a.b/c.tif?x=1"
    assert gdal_name("s3://bucket/a/b.tif") == "/vsis3/bucket/a/b.tif"
    assert gdal_name("/data/a.tif") == "/data/a.tif"
    assert shown_name("https://a.b/d/c.tif?x=/1") == "c.tif"
    assert shown_name("/vsis3/bucket/a/b.tif") == "b.tif"


def test_only_the_needed_ranges_of_a_remote_file_are_read(tmp_path: Path, web: Traffic) -> None:
    local = write_cog(tmp_path / "web" / "scene.tif", 4096)
    size = os.path.getsize(local)
    west, north = UTM * (1500, 2500)
    east, south = UTM * (1756, 2756)
    config = DetectConfig(
        (f"{web.url}/scene.tif",), tmp_path / "out.gpkg", bbox=(west, south, east, north)
    )
    (plan,) = plan_detection(config, model_info(radiometry="equalize"))
    assert plan.scene.name == "scene.tif"
    assert web.sent < 0.01 * size
    with SceneReader(plan.scene) as reader:
        data, valid = reader.read(plan.frame.row, plan.frame.col, 256, 256)
    assert valid.all()
    assert (data == read(local, 2500, 1500, 256, 256)).all()
    assert web.sent < 0.03 * size
    assert not any(asked.endswith((".aux.xml", ".ovr", ".msk", "/")) for asked in web.requests)
    web.reset()
    assert fit(plan.scene, "equalize") == fit(open_scene(local), "equalize")
    assert web.sent < 0.15 * size  # of 1 : 16, but 1 : 4 is read: 1024 pixels a side


def test_a_part_of_a_remote_scene_is_mapped_as_the_local_one(tmp_path: Path, web: Traffic) -> None:
    plain = write_scene(tmp_path / "plain.tif", grey(blobs(3, (900, 900), 0.3, smooth=4)))
    gdal_copy(plain, tmp_path / "web" / "scene.tif", driver="COG", compress="deflate")
    outputs = []
    for number, scene in enumerate((plain, f"{web.url}/scene.tif")):
        folder = tmp_path / str(number)
        folder.mkdir()
        west, north = UTM * (300, 400)
        east, south = UTM * (700, 640)
        detect_brightness(
            scene,
            folder / "slides.fgb",
            bbox=(west, south, east, north),
            mask=folder / "mask.tif",
        )
        with rasterio.open(folder / "mask.tif") as raster:
            assert raster.shape == (240, 400)
            assert raster.transform * (0, 0) == (west, north)
            outputs.append(raster.read(1))
    assert (outputs[0] == outputs[1]).all()
    assert (outputs[0] == 1).any()


def test_a_server_that_goes_away_is_a_failure(tmp_path: Path, web: Traffic) -> None:
    write_cog(tmp_path / "web" / "scene.tif", 1024)
    scene = open_scene(f"{web.url}/scene.tif")
    with SceneReader(scene) as reader:
        reader.read(0, 0, 256, 256)
        web.gone = True
        with pytest.raises(LsmapFailure, match="row 512, column 512 cannot be read") as error:
            reader.read(512, 512, 256, 256)
    assert "server or the network may be gone" in str(error.value)
    assert "\n" not in str(error.value)


def test_remote_scenes_that_are_not_there(tmp_path: Path, web: Traffic) -> None:
    (tmp_path / "web" / "page.tif").write_text("<html>")
    for url, says in (
        (f"{web.url}/absent.tif", "there is no such file on the server"),
        (f"{web.url}/page.tif", "GDAL cannot read this as a raster"),
        ("http://127.0.0.1:9/a.tif", "the server cannot be reached"),
        ("https://no-such-host.invalid/a.tif", "the server cannot be reached"),
    ):
        with pytest.raises(LsmapError, match=says) as error:
            open_scene(url)
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2
    with pytest.raises(LsmapError, match="no such file on the server"):
        describe(f"{web.url}/absent.tif")


def test_info_describes_a_remote_scene(tmp_path: Path, web: Traffic) -> None:
    write_cog(tmp_path / "web" / "scene.tif", 512)
    assert describe(f"{web.url}/scene.tif").to_dict()["size"] == [512, 512]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket "scenes" on a server that speaks S3; the environment says where it is."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    boto3 = pytest.importorskip("boto3")
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="scenes")
    yield client
    server.stop()


def test_scenes_on_s3(tmp_path: Path, bucket: Any) -> None:
    local = write_cog(tmp_path / "scene.tif", 700)
    bucket.upload_file(local, "scenes", "north/scene.tif")
    expected = read(local)
    for name in ("s3://scenes/north/scene.tif", "/vsis3/scenes/north/scene.tif"):
        scene = open_scene(name)
        assert scene.name == "scene.tif"
        with SceneReader(scene) as reader:
            assert (reader.read(0, 0, 700, 700)[0] == expected).all()
    # A mosaic here of tiles there.
    path = mosaic(tmp_path / "all.vrt", [["/vsis3/scenes/north/scene.tif"]], 700, 700)
    assert (read(path) == expected).all()
    with pytest.raises(LsmapError, match="no such file on the server"):
        open_scene("s3://scenes/absent.tif")


def test_s3_without_credentials_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("CPL_AWS_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("CPL_AWS_AUTODETECT_EC2", "NO")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LsmapError, match=r"AWS_ACCESS_KEY_ID.*AWS_NO_SIGN_REQUEST") as error:
        open_scene("s3://without-credentials/a.tif")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with pytest.raises(LsmapError, match="the server cannot be reached"):
        open_scene("s3://without-credentials/b.tif")


# --- STAC -------------------------------------------------------------------------------------

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def write_item(path: Path, assets: dict[str, Any], version: str = "1.0.0") -> str:
    pytest.importorskip("pystac")
    item = {
        "type": "Feature",
        "stac_version": version,
        "id": "S2A.T48_2024",
        "geometry": None,
        "properties": {"datetime": "2024-01-02T03:04:05Z"},
        "links": [],
        "assets": assets,
    }
    path.write_text(json.dumps(item))
    return str(path)


def bands(folder: Path, version: str) -> dict[str, Any]:
    """Four single-band rasters as assets, and a thumbnail."""
    assets: dict[str, Any] = {
        "thumbnail": {"href": "t.png", "type": "image/png", "roles": ["thumbnail"]},
        "meta": {"href": "m.xml", "type": "application/xml"},
    }
    for number, colour in enumerate(("blue", "green", "red", "nir")):
        write_scene(folder / f"B{number}.tif", noise(number), count=1, nodata=0)
        assets[f"B0{number}"] = {"href": f"./B{number}.tif", "type": COG} | (
            {"eo:bands": [{"common_name": colour}]}
            if version == "1.0.0"
            else {"bands": [{"name": "x", "eo:common_name": colour}]}
        )
    return assets


def test_the_visual_asset_is_the_default(tmp_path: Path) -> None:
    write_scene(tmp_path / "tci.tif", noise(7))
    assets = bands(tmp_path, "1.0.0") | {"visual": {"href": "tci.tif", "type": COG}}
    (source,) = expand_sources([write_item(tmp_path / "item.json", assets)])
    assert open_scene(source).name == "S2A.T48_2024"
    assert (read(source) == noise(7)).all()
    (source,) = expand_sources([write_item(tmp_path / "item.json", assets)], ["B03"])
    assert (read(source) == noise(3)).all()


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_single_bands_are_stacked_by_colour(tmp_path: Path, version: str) -> None:
    item = write_item(tmp_path / "item.json", bands(tmp_path, version), version)
    (source,) = expand_sources([item])
    assert (read(source) == np.stack([noise(2), noise(1), noise(0)])).all()
    (source,) = expand_sources([item], bands=4)
    scene = open_scene(source, (1, 2, 3, 4))
    with SceneReader(scene) as reader:
        assert (reader.read(0, 0, 60, 80)[0][3] == noise(3)).all()
    assert scene.crs == open_scene(str(tmp_path / "B0.tif")).crs
    assert scene.transform == UTM
    (source,) = expand_sources([item], ["B03", "B00"])
    assert (read(source) == np.stack([noise(3), noise(0)])).all()


def test_an_item_on_a_server(tmp_path: Path, web: Traffic) -> None:
    folder = tmp_path / "web"
    write_item(folder / "item.json", bands(folder, "1.0.0"))
    config = DetectConfig((f"{web.url}/item.json",), tmp_path / "o.gpkg", mask=tmp_path / "masks")
    (plan,) = plan_detection(config, model_info())
    with SceneReader(plan.scene) as reader:
        data, valid = reader.read(0, 0, 60, 80)
    assert valid.all()
    assert (data == np.stack([noise(2), noise(1), noise(0)])).all()
    assert plan.mask == tmp_path / "masks" / "S2A.T48_2024_mask.tif"
    with pytest.raises(LsmapError, match=r"the STAC item cannot be read .*404"):
        expand_sources([f"{web.url}/absent.json"])


def test_the_only_raster_is_taken(tmp_path: Path) -> None:
    write_scene(tmp_path / "data.tif", noise(5))
    assets = {
        "thumbnail": {"href": "t.tif", "type": COG, "roles": ["thumbnail"]},
        "ortho": {"href": "data.tif"},
    }
    (source,) = expand_sources([write_item(tmp_path / "item.json", assets)])
    assert (read(source) == noise(5)).all()


def test_masked_bands_keep_their_mask(tmp_path: Path) -> None:
    paths = [write_scene(tmp_path / f"{n}.tif", noise(n), count=1) for n in range(3)]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(paths[0], "r+") as raster:
        raster.write_mask(np.arange(60 * 80).reshape(60, 80) >= 800)
    scene = open_scene(Source("stack", stack(paths)))
    with SceneReader(scene) as reader:
        _, valid = reader.read(0, 0, 60, 80)
    assert not valid[:10].any()
    assert valid[10:].all()


def test_assets_that_cannot_be_had(tmp_path: Path) -> None:
    item = write_item(tmp_path / "item.json", bands(tmp_path, "1.0.0"))
    with pytest.raises(LsmapError, match=r"no asset 'SCL'; the item has: thumbnail, meta, B00"):
        expand_sources([item], ["SCL"])
    with pytest.raises(LsmapError, match="it is not clear which asset to map"):
        expand_sources([item], bands=5)
    write_scene(tmp_path / "B1.tif", noise(1, (30, 40)), count=1)
    with pytest.raises(LsmapError, match="assets of one resolution"):
        expand_sources([item])
    with pytest.raises(LsmapError, match="none of the inputs is a STAC item"):
        expand_sources([str(tmp_path / "B0.tif")], ["B00"])


def test_without_pystac_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = write_item(tmp_path / "item.json", {})
    monkeypatch.setitem(sys.modules, "pystac", None)
    with pytest.raises(LsmapError, match=r"pip install 'lsmap\[stac\]'"):
        expand_sources([item])


def test_a_whole_folder_can_move(tmp_path: Path) -> None:
    """Assets are found beside the item, wherever the command is given."""
    first = tmp_path / "first"
    first.mkdir()
    write_item(first / "item.json", bands(first, "1.0.0"))
    shutil.move(first, tmp_path / "second")
    (source,) = expand_sources([str(tmp_path / "second" / "item.json")])
    assert read(source).shape == (3, 60, 80)


def test_an_item_is_read_with_what_lies_beside_it(tmp_path: Path) -> None:
    """Whatever address it was published at."""
    links = [{"rel": "self", "href": "https://example.com/catalogue/item.json"}]
    item = Path(write_item(tmp_path / "item.json", bands(tmp_path, "1.0.0")))
    item.write_text(json.dumps(json.loads(item.read_text()) | {"links": links}))
    (source,) = expand_sources([str(item)])
    assert read(source).shape == (3, 60, 80)


@pytest.mark.parametrize("name", ["../../evil", "/abs/olute", "..", "a\\b", "plain.v2"])
def test_the_id_of_an_item_leads_nowhere(tmp_path: Path, name: str) -> None:
    scene = open_scene(Source("item.json", write_scene(tmp_path / "t.tif", noise()), name))
    made = extra_outputs(DetectConfig((), tmp_path / "o.gpkg", mask=tmp_path / "m"), [scene])
    (mask,) = made["mask"]
    assert mask is not None
    assert mask.resolve().parent == (tmp_path / "m").resolve()


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
def test_a_preview_does_not_stand_for_the_scene(tmp_path: Path, kind: str) -> None:
    write_scene(tmp_path / "a.tif", np.where(blobs(1, (60, 80)), 200, 50).astype(np.uint8))
    size = {"corner": (30, 30), "coarse": (20, 20), "whole": (60, 80)}[kind]
    with rasterio.open(tmp_path / "a.tif") as raster:
        cut = raster.bounds if kind != "corner" else raster.window_bounds(Window(0, 0, 30, 30))
        place = from_bounds(*cut, size[1], size[0])
        options = {"transform": place, "height": size[0], "width": size[1], "crs": raster.crs}
        with WarpedVRT(raster, **options) as warped:
            gdal_copy(warped, tmp_path / "preview.vrt", driver="VRT")
    found = [Path(source.path).name for source in expand_sources([str(tmp_path)])]
    assert found == (["preview.vrt"] if kind == "whole" else ["a.tif", "preview.vrt"])


def test_hidden_files_of_a_folder_are_no_scenes(tmp_path: Path) -> None:
    """What macOS leaves on other systems' disks has the suffix of the file that it belongs to."""
    scene = write_scene(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    (tmp_path / "._a.tif").write_bytes(b"Mac OS X")
    assert [source.path for source in expand_sources([str(tmp_path)])] == [scene]


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
