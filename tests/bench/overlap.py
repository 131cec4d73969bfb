"""How wide windows should overlap: the error that seams leave, against what the overlap costs.

The truth of a pixel is the answer for a window that is centred on it; the error is how far the
blended probability is from that. The pixels are drawn at random and so is where the windows
begin, as if the scene had no edges. "Two grids" is what the masks of two such draws share of their
joint area. The picture in the README is made with
``python tests/bench/overlap.py --plot examples/overlap.png``.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from common import ROOT, SCENE, print_table

from landslide_mapper.checkpoint import bundled_model
from landslide_mapper.geo.blend import Predictor, WindowGrid, WindowRow, blend
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.predictors import load_predictor

SHARES = (0, 1 / 16, 1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 1 / 2)  # of a window's side
POINTS, DRAWS = 120, 3  # per scene
SEED = 0


def held_out_scenes() -> list[Path]:
    """The bundled scene and, where the public data is at hand, all sites kept from training."""
    folder = Path(os.environ.get("LSMAP_DATA") or ROOT.parent / "shared" / "data") / "sichuan"
    if not folder.is_dir():
        return [SCENE]
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in ("val", "test")]
    return [folder / "scenes" / row["scene"] for row in rows]


def stretched(path: Path, radiometry: str) -> np.ndarray:
    """The whole scene as the network sees it, uint8 (B, H, W)."""
    scene = open_scene(str(path))
    with SceneReader(scene) as reader:
        data, valid = reader.read(0, 0, scene.height, scene.width)
    return fit(scene, radiometry).apply(data, valid)


def blended(
    image: np.ndarray, predict: Predictor, tile: int, overlap: int
) -> tuple[np.ndarray, WindowGrid]:
    """What `detect` gives for an image (B, H, W): the probability (H, W), 0 for nodata."""
    height, width = image.shape[1:]
    grid = WindowGrid(height, width, tile, overlap)
    valid = image.any(axis=0)
    rows = (
        WindowRow(index, image[:, row : row + tile], valid[row : row + tile])
        for index, row in enumerate(grid.rows)
    )
    strips = blend(rows, predict, grid.span(Frame.whole(height, width)))
    return np.concatenate([strip.values for strip in strips]), grid


def centred(image: np.ndarray, points: np.ndarray, predict: Predictor, tile: int) -> np.ndarray:
    """The probability of each of `points` (N, 2) in a window around it, (N,)."""
    half = tile // 2
    found = [
        predict(image[None, :, row - half : row + half, col - half : col + half])[0, half, half]
        for row, col in points
    ]
    return np.array(found)


def part_of_endless(size: int, origin: int, tile: int, overlap: int) -> slice:
    """From the first window, which begins at `origin`, to the end of the last that fits.

    At least `tile` away from the edges of the image, all windows around a pixel are there then
    and lie as they would in an endless image.
    """
    stride = tile - overlap
    return slice(origin, origin + tile + (size - origin - tile) // stride * stride)


def steps(probability: np.ndarray, grid: WindowGrid) -> np.ndarray:
    """Sums and numbers of the steps between neighbouring pixels, [[edge], [elsewhere]] (2, 2).

    An edge is where a window begins or ends.
    """
    found = np.zeros((2, 2))
    for field, starts in ((probability, grid.rows), (probability.T, grid.cols)):
        step = np.abs(np.diff(field, axis=0)).mean(axis=1)
        edge = np.zeros(len(field), dtype=bool)
        edge[starts[1:]] = True
        edge[[start + grid.tile for start in starts[:-1]]] = True
        for row, chosen in zip(found, (edge[1:], ~edge[1:]), strict=True):
            row += step[chosen].sum(), chosen.sum()
    return found


@dataclass(frozen=True)
class Result:
    """What one overlap costs and leaves behind."""

    overlap: int
    cost: float  # windows, relative to no overlap
    mean: float  # error of the probability
    high: float  # its 95th percentile
    other: float  # share of pixels on the other side of the threshold
    agreement: float  # IoU of the masks of grids that begin at different places
    step: float  # between neighbouring pixels at windows' edges, relative to elsewhere


def measure(
    scenes: Sequence[Path], points_per_scene: int, draws: int, shares: Sequence[float]
) -> tuple[int, list[Result]]:
    """Side of a window and results, with the bundled model on the CPU.

    Every overlap is tried with windows that begin at `draws` random places, on the same pixels.
    """
    predict, info = load_predictor(bundled_model(), "cpu")
    tile, random = info.tile_size, np.random.default_rng(SEED)
    overlaps = [round(share * tile) for share in shares]
    truth: list[np.ndarray] = []
    answers: dict[int, list[np.ndarray]] = {overlap: [] for overlap in overlaps}
    found = {overlap: np.zeros((2, 2)) for overlap in overlaps}
    shared = {overlap: np.zeros(2) for overlap in overlaps}
    for path in scenes:
        image = stretched(path, info.radiometry)
        highest = np.array(image.shape[1:]) - tile
        points = random.integers(tile, highest, (points_per_scene, 2))
        truth += [centred(image, points, predict, tile)] * draws
        maps: dict[int, list[np.ndarray]] = {overlap: [] for overlap in overlaps}
        for overlap in overlaps * draws:
            origin = random.integers(0, tile - overlap, 2)
            height, width = (
                part_of_endless(size, start, tile, overlap)
                for size, start in zip(image.shape[1:], origin, strict=True)
            )
            probability, grid = blended(image[:, height, width], predict, tile, overlap)
            rows, cols = (points - origin).T
            answers[overlap].append(probability[rows, cols])
            found[overlap] += steps(probability, grid)
            maps[overlap].append(np.full(image.shape[1:], np.nan, np.float32))
            maps[overlap][-1][height, width] = probability
        for overlap in overlaps:
            for one, two in combinations(maps[overlap], 2):
                shared[overlap] += common(one, two, info.threshold)
    results = []
    for overlap in overlaps:
        answer, right = np.concatenate(answers[overlap]), np.concatenate(truth)
        error = np.abs(answer - right)
        (at_edges, edges), (elsewhere, others) = found[overlap]
        results.append(
            Result(
                overlap=overlap,
                cost=(tile / (tile - overlap)) ** 2,
                mean=float(error.mean()),
                high=float(np.quantile(error, 0.95)),
                other=float(((answer >= info.threshold) != (right >= info.threshold)).mean()),
                agreement=shared[overlap][0] / max(shared[overlap][1], 1),
                step=(at_edges / edges) / (elsewhere / others),
            )
        )
    return tile, results


def common(one: np.ndarray, two: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels (2,) that both maps call landslide, and that one does, where both are (not NaN)."""
    both = ~np.isnan(one) & ~np.isnan(two)
    a, b = (probability[both] >= threshold for probability in (one, two))
    return np.array([np.count_nonzero(a & b), np.count_nonzero(a | b)])


def knee(results: Sequence[Result]) -> Result:
    """The point of the curve of mean error over cost that is furthest below its chord."""
    first, last = results[0], results[-1]

    def below(result: Result) -> float:
        along = (result.cost - first.cost) / (last.cost - first.cost)
        return 1 - along - (result.mean - last.mean) / (first.mean - last.mean)

    return max(results, key=below)


def plot(results: Sequence[Result], best: Result, title: str, path: Path) -> None:
    """Draw error and steps against cost."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    cost = [result.cost for result in results]
    left.plot(cost, [result.high for result in results], marker="o", label="95th percentile")
    left.plot(cost, [result.mean for result in results], marker="o", label="mean")
    left.set(ylabel="|probability − that of a centred window|", title="error", ylim=(0, None))
    right.plot(cost, [result.step for result in results], marker="o", color="tab:green")
    right.set(ylabel="relative to elsewhere (1: no seam)", yscale="log", title="step at edges")
    right.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    for axes in (left, right):
        axes.axvline(best.cost, color="grey", linestyle=":", label="knee")
        labels = [f"{result.overlap}\n×{result.cost:.2f}" for result in results]
        axes.set(xscale="log", xlabel="overlap in pixels, × windows")
        axes.set_xticks(cost, labels, fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(
    scenes: Sequence[Path] = (),
    points: int = POINTS,
    draws: int = DRAWS,
    picture: Path | None = None,
) -> None:
    """Print the table; draw it if there is a file for it."""
    scenes = scenes or held_out_scenes()
    tile, results = measure(scenes, points, draws, SHARES)
    best = knee(results)
    what = f"{points * len(scenes)} pixels of {len(scenes)} scenes, windows of {tile} pixels"
    print_table(
        f"seam error: {what}, {draws} grids; the knee is at {best.overlap}",
        (
            "overlap",
            "of window",
            "windows",
            "mean error",
            "95th perc.",
            "other class",
            "two grids",
            "step",
        ),
        [
            (
                str(result.overlap),
                f"{result.overlap / tile:.0%}",
                f"{result.cost:.2f}",
                f"{result.mean:.4f}",
                f"{result.high:.3f}",
                f"{result.other:.1%}",
                f"{result.agreement:.3f}",
                f"{result.step:.2f}",
            )
            for result in results
        ],
    )
    if picture:
        plot(results, best, f"What overlapping windows cost and leave ({what})", picture)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", type=Path, help="more than two windows a side")
    parser.add_argument("--points", type=int, default=POINTS, help="per scene")
    parser.add_argument("--draws", type=int, default=DRAWS, help="grids per scene and overlap")
    parser.add_argument("--plot", type=Path, help="a PNG")
    options = parser.parse_args()
    run(options.scenes, options.points, options.draws, options.plot)


if __name__ == "__main__":
    main()
