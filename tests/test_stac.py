"""STAC items as scenes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import UTM, model_info, write_scene
from range_server import Traffic
from test_sources import noise, read_all

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.scene import Source, open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.outputs import extra_outputs
from landslide_mapper.mapping.plan import plan_detection

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
    assert (read_all(source) == noise(7)).all()
    (source,) = expand_sources([write_item(tmp_path / "item.json", assets)], ["B03"])
    assert (read_all(source) == noise(3)).all()


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_single_bands_are_stacked_by_colour(tmp_path: Path, version: str) -> None:
    item = write_item(tmp_path / "item.json", bands(tmp_path, version), version)
    (source,) = expand_sources([item])
    assert (read_all(source) == np.stack([noise(2), noise(1), noise(0)])).all()
    (source,) = expand_sources([item], bands=4)
    scene = open_scene(source, (1, 2, 3, 4))
    with SceneReader(scene) as reader:
        assert (reader.read(0, 0, 60, 80)[0][3] == noise(3)).all()
    assert scene.crs == open_scene(str(tmp_path / "B0.tif")).crs
    assert scene.transform == UTM
    (source,) = expand_sources([item], ["B03", "B00"])
    assert (read_all(source) == np.stack([noise(3), noise(0)])).all()


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
    assert (read_all(source) == noise(5)).all()


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
    assert read_all(source).shape == (3, 60, 80)


def test_an_item_is_read_with_what_lies_beside_it(tmp_path: Path) -> None:
    """Whatever address it was published at."""
    links = [{"rel": "self", "href": "https://example.com/catalogue/item.json"}]
    item = Path(write_item(tmp_path / "item.json", bands(tmp_path, "1.0.0")))
    item.write_text(json.dumps(json.loads(item.read_text()) | {"links": links}))
    (source,) = expand_sources([str(item)])
    assert read_all(source).shape == (3, 60, 80)


@pytest.mark.parametrize("name", ["../../evil", "/abs/olute", "..", "a\\b", "plain.v2"])
def test_the_id_of_an_item_leads_nowhere(tmp_path: Path, name: str) -> None:
    scene = open_scene(Source("item.json", write_scene(tmp_path / "t.tif", noise()), name))
    made = extra_outputs(DetectConfig((), tmp_path / "o.gpkg", mask=tmp_path / "m"), [scene])
    (mask,) = made["mask"]
    assert mask is not None
    assert mask.resolve().parent == (tmp_path / "m").resolve()
