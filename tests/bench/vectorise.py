"""The strip-wise vectoriser against `rasterio.features.shapes` and geopandas on the whole array."""

from __future__ import annotations

import geopandas
import numpy as np
import rasterio
from affine import Affine
from common import SCENE, fastest, print_table
from rasterio.features import shapes

from landslide_mapper.geo.vectorize import StripVectorizer

REPEATS = 4
STRIP = 448  # rows that detect finishes at a time: a window of 512 less the overlap of 64


def realistic_mask() -> np.ndarray:
    """Bright ground of the bundled scene, smoothed: large blobs with ragged edges, and specks."""
    with rasterio.open(SCENE) as raster:
        green = raster.read(2).astype(np.float64)
    sums = np.pad(green.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    box = 9
    mean = sums[box:, box:] - sums[:-box, box:] - sums[box:, :-box] + sums[:-box, :-box]
    bright = mean / box**2 > 110
    return np.tile(bright, (REPEATS, REPEATS))


def by_strips(mask: np.ndarray, probability: np.ndarray) -> int:
    """Number of polygons."""
    vectorizer = StripVectorizer(mask.shape[1])
    count = 0
    for row in range(0, len(mask), STRIP):
        count += len(vectorizer.add(mask[row : row + STRIP], probability[row : row + STRIP]))
    return count + len(vectorizer.finish())


def at_once(mask: np.ndarray) -> int:
    """Number of polygons."""
    found = shapes(mask.view(np.uint8), mask=mask, connectivity=4, transform=Affine.identity())
    features = [{"geometry": geometry, "properties": {}} for geometry, _ in found]
    return len(geopandas.GeoDataFrame.from_features(features))


def run() -> None:
    """Print the table."""
    mask = realistic_mask()
    probability = mask.astype(np.float32)
    counts = by_strips(mask, probability), at_once(mask)
    if counts[0] != counts[1]:
        raise AssertionError(f"the two ways found {counts} polygons")
    whole = fastest(lambda: at_once(mask), 3)
    strips = fastest(lambda: by_strips(mask, probability), 3)
    print_table(
        f"polygons of a mask of {mask.shape[0]} x {mask.shape[1]}, {mask.mean():.0%} landslide, "
        f"{counts[0]} polygons",
        ("way", "seconds", "ratio"),
        [
            ("shapes + geopandas, whole array", f"{whole:.2f}", "1.00"),
            (
                f"strips of {STRIP} rows, with mean and highest probability",
                f"{strips:.2f}",
                f"{strips / whole:.2f}",
            ),
        ],
    )
