"""How much a model relies on where in its tiles landslides lie.

    python examples/bundled_model/moved.py MODEL DATASET [--split val]

Every tile is shown four times more, moved by a quarter of its side towards each corner, and the
same pixels are counted in place and moved. Images that were cut around their landslides teach a
network to look in the middle only; windows of a scene show landslides anywhere.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import click
import numpy as np

from landslide_mapper.checkpoint import find_model
from landslide_mapper.config import SPLITS
from landslide_mapper.data.augment import shift
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.mask_values import IGNORE
from landslide_mapper.metrics import confusion, rates
from landslide_mapper.predictors import load_predictor

TOWARDS = tuple(product((-1, 1), repeat=2))


def measure(
    predict: Predictor, dataset: Dataset, split: str, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Counts tp, fp, fn, tn (4,) in place and moved, of the pixels that stay in their tile."""
    tiles = dataset.split(split)
    data, step = TileDataset(tiles), dataset.tile_size // 4
    in_place, moved = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for number in range(len(tiles)):
        image, mask = (part.numpy() for part in data[0, number])
        found = predict(image[None])[0] >= threshold
        for down, across in TOWARDS:
            there, labels = shift(image, mask, down * step, across * step)
            moved += confusion(predict(there[None])[0] >= threshold, labels)
            _, stays = shift(image, labels, -down * step, -across * step)
            in_place += confusion(found, np.where(stays == IGNORE, IGNORE, mask))
    return in_place, moved


@click.command()
@click.argument("model")
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(model: str, datasets: tuple[Path, ...], split: str, device: str) -> None:
    """Print landslide IoU, precision and recall of MODEL on DATASETS, in place and moved."""
    predict, info = load_predictor(find_model(model)[0], device)
    for path in datasets:
        for name, counts in zip(
            ("in place", "moved"),
            measure(predict, load_dataset(path), split, info.threshold),
            strict=True,
        ):
            found = {key: float(value) for key, value in rates(counts).items()}
            click.echo(
                f"{path.name}, {split}, {name:8}: landslide IoU {found['landslide_iou']:.4f}, "
                f"precision {found['precision']:.4f}, recall {found['recall']:.4f}"
            )


if __name__ == "__main__":
    main()
