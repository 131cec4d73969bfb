"""The tiles of training and validation, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median_low
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from landslide_mapper.config import TrainConfig
from landslide_mapper.data.augment import Augmentation, QuartersOfTiles
from landslide_mapper.data.batches import PairBatches
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import MOVE_THEM, Dataset, load_dataset
from landslide_mapper.data.together import check_splits
from landslide_mapper.errors import LsmapError, LsmapFailure, warn
from landslide_mapper.geo.views import QUARTERS
from landslide_mapper.nn.encoder import STRIDE
from landslide_mapper.serving import near_training
from landslide_mapper.training.parallel import Process

Batches = DataLoader[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Validation:
    """The validation tiles that one process shows, and how much of the ground each stands for.

    Attributes:
        loader: batches of images and labels.
        stands_for: for each batch, `Tile.stands_for` of each of its tiles.
        weights: what there is of these in all processes.
    """

    loader: Batches
    stands_for: Sequence[Sequence[float]]
    weights: Sequence[float]


def load_datasets(config: TrainConfig) -> list[Dataset]:
    """Open the datasets and see that they can be trained on together.

    Raises:
        LsmapError: they differ in tile size, bands or radiometry, have the same ground in
            different splits, or do not fit the network.
    """
    datasets = [load_dataset(path) for path in config.datasets]
    first = datasets[0]
    for name in ("tile_size", "bands", "radiometry_rule"):
        for other in datasets[1:]:
            if getattr(other, name) != getattr(first, name):
                raise LsmapError(
                    f"{other.root} has {name} {getattr(other, name)}, {first.root} has "
                    f"{getattr(first, name)}: prepare both with the same settings"
                )
    check_splits(datasets)
    multiple = max(config.model.block_size, STRIDE)
    if first.tile_size % multiple:
        raise LsmapError(
            f"{first.root} has tiles of {first.tile_size} pixels, the network needs a multiple of "
            f"{multiple}: prepare with --tile-size 512"
        )
    return datasets


def warn_of_tiles(config: TrainConfig, datasets: Sequence[Dataset]) -> None:
    """Say what may spoil a run of the tiles, as they are or as it will show them."""
    sizes = [dataset.gsd for dataset in datasets if dataset.gsd is not None]
    if sizes and not near_training(max(sizes) / min(sizes)):
        warn(
            f"pixels are {min(sizes):.2g} to {max(sizes):.2g} m in these data sets; the model will "
            f"be one for {common_gsd(datasets):.2g} m, and detect reads other scenes at that size "
            "(unless --gsd native)"
        )
    for dataset in datasets:
        undrawn, shown = dataset.undrawn("val"), dataset.split("val")
        if undrawn and shown and all(tile.landslide_px for tile in shown) and not config.final:
            warn(
                f"{dataset.root}: none of the {undrawn} windows without landslide is among its val "
                "tiles, so the threshold knows nothing of false alarms there; prepare with more "
                "--negatives"
            )
        if dataset.centred() and not config.shift:
            warn(
                f"{dataset.middle_in_words()}, so a network learns to look there only, and its "
                f"validation flatters it: train with {MOVE_THEM}"
            )
    if config.shift and config.model.unseen == "mean":
        warn(
            "--shift leaves a frame, which --unseen mean shows to the network: it tells where the "
            "middle of a tile has gone; train with --unseen mirror"
        )


def common_gsd(datasets: Sequence[Dataset]) -> float | None:
    """Pixel size in metres of the middle one of all training tiles; None where it is not known."""
    sizes = [
        dataset.gsd
        for dataset in datasets
        for _ in dataset.split("train")
        if dataset.gsd is not None
    ]
    return median_low(sizes) if sizes else None


def make_loaders(
    config: TrainConfig, datasets: list[Dataset], process: Process
) -> tuple[PairBatches, Batches, Validation]:
    """Sampler and loader of the training tiles, and what validation is shown.

    Where training moves its tiles, validation shows their quarters, off the middle as well: else
    an epoch would be chosen, and its probabilities calibrated, for what no scene shows.

    Raises:
        LsmapError: too few tiles, or no validation tile with landslide.
    """
    training = [tile for dataset in datasets for tile in dataset.split("train")]
    validation = [tile for dataset in datasets for tile in dataset.split("val")]
    if config.final:
        training, validation = training + validation, []
    elif not any(tile.landslide_px for tile in validation):
        raise LsmapError(
            "the validation split has no tile with landslide, so the best epoch cannot be told: "
            "prepare more scenes, smaller tiles, or another --seed"
        )
    workers = min(config.workers, os.cpu_count() or 1)
    options: dict[str, Any] = {
        "num_workers": workers,
        # Else the seeds of the workers are taken from the numbers that dropout gets.
        "generator": torch.Generator(),
        "persistent_workers": workers > 0,
        "pin_memory": process.device.type == "cuda",
    }
    batches = PairBatches(
        [tile.landslide_px > 0 for tile in training],
        config.batch_size,
        config.seed,
        process.rank,
        process.world,
    )
    moved = QuartersOfTiles() if config.shift else None
    shown = list(product(range(len(QUARTERS) if moved else 1), range(len(validation))))
    mine = shown[process.rank :: process.world]
    in_order = [
        mine[start : start + config.batch_size] for start in range(0, len(mine), config.batch_size)
    ]
    unseen = config.model.unseen
    augmentation = Augmentation(
        config.seed, config.zoom, config.jitter, unseen == "mirror", config.shift
    )
    augmented = TileDataset(training, augmentation, unseen)
    measured = TileDataset(validation, moved, unseen)
    return (
        batches,
        DataLoader(augmented, batch_sampler=batches, **options),
        Validation(
            DataLoader(measured, batch_sampler=in_order, **options),
            [[validation[position].stands_for for _, position in batch] for batch in in_order],
            sorted({tile.stands_for for tile in validation}),
        ),
    )


def progress(loader: Batches, title: str, process: Process) -> tqdm[tuple[Tensor, Tensor]]:
    """The batches of a loader, with a bar on a terminal."""
    return tqdm(_read(loader), title, len(loader), unit="batch", disable=process.quiet, leave=False)


def _read(loader: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        yield from loader
    except LsmapFailure as error:  # a process that reads sends a traceback in the place of a line
        line = str(error).strip().rpartition("LsmapFailure: ")[2]
        raise LsmapFailure(line) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise LsmapFailure(
            "a process that reads tiles has died, most likely for want of (shared) memory: give "
            "fewer --workers; --workers 0 needs no shared memory"
        ) from error


def to_device(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Move a batch without waiting for it, images in the layout that convolutions like."""
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, labels.to(device, non_blocking=True)
