"""The three commands one after the other on small real scenes, as a plain clone has them."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from running import run as lsmap

from landslide_mapper.checkpoint import read_info


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder for the whole module."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def dataset(work: Path, train_scenes: list[Path], train_labels: Path) -> Path:
    """Tiles of the two scenes."""
    folder = work / "dataset"
    said = lsmap("prepare", *train_scenes, train_labels, "-o", folder, "--tile-size", 128)
    assert "lsmap train" in said
    return folder


@pytest.fixture(scope="module")
def run(work: Path, dataset: Path) -> Path:
    """A run of one epoch with the smallest network, from random weights."""
    folder = work / "run"
    small = ("--backbone", "resnet18", "--last-layer", 3, "--aspp-channels", 16)
    said = lsmap(
        "train", dataset, "-o", folder, *small, "--weights", "none",
        "--epochs", 1, "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    assert "lsmap detect" in said
    return folder


def test_dataset_shares_no_ground_between_splits(dataset: Path) -> None:
    tiles = geopandas.read_file(dataset / "tiles.gpkg")
    assert set(tiles["split"]) == {"train", "val", "test"}
    splits = tiles.dissolve("split").geometry
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert splits[one].intersection(splits[other]).area < 1e-6


def test_tiles_hold_the_landslides_of_the_labels(dataset: Path, train_labels: Path) -> None:
    # Every window with landslide is kept, so the masks hold the polygons' whole area.
    pixels = 0
    for path in (dataset / "masks").glob("*.tif"):
        with rasterio.open(path) as mask:
            pixels += int(np.count_nonzero(mask.read(1) == 1))
    area = geopandas.read_file(train_labels).to_crs("EPSG:32648").area.sum()
    assert pixels * 0.25 == pytest.approx(area, rel=5e-3)


def test_info_of_dataset_and_run(dataset: Path, run: Path) -> None:
    found = json.loads(lsmap("info", dataset, "--json"))
    assert found["kind"] == "dataset"
    assert found["tile_size"] == 128
    assert found["tiles"] == sum(split["tiles"] for split in found["splits"].values())
    assert "sichuan_006" in "".join(found["sources"])
    assert "landslide pixels" in lsmap("info", dataset)

    found = json.loads(lsmap("info", run, "--json"))
    assert found["kind"] == "run"
    assert found["log"]["epochs"] == 1
    assert found["tile_size"] == 128


def test_detect_with_the_new_model(run: Path, work: Path, bundled_scene: Path) -> None:
    slides, mask = work / "slides.gpkg", work / "mask.tif"
    lsmap(
        "detect", bundled_scene, "--model", run, "-o", slides, "--mask", mask,
        "--threshold", 0.05, "--device", "cpu",
    )  # fmt: skip
    with rasterio.open(mask) as raster:
        assert raster.shape == (1024, 1024)
        found = raster.read(1)
    assert set(np.unique(found)) <= {0, 1}
    polygons = geopandas.read_file(slides, layer="landslides")
    assert polygons.crs == "EPSG:32648"
    # The ellipsoid's areas, where the grid has pixels of 0.25 m².
    mapped = np.count_nonzero(found) * 0.25
    assert mapped > 0
    assert polygons.area_m2.sum() == pytest.approx(mapped, rel=5e-3)


def test_bundled_model_finds_the_landslides_of_the_bundled_scene(
    bundled_model: Path, bundled_scene: Path, bundled_labels: Path, work: Path
) -> None:
    slides, overlay = work / "demo.gpkg", work / "overlay.png"
    command = ("detect", bundled_scene, "--model", bundled_model, "-o", slides)
    said = lsmap(*command, "--overlay", overlay)
    iou = read_info(bundled_model).metrics["landslide_iou_at_threshold"]
    assert f"landslide IoU {iou:.2f} on validation" in said
    found = geopandas.read_file(slides, layer="landslides")
    truth = geopandas.read_file(bundled_labels).to_crs(found.crs)
    one, other = found.union_all(), truth.union_all()
    # Calling all ground landslide gives 0.276 here, and the best threshold on the mean of the
    # three bands, chosen on this very scene, gives 0.535.
    assert one.intersection(other).area / one.union(other).area > 0.535
    assert overlay.read_bytes().startswith(b"\x89PNG")
