"""The tiles of a split, with the model's answers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyproj
import rasterio
import shapely
from affine import Affine
from rasterio.errors import RasterioIOError
from tqdm import tqdm

from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import Dataset, Tile
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.evaluation.objects import Place
from landslide_mapper.geo import blend
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.geo.measure import Measurer

READERS = 4  # threads; GDAL lets go of the interpreter lock while it decodes
HAIR = 1e-3  # pixels that are rounding between the transforms of tiles of one grid


@dataclass(frozen=True)
class Answer:
    """One tile: number in its sequence, image (B, H, W), labels (H, W), probability (H, W)."""

    number: int
    image: np.ndarray
    labels: np.ndarray
    probability: np.ndarray


def answers(predict: Predictor, tiles: Sequence[Tile], what: str) -> Iterator[Answer]:
    """Predict tiles in order, with a progress bar named `what` on terminals.

    `predict` gets as many tiles at once as its `batch_size` says (1 without); its `stream`, if it
    has one, works ahead. Raises `LsmapFailure` when a tile cannot be read.
    """
    size = getattr(predict, "batch_size", 1)
    waiting: deque[list[tuple[int, np.ndarray, np.ndarray]]] = deque()

    def images() -> Iterator[np.ndarray]:
        for batch in _batches(_read(tiles, 2 * size + READERS), size):
            waiting.append(batch)
            yield np.stack([image for _, image, _ in batch])

    with tqdm(total=len(tiles), desc=what, unit=" tiles", disable=None, leave=False) as bar:
        for predicted in blend.answers(predict, images()):
            batch = waiting.popleft()
            for (number, image, labels), probability in zip(batch, predicted, strict=True):
                yield Answer(number, image, labels, probability)
            bar.update(len(batch))


def _batches(
    items: Iterator[tuple[int, np.ndarray, np.ndarray]], size: int
) -> Iterator[list[tuple[int, np.ndarray, np.ndarray]]]:
    while batch := list(islice(items, size)):
        yield batch


def _read(tiles: Sequence[Tile], ahead: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number, image and labels of every tile in order; `ahead` are being read or wait."""
    data = TileDataset(tiles)
    running: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        image, labels = data[0, number]
        return image.numpy(), labels.numpy()

    with ThreadPoolExecutor(READERS) as pool:
        numbers = iter(range(len(tiles)))
        running.extend(pool.submit(read, number) for number in islice(numbers, ahead))
        try:
            for done in range(len(tiles)):
                image, labels = running.popleft().result()
                running.extend(pool.submit(read, number) for number in islice(numbers, 1))
                yield done, image, labels
        finally:
            for future in running:
                future.cancel()


@dataclass(frozen=True)
class Ground:
    """Where tiles lie and how large their pixels are.

    Attributes:
        sources: names of the scenes or images.
        source: (tiles,) number of each tile's source.
        places: of each tile; None where tiles are not parts of one grid (crops, overlaps).
        overlapping: whether tiles of one source show the same ground, so that it counts again.
        pixels: (tiles,) size of a pixel in `unit`.
        unit: "m²", or "px" when the pixel size of any tile is not known.
    """

    sources: tuple[str, ...]
    source: np.ndarray
    places: tuple[Place | None, ...]
    overlapping: bool
    pixels: np.ndarray
    unit: str


def survey(dataset: Dataset, tiles: Sequence[Tile]) -> Ground:
    """Look at the georeference of tiles.

    Raises `LsmapFailure` when a mask cannot be opened.
    """
    names = tuple(dict.fromkeys(tile.source for tile in tiles))
    numbers = {name: number for number, name in enumerate(names)}
    source = np.array([numbers[tile.source] for tile in tiles])
    known = {str(source.get("name")): source for source in dataset.info.get("sources", [])}
    first, relative, pixels = dict[int, Affine](), list[Affine](), []
    for tile, number in zip(tiles, source.tolist(), strict=True):
        transform, crs = _georeference(tile)
        relative.append(~first.setdefault(number, transform) * transform)
        pixels.append(_pixel_area(transform, crs, dataset.tile_size, known.get(tile.source, {})))
    overlapping = _overlapping(relative, source, dataset.tile_size)
    places = tuple(
        None if overlapping else _place(number, transform)
        for number, transform in zip(source.tolist(), relative, strict=True)
    )
    if any(math.isnan(area) for area in pixels):
        return Ground(names, source, places, overlapping, np.ones(len(tiles)), "px")
    return Ground(names, source, places, overlapping, np.array(pixels), "m²")


def _georeference(tile: Tile) -> tuple[Affine, pyproj.CRS | None]:
    try:
        with rasterio.open(tile.mask) as mask:
            crs = pyproj.CRS.from_user_input(mask.crs.to_wkt()) if mask.crs else None
            return mask.transform, crs
    except RasterioIOError as error:
        raise LsmapFailure(f"tile {tile.tile_id} cannot be read: {error}") from error


def _place(source: int, relative: Affine) -> Place | None:
    """Where a tile lies, given its transform into pixels of the first tile of its source.

    None when its pixels are not those of the first one's grid.
    """
    col, row = round(relative.c), round(relative.f)
    on_grid = relative.almost_equals(Affine.translation(col, row), precision=HAIR)
    return Place(source, row, col) if on_grid else None


def _overlapping(relative: Sequence[Affine], source: np.ndarray, size: int) -> bool:
    """Whether any two tiles of one source, of `size` pixels a side, show the same ground."""
    starts = np.array([(it.c, it.f) for it in relative]) + HAIR
    ends = np.array([it * (size, size) for it in relative]) - HAIR
    for number in range(int(source.max()) + 1):
        own = source == number
        squares = shapely.box(*starts[own].T, *ends[own].T)
        one, other = shapely.STRtree(squares).query(squares, predicate="intersects")
        if (one != other).any():
            return True
    return False


def _pixel_area(
    transform: Affine, crs: pyproj.CRS | None, size: int, source: Mapping[str, Any]
) -> float:
    """Square metres of a tile's pixel; NaN when nobody knows."""
    gsd = source.get("gsd")
    if gsd is None:
        return math.nan
    if crs is None:  # as many pixels of the source as the two transforms say
        return float(gsd**2 * abs(transform.determinant) / source.get("determinant", 1.0))
    area = Measurer(crs, transform, gsd).area(np.array([shapely.box(0, 0, size, size)]))[0]
    return float(area) / size**2
