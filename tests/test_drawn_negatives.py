"""Of the windows without landslide a few are drawn, and each of them stands for those left out."""

from __future__ import annotations

from dataclasses import replace
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
from landslide_mapper.training.validation import validate, validation_figures

SIDE, TILE = 640, 64
BRIGHT, DIM, ALIKE = 160, 140, 150  # halves of a landslide, and what only looks like one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of 100 windows: two share a landslide, 40 show nothing, 60 a bright field."""
    folder = tmp_path_factory.mktemp("drawn")
    shapes, rows = [], ["scene,split"]
    for number, split in enumerate(SPLITS):
        band = np.full((SIDE, SIDE), 40, np.uint8)
        field = np.arange(SIDE) % TILE < 10
        band[np.ix_(field, field)] = ALIKE
        band[84:124, 84:124], band[84:124, 124:164] = BRIGHT, DIM
        band[:, 6 * TILE :] = 0  # not seen
        transform = UTM.translation(UTM.c, UTM.f - 1000 * number) * UTM.scale(UTM.a, UTM.e)
        write_scene(folder / f"{split}.tif", band, transform=transform, nodata=0)
        (left, top), (right, bottom) = transform * (84, 84), transform * (164, 124)
        shapes.append(shapely.box(left, bottom, right, top))
        rows.append(f"{split},{split}")
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32648").to_file(folder / "labels.gpkg")
    (folder / "split.csv").write_text("\n".join(rows), "utf-8")
    return folder


def prepared(folder: Path, negatives: str, *more: object) -> Dataset:
    target = folder / " ".join(["with", negatives, *[Path(str(word)).stem for word in more]])
    if not target.exists():
        scenes = [folder / f"{split}.tif" for split in SPLITS]
        options = ["--tile-size", TILE, "--stretch", "none", "--workers", 1]
        options += ["--negatives", negatives, "--split-file", folder / "split.csv"]
        run("prepare", *scenes, folder / "labels.gpkg", "-o", target, *options, *more)
    return load_dataset(target)


def ground(dataset: Dataset, split: str) -> float:
    return sum(tile.stands_for for tile in dataset.split(split))


@pytest.mark.parametrize("negatives", ["0.5", "2", "12"])
def test_the_tiles_stand_for_the_whole_ground(folder: Path, negatives: str) -> None:
    drawn, every = prepared(folder, negatives), prepared(folder, "all")
    for split in SPLITS:
        assert {tile.stands_for for tile in every.split(split)} == {1}
        assert len(drawn.split(split)) < len(every.split(split)) == 60
        assert all(tile.stands_for == 1 for tile in drawn.split(split) if tile.landslide_px)
        assert ground(drawn, split) == pytest.approx(60)


def test_of_many_that_are_not_drawn_some_tell_how_many_show_ground(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landslide_mapper.prepare.LOOK_AT", 25)
    drawn = prepared(folder, "1")
    assert {ground(drawn, split) for split in SPLITS} != {60}
    assert all(ground(drawn, split) == pytest.approx(60, rel=0.3) for split in SPLITS)


def test_ground_outside_the_area_of_interest_is_not_stood_for(folder: Path) -> None:
    labels = geopandas.read_file(folder / "labels.gpkg")
    labels.assign(geometry=labels.buffer(1)).to_file(folder / "aoi.gpkg")
    dataset = prepared(folder, "0", "--aoi", folder / "aoi.gpkg")
    assert [dataset.undrawn(split) for split in SPLITS] == [0, 0, 0]


def test_crops_around_landslides_are_no_share_of_the_ground(folder: Path) -> None:
    dataset = prepared(folder, "2", "--sampling", "centered")
    assert all(dataset.undrawn(split) for split in SPLITS)
    assert {tile.stands_for for tile in dataset.tiles} == {1}


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
    wanted = counted(tiles, [tile.stands_for for tile in tiles])
    np.testing.assert_allclose(sum(seen), wanted, rtol=1e-12)


def test_the_threshold_is_that_of_the_whole_ground(folder: Path) -> None:
    """With few fields that look alike it would be worth while to map them with the landslide."""
    for negatives in ("2", "all"):
        dataset = prepared(folder, negatives)
        config = TrainConfig((str(dataset.root),), workers=0)
        process = Process(0, 1, torch.device("cpu"))
        _, _, validation = make_loaders(config, load_datasets(config), process)
        figures = validation_figures(validate(Brightness(), validation, process))
        tuned = evaluate_dataset(brightness, model_info(), dataset, "test").at[1].threshold
        assert ALIKE / 255 < tuned <= BRIGHT / 255
        assert figures["landslide_iou_at_threshold"] == pytest.approx(1 / 2)
        tiles = dataset.split("val")
        of_tiles = validation_figures(torch.from_numpy(counted(tiles, [1.0] * len(tiles))))
        assert (of_tiles["landslide_iou_at_threshold"] > 0.8) == (negatives == "2")


def test_a_validation_without_negatives_is_warned_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, some = prepared(folder, "0"), prepared(folder, "2")
    nothing = replace(bare, tiles=bare.split("train"))
    for dataset, final, told in (
        (bare, None, True),
        (bare, "runs/chose", False),
        (some, None, False),
        (nothing, None, False),
    ):
        warn_of_tiles(TrainConfig((str(dataset.root),), final=final), [dataset])
        said = f"none of the {bare.undrawn('val')} windows without landslide is among its val"
        assert (said in capsys.readouterr().err) == told
