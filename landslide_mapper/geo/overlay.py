"""A picture of the scene with the landslides drawn on it, to look at without a GIS."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely

from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.picture import picture_shape, read_colours
from landslide_mapper.geo.rasters import as_os_error
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.style import LANDSLIDE_COLOUR

MAX_SIDE = 2048  # pixels
EDGES = 100_000  # that are drawn together


class Overlay:
    """Collects outlines (pixel coordinates of the scene) and draws them over `frame` of it."""

    def __init__(self, scene: Scene, frame: Frame) -> None:
        self._scene = scene
        self._frame = frame
        self._shape = picture_shape(frame, MAX_SIDE)
        self._lines: np.ndarray | None = np.zeros(self._shape, dtype=bool)
        self._packed = b""

    def pack(self) -> None:
        """Take little memory until there is more to draw."""
        if self._lines is not None:
            self._packed, self._lines = zlib.compress(self._lines.tobytes(), 1), None

    def _unpacked(self) -> np.ndarray:
        if self._lines is None:
            lines = np.frombuffer(zlib.decompress(self._packed), dtype=bool)
            self._lines = lines.reshape(self._shape).copy()
        return self._lines

    def draw(self, outlines: np.ndarray) -> None:
        """Add the outlines of polygons, as far as they are in the picture."""
        lines, frame, (height, width) = self._unpacked(), self._frame, self._shape
        rings = shapely.get_rings(outlines)
        points, ring = shapely.get_coordinates(rings, return_index=True)
        points = (points - [frame.col, frame.row]) * [width / frame.width, height / frame.height]
        edge = np.flatnonzero(ring[1:] == ring[:-1])
        for some in np.array_split(edge, len(edge) // EDGES + 1):
            col, row = np.floor(_along(points[some], points[some + 1])).astype(int).T
            here = (row >= -1) & (row <= height) & (col >= -1) & (col <= width)
            # An outline on a pixel's outer edge is that pixel's.
            row, col = np.clip(row[here], 0, height - 1), np.clip(col[here], 0, width - 1)
            lines[row, col] = True

    def save(self, path: Path, tags: Mapping[str, str]) -> None:
        """Write the PNG with `tags` as metadata; pixels that were not seen are transparent.

        Raises:
            OSError: it cannot be written.
        """
        image, valid = read_colours(self._scene, self._frame, self._shape)
        line = _thicker(self._unpacked())
        halo = _thicker(line) & ~line
        for band, colour in zip(image, LANDSLIDE_COLOUR, strict=True):
            band[halo] = band[halo] // 3
            band[line] = colour
        alpha = np.where(valid | line, 255, 0).astype(np.uint8)
        rows, cols = self._shape
        profile: dict[str, Any] = {
            "driver": "PNG",
            "width": cols,
            "height": rows,
            "count": 4,
            "dtype": "uint8",
            "write_metadata_as_text": "YES",  # in the picture, not in a file beside it
        }
        with as_os_error(), rasterio.open(path, "w", **profile) as picture:
            picture.update_tags(**tags)
            picture.write(np.concatenate([image, alpha[None]]))


def _along(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points (n, 2) along edges, so close that they miss no pixel but for its corner."""
    steps = np.ceil(np.abs(end - start).max(axis=1) * 2).astype(int) + 1
    edge = np.repeat(np.arange(len(start)), steps + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    points: np.ndarray = start[edge] + (end - start)[edge] * (step / steps[edge])[:, None]
    return points


def _thicker(lines: np.ndarray) -> np.ndarray:
    """A bool picture whose true pixels have spread by one pixel to all sides."""
    padded = np.pad(lines, 1)
    rows, cols = lines.shape
    shifts = [padded[r : r + rows, c : c + cols] for r in range(3) for c in range(3)]
    return np.logical_or.reduce(shifts)
