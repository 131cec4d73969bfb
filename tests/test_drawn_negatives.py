"""Of the windows without landslide a few are drawn, and each of them stands for those left out."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import torch
from fakes import UTM, brightness, model_info, write_scene
from running import run
from torch import Tensor

from landslide_mapper.config import SPLITS, TrainConfig
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import Dataset, Tile, load_dataset
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.metrics import histogram
from landslide_mapper.training.loaders import load_datasets, make_loaders, warn_of_tiles
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.validation import Seen, validate, validation_figures

SIDE, TILE = 640, 64
BRIGHT, DIM, ALIKE = 160, 140, 150  # halves of a landslide, and what only looks like one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 100 windows: two share a landslide, 25 show nothing, 75 a bright field."""
    folder = tmp_path_factory.mktemp("drawn")
    shapes, rows = [], ["scene,split"]
    for number, split in enumerate(SPLITS):
        band = np.full((SIDE, SIDE), 40, np.uint8)
        field = np.arange(SIDE) % TILE < 10
        band[np.ix_(field, field)] = ALIKE
        band[84:124, 84:124], band[84:124, 124:164] = BRIGHT, DIM
        band[: SIDE // 2, SIDE // 2 :] = 0  # not seen
        transform = UTM.translation(UTM.c, UTM.f - 1000 * number) * UTM.scale(UTM.a, UTM.e)
        write_scene(folder / f"{split}.tif", band, transform=transform, nodata=0)
        (left, top), (right, bottom) = transform * (84, 84), transform * (164, 124)
        shapes.append(shapely.box(left, bottom, right, top))
        rows.append(f"{split},{split}")
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32648").to_file(folder / "labels.gpkg")
    (folder / "split.csv").write_text("\n".join(rows), "utf-8")
    return folder


def prepared(folder: Path, negatives: str) -> Dataset:
    target = folder / f"with {negatives}"
    if not target.exists():
        scenes = [folder / f"{split}.tif" for split in SPLITS]
        options = ["--tile-size", TILE, "--stretch", "none", "--workers", 1]
        options += ["--negatives", negatives, "--split-file", folder / "split.csv"]
        run("prepare", *scenes, folder / "labels.gpkg", "-o", target, *options)
    return load_dataset(target)


def ground(dataset: Dataset, split: str) -> float:
    return sum(tile.stands_for for tile in dataset.split(split))


@pytest.mark.parametrize("negatives", ["2", "5", "12"])
def test_the_tiles_stand_for_the_whole_ground(folder: Path, negatives: str) -> None:
    """A quarter of the windows shows nothing, which is known of those only that were tried."""
    drawn, every = prepared(folder, negatives), prepared(folder, "all")
    for split in SPLITS:
        assert {tile.stands_for for tile in every.split(split)} == {1}
        assert len(drawn.split(split)) < len(every.split(split)) == 75
        assert all(tile.stands_for == 1 for tile in drawn.split(split) if tile.landslide_px)
        assert ground(drawn, split) == pytest.approx(75, rel=0.35)


def test_one_that_is_left_out_by_hand_is_stood_for(folder: Path) -> None:
    dataset = prepared(folder, "2")
    bare = [tile.stands_for for tile in dataset.split("val") if not tile.landslide_px]
    assert len(set(bare)) == 1
    assert bare[0] == 1 + dataset.undrawn("val") / len(bare)


class Brightness(torch.nn.Module):
    """Answers with the brightness of a pixel, as `fakes.brightness` does."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.logit(images[:, 0].float() / 255, 1e-6)


class Alone(Process):
    """One of several processes, whose share is not added to that of the others."""

    def total(self, values: Tensor) -> Tensor:
        return values


def counted(tiles: tuple[Tile, ...], weights: list[float]) -> np.ndarray:
    pixels = TileDataset(tiles)
    shown = [pixels[0, number] for number in range(len(tiles))]
    each = [histogram(brightness(i.numpy()[None])[0], m.numpy()) for i, m in shown]
    return np.tensordot(weights, each, 1)


@pytest.mark.parametrize("world", [1, 2])
def test_validation_counts_tiles_for_what_they_stand_for(folder: Path, world: int) -> None:
    datasets = [prepared(folder, negatives) for negatives in ("2", "5")]
    tiles = tuple(tile for dataset in datasets for tile in dataset.split("val"))
    assert len({tile.stands_for for tile in tiles}) == 3
    config = TrainConfig(tuple(str(dataset.root) for dataset in datasets), workers=0)
    seen = []
    for rank in range(world):
        process = Alone(rank, world, torch.device("cpu"))
        _, _, validation = make_loaders(config, datasets, process)
        seen.append(validate(Brightness(), validation, process))
    np.testing.assert_array_equal(
        sum(one.tiles for one in seen), counted(tiles, [1.0] * len(tiles))
    )
    wanted = counted(tiles, [tile.stands_for for tile in tiles])
    np.testing.assert_allclose(sum(one.ground for one in seen), wanted, rtol=1e-12)


def test_the_threshold_is_that_of_the_whole_ground(folder: Path) -> None:
    """With few fields that look alike it would be worth while to map them with the landslide."""
    for negatives in ("2", "all"):
        dataset = prepared(folder, negatives)
        config = TrainConfig((str(dataset.root),), workers=0)
        process = Process(0, 1, torch.device("cpu"))
        _, _, validation = make_loaders(config, load_datasets(config), process)
        seen = validate(Brightness(), validation, process)
        figures = validation_figures(seen)
        tuned = evaluate_dataset(brightness, model_info(), dataset, "test").at[1].threshold
        assert ALIKE / 255 < tuned <= BRIGHT / 255
        assert figures["landslide_iou_at_threshold"] == pytest.approx(1 / 2)
        of_tiles = validation_figures(Seen(seen.tiles, seen.tiles.double()))
        assert (of_tiles["landslide_iou_at_threshold"] > 0.8) == (negatives == "2")


def test_a_validation_without_negatives_is_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for negatives in ("0", "2"):
        dataset = prepared(folder, negatives)
        capsys.readouterr()
        warn_of_tiles(TrainConfig((str(dataset.root),)), [dataset])
        said = f"none of the {dataset.undrawn('val')} windows without landslide is among its val"
        assert (said in capsys.readouterr().err) == (negatives == "0")
