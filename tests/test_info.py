"""``lsmap info`` on every kind of thing, and on things that are none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from click.testing import CliRunner
from rasterio.transform import from_origin
from safetensors.numpy import save_file

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.cli import main
from landslide_mapper.config import ModelConfig, TrainConfig, to_dict
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.info import describe
from landslide_mapper.inspection import scenes
from landslide_mapper.training.history import write_log


def write_raster(path: Path, array: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of (B, H, W)."""
    settings = {
        "driver": "GTiff",
        "count": array.shape[0],
        "height": array.shape[1],
        "width": array.shape[2],
        "dtype": array.dtype,
        "crs": "EPSG:32648",
        "transform": from_origin(300000, 3500000, 2.0, 2.0),
    }
    with rasterio.open(path, "w", **(settings | profile)) as raster:
        raster.write(array)
    return path


def write_model(path: Path, **changes: object) -> Path:
    """A model file with a true header and no weights."""
    values: dict[str, object] = {
        "name": "made-up",
        "model": ModelConfig(backbone="resnet18"),
        "bands": (1, 2, 3),
        "radiometry": "equalize",
        "tile_size": 512,
        "gsd": 0.5,
        "threshold": 0.4,
        "metrics": {"landslide_iou": 0.5},
        "data": "nothing",
    }
    header = ModelInfo(**(values | changes)).to_metadata()  # type: ignore[arg-type]
    save_file({"nothing": np.zeros(1, np.float16)}, path, metadata=header)
    return path


def test_bundled_scene(bundled_scene: Path, bundled_model: Path) -> None:
    found = describe(str(bundled_scene)).to_dict()
    assert found["kind"] == "scene"
    assert found["size"] == [1024, 1024]
    assert found["bands"] == 3
    assert found["dtype"] == ["uint8"]
    assert found["crs"] == "EPSG:32648"
    assert found["gsd_m"] == pytest.approx([0.5, 0.5], rel=2e-3)
    assert found["valid_share"] == 1.0
    west, south, east, north = found["lonlat"]
    assert 102 < west < east < 104
    assert 31 < south < north < 32
    assert found["bundled_model"] is True


def test_text_is_aligned_and_names_the_units(bundled_scene: Path) -> None:
    lines = describe(str(bundled_scene)).to_text().splitlines()
    assert lines[0] == f"scene: {bundled_scene}"
    rows = [line for line in lines[1:] if not line.startswith("   ")]
    starts = {len(row) - len(row[2:].split("  ", 1)[1].lstrip()) for row in rows}
    assert len(starts) == 1
    assert any("1024 x 1024 pixels" in row for row in rows)
    assert any(" m at the centre" in row for row in rows)


def test_json_of_the_command(bundled_scene: Path) -> None:
    result = CliRunner().invoke(main, ["info", "--json", str(bundled_scene)])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == describe(str(bundled_scene)).to_dict()


def test_a_compression_that_rasterio_has_no_name_for(tmp_path: Path, bundled_scene: Path) -> None:
    path = tmp_path / "scene.mrf"  # of PNG tiles
    rasterio.shutil.copy(bundled_scene, path, driver="MRF")
    assert ("format", "MRF, compression png") in [
        (fact.label, fact.text) for fact in describe(str(path)).facts
    ]


def test_valid_share_counts_nodata(tmp_path: Path) -> None:
    image = np.full((3, 100, 200), 7, np.uint8)
    image[:, :, :50] = 0
    found = describe(str(write_raster(tmp_path / "a.tif", image, nodata=0))).to_dict()
    assert found["valid_share"] == 0.25 * 3
    assert found["nodata"] == 0


def test_nodata_of_the_last_band_alone_is_told(tmp_path: Path) -> None:
    image = np.full((1, 10, 20), 7, np.uint8)
    image[:, :, :5] = 0
    files = [
        str(write_raster(tmp_path / f"{nodata}.tif", image, nodata=nodata)) for nodata in (None, 0)
    ]
    (tmp_path / "both.vrt").write_text(stack(files), "utf-8")
    found = describe(str(tmp_path / "both.vrt")).to_dict()
    assert found["valid_share"] == 0.75
    assert found["nodata"] == 0


@pytest.mark.parametrize(
    ("nodata", "known", "said"),
    [(None, "alpha", "nodata      alpha band"), (0, 0, "nodata      value 0 and alpha band")],
)
def test_alpha_and_nodata_are_both_told(
    tmp_path: Path, nodata: int | None, known: object, said: str
) -> None:
    image = np.full((4, 10, 20), 7, np.uint8)
    image[:3, :, :5] = 0
    image[3, :5] = 0
    path = write_raster(tmp_path / "a.tif", image, photometric="RGB", alpha="yes", nodata=nodata)
    report = describe(str(path))
    assert report.to_dict()["nodata"] == known
    assert said in report.to_text()
    assert report.to_dict()["valid_share"] == (0.5 if nodata is None else 0.375)
    command = [sys.executable, "-m", "landslide_mapper", "info", str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


def test_valid_share_of_a_huge_raster_comes_from_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((1, 600, 600), 7, np.uint8)
    image[:, :300] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0)
    monkeypatch.setattr(scenes, "READ_WHOLE_PX", 1000)
    monkeypatch.setattr(scenes, "PROBE_SIDE", 32)
    report = describe(str(path))
    assert report.to_dict()["valid_share"] == pytest.approx(0.5, abs=0.01)
    assert "from 64 windows of 32 x 32" in report.to_text()


def test_raster_without_crs_says_so(tmp_path: Path) -> None:
    image = np.ones((3, 8, 8), np.uint8)
    report = describe(str(write_raster(tmp_path / "a.tif", image, crs=None)))
    found = report.to_dict()
    assert found["crs"] is None
    assert found["gsd_m"] is None
    assert found["lonlat"] is None
    assert "none: polygons of it would have no place" in report.to_text()


def test_a_mask_with_a_colour_table_is_described_though_no_scene(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "mask.tif", np.ones((1, 8, 8), np.uint8), nodata=255)
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {0: (0, 0, 0, 0), 1: (255, 0, 0, 255)})
    report = describe(str(path))
    assert report.to_dict()["usable"] is False
    assert report.next_command is None
    assert report.to_dict()["nodata"] == 255
    assert "cannot be used: band 1 holds palette numbers" in report.to_text()


def test_a_table_without_geometry(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("name,area\none,1\n")
    report = describe(str(path))
    assert report.to_dict()["layers"][0]["geometry"] is None
    assert "table: table without geometry" in report.to_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bands": (1, 2, 4)}, "has 3 bands; the model made-up was trained on bands 1,2,4"),
        (
            {"radiometry": "none"},
            "pixels are uint16; the model made-up was trained without a stretch",
        ),
        ({"gsd": 0.2}, "10 times those of the training: do not trust"),
        ({"gsd": 0.5}, "4 times those of the training: detect reads it at 0.5 m"),
        ({"gsd": 2.0}, "can serve it"),
        (
            {"bands": (1, 2, 3, 4), "model": ModelConfig(backbone="resnet18", band_count=4)},
            "was trained on bands 1,2,3,4",
        ),
    ],
)
def test_whether_the_bundled_model_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], said: str
) -> None:
    model = write_model(tmp_path / "m.safetensors", **changes)
    monkeypatch.setattr(scenes, "bundled_model", lambda: model)
    scene = write_raster(tmp_path / "a.tif", np.ones((3, 8, 8), np.uint16))
    report = describe(str(scene))
    assert said in report.to_text()
    assert report.to_dict()["bundled_model"] is ("cannot" not in report.to_text())


def test_bundled_labels(bundled_labels: Path) -> None:
    (layer,) = describe(str(bundled_labels)).to_dict()["layers"]
    assert layer["layer"] == "landslides"
    assert layer["features"] == 3
    assert layer["crs"] == "EPSG:4326"
    # The sum of the areas in the scene's own UTM pixels, scale factor of the zone within 0.1 %.
    assert layer["area_m2"] == pytest.approx(72357.25, rel=1e-3)


def test_labels_with_odd_features(tmp_path: Path) -> None:
    def feature(geometry: dict[str, object] | None) -> dict[str, object]:
        return {"type": "Feature", "properties": {}, "geometry": geometry}

    bow = [[[0, 0], [0.01, 0.01], [0.01, 0], [0, 0.01], [0, 0]]]
    path = tmp_path / "odd.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    feature({"type": "Polygon", "coordinates": bow}),
                    feature({"type": "Point", "coordinates": [0, 0]}),
                    feature(None),
                ],
            }
        )
    )
    (layer,) = describe(str(path)).to_dict()["layers"]
    assert layer["features"] == 3
    assert layer["repaired"] == 1
    assert layer["not_polygon"] == 1
    assert layer["null_or_empty"] == 1
    # A bow tie of two triangles on the equator: half of a square of 0.01°.
    assert layer["area_m2"] == pytest.approx(0.5 * 1113.2 * 1105.7, rel=1e-3)


def test_coordinates_that_are_no_degrees_have_no_area(tmp_path: Path) -> None:
    """What GeoJSON without a CRS is said to have."""
    path = tmp_path / "metres.geojson"
    ring = [[3e5, 3.5e6], [3e5 + 9, 3.5e6], [3e5, 3.5e6 + 9], [3e5, 3.5e6]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (fact,) = describe(str(path)).facts
    assert fact.value[0]["area_m2"] is None
    assert "no longitudes and latitudes" in fact.text


def test_model(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.safetensors")
    path.with_suffix(".md").write_text("a card")
    report = describe(str(path))
    found = report.to_dict()
    assert found["kind"] == "model"
    assert found["threshold"] == 0.4
    assert found["metrics"] == {"landslide_iou": 0.5}
    assert found["card"] == str(path.with_suffix(".md"))
    assert "landslide_iou 0.5000" in report.to_text()
    assert found["unseen"] == "mirror"
    assert "shown as mirrored ground" in report.to_text()


def test_bundled_model(bundled_model: Path) -> None:
    found = describe(str(bundled_model)).to_dict()
    assert describe("bundled").to_dict() == found
    assert found["card"], "the bundled model has a card beside it"
    assert found["bytes"] <= 35e6
    assert 0 < found["threshold"] < 1
    assert found["metrics"]
    assert datetime.fromisoformat(found["created"])


def test_run(tmp_path: Path) -> None:
    config = TrainConfig(epochs=7, model=ModelConfig(backbone="resnet34"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert describe(str(tmp_path)).to_dict()["log"] is None

    rows = [{"epoch": n + 1, "landslide_iou": iou} for n, iou in enumerate((0.1, 0.6, 0.4))]
    write_log(rows, tmp_path / "log.csv")
    write_model(tmp_path / "best.safetensors")
    report = describe(str(tmp_path))
    found = report.to_dict()
    assert found["kind"] == "run"
    assert found["epochs"] == 7
    assert found["backbone"] == "resnet34"
    assert found["log"]["epochs"] == 3
    assert found["log"]["best"] == {"epoch": 2, "landslide_iou": 0.6}
    assert found["name"] == "made-up"
    assert "0.6000 in epoch 2" in report.to_text()


def test_nothing_is_to_be_mapped_without_a_valid_pixel(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "empty.tif", np.zeros((3, 32, 32), np.uint8), nodata=0)
    report = describe(str(path))
    assert report.to_dict()["bundled_model"] is False
    assert "no valid pixel" in report.to_text()


def test_a_folder_of_scenes_is_summed_up(tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    colour = np.ones((3, 20, 30), np.uint8)
    write_raster(sheets / "a.tif", colour)
    write_raster(sheets / "b.tif", colour, transform=from_origin(300060, 3500000, 1.0, 1.0))
    write_raster(sheets / "c.tif", colour.astype(np.uint16), crs="EPSG:32647")
    write_raster(sheets / "grey.tif", colour[:1])
    write_raster(sheets / "palette.tif", colour[:1])
    with rasterio.open(sheets / "palette.tif", "r+") as raster:
        raster.write_colormap(1, {1: (255, 0, 0, 255)})
    (sheets / "readme.txt").write_text("not a raster")

    report = describe(str(sheets))
    found = report.to_dict()
    assert found["kind"] == "scenes"
    assert found["scenes"] == 5
    assert found["pixels"] == 4 * 600
    assert found["crs"] == {"EPSG:32648": 3, "EPSG:32647": 1}
    assert found["bands"] == {"3 uint8": 2, "3 uint16": 1, "1 uint8": 1}
    assert found["gsd_m"] == pytest.approx([1, 2], rel=2e-3)
    west, south, east, north = found["lonlat"]
    assert 96 < west < 102 < east < 104
    assert 31 < south < north < 32
    assert [entry["path"] for entry in found["unusable"]] == [str(sheets / "palette.tif")]
    assert [entry["path"] for entry in found["bundled_model_refuses"]] == [str(sheets / "grey.tif")]
    assert report.next_command is None  # detect would refuse the folder
    text = report.to_text()
    assert "4 of 5 can be used; not:" in text
    assert "palette numbers" in text
    assert describe(str(sheets / "[ab].tif")).to_dict()["bands"] == {"3 uint8": 2}


@pytest.mark.parametrize(
    ("lefts", "west", "east"),
    [
        ((179.0, -179.9), 179.0, -179.4),  # beside each other, on either side of the antimeridian
        ((179.8, 179.0), 179.0, -179.7),  # one of them reaches over it
        ((-1.0, 10.0), -1.0, 10.5),
        ((-120.0, 120.0), 120.0, -119.5),  # the shorter way
    ],
)
def test_a_folder_across_the_antimeridian(
    tmp_path: Path, lefts: tuple[float, float], west: float, east: float
) -> None:
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    for number, left in enumerate(lefts):
        place = from_origin(left, -17, 0.05, 0.05)
        path = sheets / f"{number}.tif"
        write_raster(path, np.ones((3, 8, 10), np.uint8), crs="EPSG:4326", transform=place)
    found = describe(str(sheets)).to_dict()["lonlat"]
    assert found == pytest.approx([west, -17.4, east, -17])


def test_a_pattern_of_one_and_a_folder_of_one_are_a_scene(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((3, 8, 8), np.uint8))
    alone = describe(str(path)).to_dict() | {"path": ""}
    for name in (tmp_path, tmp_path / "*.tif"):
        assert describe(str(name)).to_dict() | {"path": ""} == alone


def test_a_stac_item_is_its_scene_and_polygons_in_json_are_labels(
    tmp_path: Path, bundled_labels: Path
) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 8, 8), np.uint8))
    asset = {"href": "./a.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "one",
        "geometry": None,
        "properties": {"datetime": "2024-01-01T00:00:00Z"},
        "links": [],
        "assets": {"image": asset, "same": asset},
    }
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    report = describe(str(path), ["image"])
    assert report.next_command == f"lsmap detect {path} --asset image -o slides.gpkg"
    found = report.to_dict()
    assert (found["kind"], found["size"]) == ("scene", [8, 8])
    with pytest.raises(LsmapError, match="say it with --asset"):
        describe(str(path))
    labels = tmp_path / "labels.json"
    geopandas.read_file(bundled_labels).to_file(labels, driver="GeoJSON")
    assert describe(str(labels)).to_dict()["kind"] == "labels"
    with pytest.raises(LsmapError, match="not a STAC item"):
        describe(str(labels), ["image"])
    result = CliRunner().invoke(main, ["info", str(path), "--asset", "image", "--json"])
    assert json.loads(result.stdout) == found


def test_a_mosaic_of_files_that_are_gone_is_one_line(tmp_path: Path) -> None:
    part = write_raster(tmp_path / "gone.tif", np.ones((3, 64, 64), np.uint8))
    rasterio.shutil.copy(part, tmp_path / "v.vrt", driver="VRT")
    part.unlink()
    with pytest.raises(
        LsmapError, match=r"v\.vrt: .*gone\.tif: No such file.*put that back"
    ) as said:
        describe(str(tmp_path / "v.vrt"))
    assert said.value.exit_code == 2


def test_what_is_nothing_of_ours(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no raster")
    cut = write_raster(tmp_path / "cut.tif", np.ones((3, 64, 64), np.uint8))
    cut.write_bytes(cut.read_bytes()[:50])
    folder = tmp_path / "empty"
    folder.mkdir()
    for path, said in (
        (tmp_path / "absent.tif", "there is no such file"),
        (f"{text}|layername=notes", rf"what QGIS adds .* give {re.escape(str(text))}$"),
        (text, "neither a raster nor a vector layer"),
        (cut, "TIFFReadDirectory"),  # what GDAL says of it
        (folder, "this folder is no dataset"),
    ):
        with pytest.raises(LsmapError, match=said) as caught:
            describe(str(path))
        assert "\n" not in str(caught.value)


def test_a_damaged_model_is_told_from_a_raster(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"not a model")
    with pytest.raises(LsmapError, match="not a safetensors file"):
        describe(str(path))


@pytest.mark.parametrize(
    ("scene", "valid", "lonlat"),
    [
        ("mars/mars_vm_rgb.tif", 0.204, False),
        ("everest/LE71400412000304SGS00_RGB.tif", 1.0, True),
        ("chattogram/chattogram_s2_rgbn.tif", 0.39, True),
    ],
)
def test_real_scenes(shared_data: Path, scene: str, valid: float, lonlat: bool) -> None:
    found = describe(str(shared_data / "scenes" / scene)).to_dict()
    assert found["valid_share"] == pytest.approx(valid, abs=0.01)
    assert (found["lonlat"] is not None) is lonlat


def test_real_label_layers(shared_data: Path) -> None:
    folder = shared_data / "polygons" / "thaw_slumps"
    layers = {
        path.parent.name: describe(str(path)).to_dict()["layers"][0]
        for pattern in ("*/*.shp", "*/*.gpkg")
        for path in folder.glob(pattern)
    }
    assert layers["geocentric"]["area_m2"] is None
    assert layers["no-crs"]["crs"] is None
    assert layers["empty (no features)"]["features"] == 0
    assert layers["self-intersecting"]["repaired"] == 1
    # The layer is in a conformal projection, which stretches areas; Albers' does not.
    slumps = geopandas.read_file(next(folder.glob("polygon-z*/*.shp"))).to_crs("ESRI:102008")
    area = slumps.make_valid().area.sum()
    assert layers["polygon-z (Segal2015)"]["area_m2"] == pytest.approx(area, rel=1e-3)


def test_what_lsmap_made_itself_is_known(tmp_path: Path, bundled_scene: Path) -> None:
    layer = tmp_path / "slides.gpkg"
    fields = {"id": [1], "confidence": [0.5], "review": ["yes"]}
    square = [shapely.box(0, 0, 1, 1)]
    geopandas.GeoDataFrame(fields, geometry=square, crs=4326).to_file(layer)
    command = describe(str(layer)).next_command
    assert command is not None
    assert "--where \"review = 'yes'\"" in command
    assert "review IS NULL" in command
    for verdict in ("no", None):  # nothing of it is a landslide yet
        fields["review"] = [verdict]
        geopandas.GeoDataFrame(fields, geometry=square, crs=4326).to_file(layer)
        report = describe(str(layer))
        assert report.next_command is None
        assert f"review    {'1 no, 0' if verdict else '1'} not looked at" in report.to_text()
    for fields in (
        {"tile_id": ["a"], "split": ["train"], "landslide_fraction": [0.1]},
        {"role": ["mapped"], "verdict": ["match"], "partner": [1]},
    ):
        geopandas.GeoDataFrame(fields, geometry=square, crs=4326).to_file(layer)
        assert describe(str(layer)).next_command is None
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326)
    points.to_file(tmp_path / "points.gpkg")
    assert describe(str(tmp_path / "points.gpkg")).next_command is None


def test_verdicts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "slides.gpkg"
    squares = [shapely.box(9 * n, 0, 9 * n + 5, 5) for n in range(4)]
    fields = {"id": range(4), "confidence": [0.5] * 4, "review": ["yes", "no", "yes", None]}
    geopandas.GeoDataFrame(fields, geometry=squares, crs="EPSG:32648").to_file(path)
    report = describe(str(path))
    assert "review    2 yes, 1 no, 1 not looked at" in report.to_text()
    assert report.to_dict()["layers"][0]["review"] == {"yes": 2, "no": 1}
