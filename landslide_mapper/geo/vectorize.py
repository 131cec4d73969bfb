"""From mask strips to polygons, exactly: nothing is lost, shifted or cut where strips meet.

Polygons are in pixel coordinates (x = column, y = row, pixel corners are integers); the
landslides of one component hang together by pixel edges (4-connectivity).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize, shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry


@dataclass(frozen=True)
class Components:
    """Whole landslides, one entry per component in every array."""

    polygons: np.ndarray  # shapely polygons in pixel coordinates
    pixels: np.ndarray  # int64, number of pixels
    total: np.ndarray  # float64, sum of the pixels' probabilities
    highest: np.ndarray  # float32, highest probability of a pixel

    def __len__(self) -> int:
        return len(self.polygons)

    @property
    def mean(self) -> np.ndarray:
        """Mean probability of each component's pixels."""
        return self.total / self.pixels

    def where(self, chosen: np.ndarray) -> Components:
        """The components that `chosen` (bool or indices) names."""
        return Components(
            self.polygons[chosen], self.pixels[chosen], self.total[chosen], self.highest[chosen]
        )


@dataclass
class _Open:
    """A component that reaches the last row read so far: what is known of it."""

    pieces: list[BaseGeometry] = field(default_factory=list)
    pixels: int = 0
    total: float = 0.0
    highest: float = 0.0

    def take(self, other: _Open) -> None:
        self.pieces += other.pieces
        self.pixels += other.pixels
        self.total += other.total
        self.highest = max(self.highest, other.highest)


class StripVectorizer:
    """Turns strips, given from top to bottom, into components as soon as they are complete.

    Holds only the components that touch the last row given.
    """

    def __init__(self, width: int) -> None:
        self._row = 0
        self._open: list[_Open] = []
        self._border = np.zeros(width, dtype=np.int32)  # 1-based index into _open, 0: background

    def add(self, mask: np.ndarray, probability: np.ndarray) -> Components:
        """Add the next strip: `mask` (h, width) bool and `probability` (h, width) float.

        Returns the components that end in or above this strip.
        """
        pieces, labels = _pieces(mask, self._row)
        parts = [*self._open, *_measured(pieces, labels, mask, probability)]
        before = len(self._open)
        group = _groups(len(parts), _contacts(self._border, labels[0], before))
        merged: dict[int, _Open] = defaultdict(_Open)
        for part, root in zip(parts, group, strict=True):
            merged[root].take(part)
        self._row += len(mask)
        self._border, stays = self._next_border(labels[-1], before, group)
        self._open = [merged[root] for root in stays]
        staying = set(stays)
        return _whole(part for root, part in merged.items() if root not in staying)

    def finish(self) -> Components:
        """The components that reach the scene's last row."""
        left, self._open = self._open, []
        return _whole(left)

    @staticmethod
    def _next_border(
        last: np.ndarray, before: int, group: list[int]
    ) -> tuple[np.ndarray, list[int]]:
        roots = np.array([-1, *group[before:]])[last]
        stays, border = np.unique(roots, return_inverse=True)
        if len(stays) and stays[0] == -1:
            return border.astype(np.int32), stays[1:].tolist()
        return border.astype(np.int32) + 1, stays.tolist()


def _pieces(mask: np.ndarray, row: int) -> tuple[list[BaseGeometry], np.ndarray]:
    """Polygons of a strip whose first row is `row`, and the 1-based label of every pixel."""
    if not mask.any():
        return [], np.zeros(mask.shape, dtype=np.int32)
    place = Affine.translation(0, row)
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=place)
    geometries = [geometry for geometry, _ in found]
    labels = rasterize(
        zip(geometries, range(1, len(geometries) + 1), strict=True),
        out_shape=mask.shape,
        transform=place,
        dtype="int32",
    )
    return [shape(geometry) for geometry in geometries], labels


def _measured(
    pieces: list[BaseGeometry], labels: np.ndarray, mask: np.ndarray, probability: np.ndarray
) -> Iterable[_Open]:
    ids = labels[mask] - 1
    values = probability[mask]
    pixels = np.bincount(ids, minlength=len(pieces))
    total = np.bincount(ids, weights=values, minlength=len(pieces))
    highest = np.zeros(len(pieces), dtype=np.float32)
    np.maximum.at(highest, ids, values)
    for index, piece in enumerate(pieces):
        yield _Open([piece], int(pixels[index]), float(total[index]), float(highest[index]))


def _contacts(above: np.ndarray, below: np.ndarray, before: int) -> np.ndarray:
    """Pairs (open component, piece of the new strip) that share a pixel edge, 0-based parts."""
    touching = (above > 0) & (below > 0)
    pairs = np.stack([above[touching] - 1, below[touching] - 1 + before], axis=1)
    return np.unique(pairs, axis=0)


def _groups(count: int, pairs: np.ndarray) -> list[int]:
    """Root of every part after joining `pairs` (union-find)."""
    parent = list(range(count))

    def root(part: int) -> int:
        while parent[part] != part:
            parent[part] = parent[parent[part]]
            part = parent[part]
        return part

    for a, b in pairs.tolist():
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return [root(part) for part in range(count)]


def _whole(parts: Iterable[_Open]) -> Components:
    closed = list(parts)
    polygons = np.empty(len(closed), dtype=object)
    for index, part in enumerate(closed):
        polygons[index] = part.pieces[0] if len(part.pieces) == 1 else _joined(part.pieces)
    corner = shapely.bounds(polygons) if len(closed) else np.empty((0, 4))
    order = np.lexsort((corner[:, 0], corner[:, 1]))  # from top to bottom, from left to right
    return Components(
        polygons,
        np.array([part.pixels for part in closed], dtype=np.int64),
        np.array([part.total for part in closed], dtype=np.float64),
        np.array([part.highest for part in closed], dtype=np.float32),
    ).where(order)


def _joined(pieces: list[BaseGeometry]) -> shapely.Polygon:
    """One polygon from pieces that share edges, without the vertices that the seams left."""
    union = shapely.union_all(pieces)
    assert isinstance(union, shapely.Polygon)  # the pieces hang together by edges
    rings = [_corners(shapely.get_coordinates(ring)) for ring in (union.exterior, *union.interiors)]
    return shapely.Polygon(rings[0], rings[1:])


def _corners(ring: np.ndarray) -> np.ndarray:
    """A closed axis-aligned ring without the points where it goes straight on."""
    points = ring[:-1]
    into = points - np.roll(points, 1, axis=0)
    out = np.roll(points, -1, axis=0) - points
    turns = (into[:, 0] == 0) != (out[:, 0] == 0)
    return points[turns]
