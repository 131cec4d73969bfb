"""Scenes on web servers and S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import UTM, blobs, detect_brightness, grey, model_info, write_scene
from range_server import Traffic
from rasterio.shutil import copy as gdal_copy
from test_sources import mosaic, noise, read_all

from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.remote import gdal_name, shown_name
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.info import describe
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.plan import plan_detection

pytestmark = pytest.mark.usefixtures("no_proxy")


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
    assert (data == read_all(local, 2500, 1500, 256, 256)).all()
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
    expected = read_all(local)
    for name in ("s3://scenes/north/scene.tif", "/vsis3/scenes/north/scene.tif"):
        scene = open_scene(name)
        assert scene.name == "scene.tif"
        with SceneReader(scene) as reader:
            assert (reader.read(0, 0, 700, 700)[0] == expected).all()
    # A mosaic here of tiles there.
    path = mosaic(tmp_path / "all.vrt", [["/vsis3/scenes/north/scene.tif"]], 700, 700)
    assert (read_all(path) == expected).all()
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
