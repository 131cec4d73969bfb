"""What a collar of nodata does to the map beside it, against the map without the collar.

A turned square is cut out of scenes that have no nodata, so what the network says of the same
pixels with the ground around them is known. Compared are two ways to show it the collar: the mean
colour, and mirrored ground (`landslide_mapper.nn.mirror`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import print_table
from overlap import blended, common, held_out_scenes, stretched

from landslide_mapper.checkpoint import find_model, load_model
from landslide_mapper.config import UNSEEN
from landslide_mapper.geo.grid import default_overlap
from landslide_mapper.nn.folding import fold
from landslide_mapper.predictors import CpuPredictor, ModelPredictor

TURNS = (10, 25, 40)  # degrees
HALF = 0.36  # half the side of the square, of the scene's
NEAR = 64  # pixels


@dataclass
class Beside:
    """Sums over the pixels at some distance from a collar."""

    shared: np.ndarray  # pixels that both maps call landslide, and that one does
    kept: int = 0  # landslide on the map without the collar
    error: float = 0.0  # of the probability
    pixels: int = 0


def depth(shape: tuple[int, int], degrees: float) -> np.ndarray:
    """How far inside of the turned square every pixel lies, negative outside."""
    down, across = (np.arange(side) - (side - 1) / 2 for side in shape)
    turn = np.deg2rad(degrees)
    one = down[:, None] * np.cos(turn) + across * np.sin(turn)
    two = across * np.cos(turn) - down[:, None] * np.sin(turn)
    inside: np.ndarray = HALF * min(shape) - np.maximum(np.abs(one), np.abs(two))
    return inside


def predictors(path: Path) -> dict[str, ModelPredictor]:
    """The model with each way to show it what was not seen."""
    found: dict[str, ModelPredictor] = {}
    for unseen in UNSEEN:
        network = fold(load_model(path)[0])
        network.config = replace(network.config, unseen=unseen)
        found[unseen] = CpuPredictor(network)
    return found


def measure(
    model: Path, scenes: Sequence[Path], turns: Sequence[float]
) -> dict[tuple[str, str], Beside]:
    """By way and distance (near, far): both maps beside the collars of all scenes and turns."""
    info = load_model(model)[1]
    overlap = default_overlap(info.tile_size)
    ways = predictors(model)
    found = {(way, zone): Beside(np.zeros(2)) for way in ways for zone in ("near", "far")}
    for path in scenes:
        image = stretched(path, info.radiometry)
        whole, _ = blended(image, next(iter(ways.values())), info.tile_size, overlap)
        for degrees in turns:
            inside = depth(image.shape[1:], degrees)
            for way, predict in ways.items():
                answer, _ = blended(image * (inside > 0), predict, info.tile_size, overlap)
                for zone, there in (
                    ("near", (inside > 0) & (inside <= NEAR)),
                    ("far", inside > NEAR),
                ):
                    sums = found[way, zone]
                    one, two = whole[there], answer[there]
                    sums.shared += common(one, two, info.threshold)
                    sums.kept += np.count_nonzero(one >= info.threshold)
                    sums.error += float(np.abs(one - two).sum())
                    sums.pixels += one.size
    return found


def run(scenes: Sequence[Path] = (), model: str = "bundled") -> None:
    """Print the table."""
    scenes = scenes or held_out_scenes()
    found = measure(find_model(model)[0], scenes, TURNS)
    where = {"near": f"to {NEAR} px", "far": "beyond"}
    print_table(
        f"beside a collar against the map without it: {len(scenes)} scenes, {len(TURNS)} turns",
        ("network gets", "distance", "maps share", "landslide kept", "mean error"),
        [
            (
                way,
                where[zone],
                f"{sums.shared[0] / sums.shared[1]:.3f}",
                f"{sums.shared[0] / sums.kept:.3f}",
                f"{sums.error / sums.pixels:.4f}",
            )
            for (way, zone), sums in found.items()
        ],
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", type=Path, help="without nodata")
    parser.add_argument("--model", default="bundled")
    options = parser.parse_args()
    run(options.scenes, options.model)


if __name__ == "__main__":
    main()
