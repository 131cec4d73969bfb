"""Mask and probability rasters: written block by block, delivered as cloud-optimised GeoTIFF.

Mask: 0 background, 1 landslide, 255 not seen. Probability: whole percent, 255 not seen. In both
255 is the nodata value, so it is transparent in a GIS and still there for whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasterio.windows import Window

from landslide_mapper.geo import gdal
from landslide_mapper.geo.cover import covered
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.style import MASK_COLOURS

UNSEEN = 255
TAG = "LSMAP_"  # what metadata of lsmap's own rasters begin with
BLOCK = 512  # pixels a side of a tile
CELL = 8 * BLOCK  # pixels in a row that polygons are looked for in at once


class StripRaster:
    """A uint8 GeoTIFF of a part of a scene, `frame`, that is written block by block.

    What is never written is 255. A finished part can be changed again (`burn`), and so can a file
    that has been closed: without a `scene` it is opened again. Rows, columns and polygons are in
    pixels of the scene. A context manager; raises `OSError` when the disk does not take it.
    """

    def __init__(self, path: Path, scene: Scene | None, frame: Frame) -> None:
        self._frame = frame
        with as_os_error():
            self._raster = (
                rasterio.open(path, "w+", **_profile(scene, frame))
                if scene
                else rasterio.open(path, "r+")
            )

    def __enter__(self) -> StripRaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is still in memory and close the file."""
        with as_os_error():
            self._raster.close()

    def write(self, row: int, col: int, values: np.ndarray) -> None:
        """Write `values` (h, w) from pixel `row`, `col` on; what is off the frame is left out."""
        part = self._frame.common(Frame(row, col, *values.shape))
        if part:
            inner = values[part.row - row : part.bottom - row, part.col - col : part.right - col]
            with as_os_error():
                self._raster.write(inner, 1, window=self._window(part))

    def holds(self, polygons: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Whether a pixel with its centre inside each polygon has one of `values`.

        Polygons are apart; of one within another, only the inner one is asked.
        """
        found = np.zeros(len(polygons), dtype=bool)
        for part, chosen, inside in pixels_inside(polygons, self._frame):
            hit = np.isin(self._read(part), values)
            found[chosen[np.unique(inside[hit & (inside > 0)]) - 1]] = True
        return found

    def burn(self, polygons: np.ndarray, value: int) -> None:
        """Give what was seen of the pixels with their centres inside the polygons this value."""
        for part, _, inside in pixels_inside(polygons, self._frame):
            pixels = self._read(part)
            pixels[(inside > 0) & (pixels != UNSEEN)] = value
            self.write(part.row, part.col, pixels)

    def at(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """The values of pixels of the scene, one by one; 255 where the raster has none."""
        found = np.full(len(rows), UNSEEN, np.uint8)
        own = self._frame
        here = (rows >= own.row) & (rows < own.bottom) & (cols >= own.col) & (cols < own.right)
        if here.any():
            rows, cols = rows[here], cols[here]
            top, left = int(rows.min()), int(cols.min())
            part = Frame(top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left)
            found[here] = self._read(part)[rows - top, cols - left]
        return found

    def _read(self, part: Frame) -> np.ndarray:
        with as_os_error():
            pixels: np.ndarray = self._raster.read(1, window=self._window(part))
        return pixels

    def _window(self, part: Frame) -> Window:
        own = self._frame
        return Window(part.col - own.col, part.row - own.row, part.width, part.height)


def pixels_inside(
    polygons: np.ndarray, within: Frame
) -> Iterator[tuple[Frame, np.ndarray, np.ndarray]]:
    """Which pixels have their centres inside polygons (n,) in pixels, as far as they are `within`.

    Yields frames that fit into memory, the indices (k,) of the polygons in each, and int32
    (h, w): 0 or the position in these indices, counted from 1, of the polygon that a pixel is in;
    of one within another, the inner one.
    """
    tree = shapely.STRtree(polygons)
    size = shapely.area(polygons)
    for top in range(within.row, within.bottom if len(polygons) else within.row, BLOCK):
        bottom = min(top + BLOCK, within.bottom)
        row = tree.query(shapely.box(within.col, top, within.right, bottom))
        if len(row) == 0:
            continue
        left, _, right, _ = shapely.total_bounds(polygons[row])
        left, right = max(math.floor(left), within.col), min(math.ceil(right), within.right)
        for first in range(left, right, CELL):
            part = Frame(top, first, bottom - top, min(CELL, right - first))
            chosen = tree.query(shapely.box(first, top, part.right, bottom))
            chosen = chosen[np.argsort(-size[chosen], kind="stable")]  # what is burnt last stays
            if len(chosen):
                shapes = zip(polygons[chosen], range(1, len(chosen) + 1), strict=True)
                shape, place = (part.height, part.width), Affine.translation(first, top)
                yield part, chosen, rasterize(shapes, shape, transform=place, dtype="int32")


class ArrayCanvas:
    """A mask in memory: `values` uint8 (h, w), its first pixel at `row`, `col` of the scene."""

    def __init__(self, values: np.ndarray, row: int, col: int) -> None:
        self.values = values
        self._row = row
        self._col = col

    def holds(self, polygons: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Whether a pixel inside each pixel-edge polygon has one of `values`."""
        found = np.zeros(len(polygons), dtype=bool)
        for owner, rows, cols in covered(polygons):
            pixels = self.values[rows - self._row, cols - self._col]
            found[owner[np.isin(pixels, values)]] = True
        return found

    def burn(self, polygons: np.ndarray, value: int) -> None:
        """Give what was seen of the pixels inside pixel-edge polygons this value."""
        for _, rows, cols in covered(polygons):
            rows, cols = rows - self._row, cols - self._col
            seen = self.values[rows, cols] != UNSEEN
            self.values[rows[seen], cols[seen]] = value


def _profile(scene: Scene, frame: Frame) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": frame.width,
        "height": frame.height,
        "count": 1,
        "dtype": "uint8",
        "crs": scene.crs.to_wkt() if scene.crs is not None else None,
        "transform": frame.transform(scene.transform),
        "nodata": UNSEEN,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "sparse_ok": True,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }


def classes(landslide: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mask values: 1 where `landslide`, 0 elsewhere, 255 where `valid` is false."""
    return np.where(valid, landslide.astype(np.uint8), np.uint8(UNSEEN))


def percent(probability: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Probabilities as uint8 percent, 255 where `valid` is false."""
    return np.where(valid, np.rint(probability * 100), UNSEEN).astype(np.uint8)


def outputs(path: Path) -> list[Path]:
    """Every file that comes with the raster `path`."""
    return [path.with_suffix(".qml"), path]


def leftovers(path: Path) -> list[Path]:
    """Files of an earlier raster `path` that would spoil a new one, e.g. its overviews."""
    return [path.with_name(path.name + part) for part in (".aux.xml", ".ovr", ".msk")]


def finish_mask(strips: Path, target: Path, tags: Mapping[str, str]) -> None:
    """Make a COG with overviews and a colour table from the closed strip raster `strips`.

    `tags` become metadata of the file.
    """
    with as_os_error():
        with rasterio.open(strips, "r+") as raster:
            raster.write_colormap(1, MASK_COLOURS)
            raster.update_tags(**tags)
        # Of what every GIS reads, the quickest that is also the smallest for masks.
        _to_cog(strips, target, RESAMPLING="MODE", COMPRESS="LZW")


def finish_probability(strips: Path, target: Path, tags: Mapping[str, str]) -> None:
    """Make a COG with averaged overviews from the closed strip raster `strips`.

    `tags` become metadata of the file.
    """
    with as_os_error():
        with rasterio.open(strips, "r+") as raster:
            raster.update_tags(**tags)
        packing = {"COMPRESS": "DEFLATE", "LEVEL": "1", "PREDICTOR": "YES"}
        _to_cog(strips, target, RESAMPLING="AVERAGE", **packing)


def _to_cog(source: Path, target: Path, **options: str) -> None:
    rasterio.shutil.copy(
        source,
        target,
        driver="COG",
        BLOCKSIZE=BLOCK,
        OVERVIEWS="IGNORE_EXISTING",
        BIGTIFF="IF_SAFER",
        NUM_THREADS="ALL_CPUS",
        **options,
    )


@contextmanager
def as_os_error() -> Iterator[None]:
    """A context in which a raster is written; what goes wrong is an `OSError` with one line."""
    # These two: what rasterio makes of a file that it wrote and the disk did not take.
    with gdal.as_os_error(SystemError, TypeError), rasterio.Env():
        yield  # in an Env GDAL's own lines go to the log, not to the terminal
