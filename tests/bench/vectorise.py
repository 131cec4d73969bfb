"""The vectoriser, block by block, against `rasterio.features.shapes` and geopandas on the array."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine
from common import SCENE, measured, print_table, run_child
from rasterio.features import shapes

from landslide_mapper.geo.joining import Joiner
from landslide_mapper.geo.vectorize import vectorize_block

SIDE = 16384
BLOCK = (2048, 8192)  # rows, columns: what detect vectorises at a time
NOISE = 1e-3  # share of pixels that are turned over


def realistic_mask(side: int) -> np.ndarray:
    """Bright ground of the bundled scene, smoothed: large blobs with ragged edges; and noise."""
    with rasterio.open(SCENE) as raster:
        green = raster.read(2).astype(np.float64)
    sums = np.pad(green.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    box = 9
    mean = sums[box:, box:] - sums[:-box, box:] - sums[box:, :-box] + sums[:-box, :-box]
    bright = mean / box**2 > 110
    times = -(-side // len(bright))
    mask = np.ascontiguousarray(np.tile(bright, (times, times))[:side, :side])
    rng = np.random.default_rng(0)
    for row in mask:
        row ^= rng.random(side, dtype=np.float32) < NOISE
    return mask


def by_blocks(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Polygons, with pixels, mean and highest probability worked out too."""
    (height, width), (rows, cols) = mask.shape, BLOCK
    columns = -(-width // cols)
    joiner = Joiner(columns)
    for row in range(0, height, rows):
        for col in range(0, width, cols):
            part = mask[row : row + rows, col : col + cols]
            inner = (row > 0, row + rows < height, col > 0, col + cols < width)
            block = vectorize_block(
                part, np.ones(np.count_nonzero(part), np.float32), row, col, inner
            )
            yield block.whole.polygons
            yield joiner.add(row // rows, col // cols, block.open, block.sides).polygons
    yield joiner.finish().polygons


def at_once(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Polygons of the whole array."""
    found = shapes(mask.view(np.uint8), mask=mask, connectivity=4, transform=Affine.identity())
    features = [{"geometry": geometry, "properties": {}} for geometry, _ in found]
    yield geopandas.GeoDataFrame.from_features(features).geometry.to_numpy()


WAYS = {"blocks": by_blocks, "once": at_once}


def child(way: str, file: str) -> None:
    """Print what `common.measured` says of one way over a mask in a file."""
    mask = np.load(file)

    def work(mask: np.ndarray) -> tuple[int, float, float]:
        count, area, length = 0, 0.0, 0.0
        for polygons in WAYS[way](mask):
            count += len(polygons)
            area += float(shapely.area(polygons).sum())
            length += float(shapely.length(polygons).sum())
        return count, area, length

    print(json.dumps(measured(lambda: work(mask), lambda: work(mask[:64, :64].copy()))))


def check_equal(mask: np.ndarray) -> None:
    """Both ways give the same polygons, vertex by vertex."""
    found = [
        np.sort(shapely.to_wkb(shapely.normalize(np.concatenate(list(way(mask))))))
        for way in WAYS.values()
    ]
    if not np.array_equal(*found):
        raise AssertionError("the two ways give different polygons")


def run(side: int = SIDE) -> None:
    """Print the table."""
    check_equal(realistic_mask(min(side, SIDE // 4)))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mask.npy"
        np.save(file, realistic_mask(side))
        blocks, once = (run_child(__file__, way, file) for way in WAYS)
    if blocks["result"] != once["result"]:
        raise AssertionError(f"the two ways differ: {blocks['result']} and {once['result']}")
    names = (
        "blocks of {} x {}, with probabilities".format(*BLOCK),
        "shapes + geopandas, all at once",
    )
    print_table(
        f"{once['result'][0]} polygons of a mask of {side} x {side} pixels",
        ("way", "seconds", "ratio", "MB above the mask"),
        [
            (
                name,
                f"{found['wall']:.2f}",
                f"{found['wall'] / once['wall']:.2f}",
                f"{found['peak'] - found['base']:.0f}",
            )
            for name, found in zip(names, (blocks, once), strict=True)
        ],
    )


if __name__ == "__main__":
    child(*sys.argv[2:])
