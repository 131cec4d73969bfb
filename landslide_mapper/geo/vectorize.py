"""From masks to polygons, exactly: nothing is lost, shifted or cut where blocks meet.

Polygons are in pixel coordinates (x = column, y = row, pixel corners are integers); the
landslides of one component hang together by pixel edges (4-connectivity). A block of a scene is
vectorised on its own; `landslide_mapper.geo.joining` puts together what reaches over its sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import shapely

from landslide_mapper.geo.rings import Corners, Rings, trace
from landslide_mapper.geo.scan import Scan, component_at, label_runs


@dataclass(frozen=True)
class Components:
    """Landslides, one entry per component in every array."""

    polygons: np.ndarray  # shapely polygons in pixel coordinates
    pixels: np.ndarray  # int64, number of pixels
    total: np.ndarray  # float64, sum of the pixels' probabilities
    highest: np.ndarray  # float32, highest probability of a pixel

    def __len__(self) -> int:
        return len(self.polygons)

    @classmethod
    def empty(cls) -> Components:
        """No components."""
        return cls(np.empty(0, object), np.empty(0, np.int64), np.empty(0), np.empty(0, np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence[Components]) -> Components:
        """All components of `parts`, in their order."""
        together = [cls.empty(), *parts]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in together]) for name in names))

    @property
    def mean(self) -> np.ndarray:
        """Mean probability of each component's pixels."""
        return self.total / self.pixels

    def where(self, chosen: np.ndarray) -> Components:
        """The components that `chosen` (bool or indices) names."""
        return Components(
            self.polygons[chosen], self.pixels[chosen], self.total[chosen], self.highest[chosen]
        )

    def reading_order(self) -> np.ndarray:
        """Indices that sort the components from top to bottom, then from left to right."""
        if len(self) == 0:
            return np.empty(0, np.intp)
        corner = shapely.bounds(self.polygons)
        return np.lexsort((corner[:, 0], corner[:, 1]))


@dataclass(frozen=True)
class Sides:
    """What lies along the inner sides of a block.

    Per pixel 0, or 1 + the index of its component in `BlockComponents.open`; 0 all along a side
    that is no inner one.
    """

    top: np.ndarray  # int32, (width,)
    bottom: np.ndarray  # int32, (width,)
    left: np.ndarray  # int32, (height,)
    right: np.ndarray  # int32, (height,)


@dataclass(frozen=True)
class BlockComponents:
    """The components of a block, each group from top to bottom, then from left to right."""

    whole: Components
    open: Components  # those with a pixel at an inner side: they may go on beyond it
    sides: Sides


def vectorize_block(
    mask: np.ndarray,
    values: np.ndarray,
    row: int = 0,
    col: int = 0,
    inner: tuple[bool, bool, bool, bool] = (False, False, False, False),
) -> BlockComponents:
    """The components of one block, with polygons in the scene's pixel coordinates.

    Args:
        mask: (h, w) bool, landslide or not.
        values: (n,) float32, the probabilities of the n set pixels in reading order.
        row: scene row of the block's first row.
        col: scene column of the block's first column.
        inner: whether the scene goes on beyond the top, bottom, left and right side.
    """
    scan = Scan.of(mask, values)
    if len(scan.starts) == 0:
        return BlockComponents(Components.empty(), Components.empty(), _no_sides(mask.shape))
    label = label_runs(scan)
    corners = _corners(scan, label)
    rings = trace(corners, row, col)
    found = _measure(scan, label, _polygons(scan, label, corners, rings))
    order = found.reading_order()
    is_open = np.zeros(len(found), bool)
    at_sides = _runs_at_sides(scan, mask, inner)
    for runs, _ in at_sides:
        is_open[label[runs]] = True
    open_order = order[is_open[order]]
    number = np.zeros(len(found), np.int32)
    number[open_order] = np.arange(1, len(open_order) + 1)
    sides = _no_sides(mask.shape)
    painted = (sides.top, sides.bottom, sides.left, sides.right)
    for side, (runs, pixels) in zip(painted, at_sides, strict=True):
        side[pixels] = number[label[runs]]
    return BlockComponents(found.where(order[~is_open[order]]), found.where(open_order), sides)


def _corners(scan: Scan, label: np.ndarray) -> Corners:
    """Corners with the pinches told apart.

    Diagonal pixels of one component hang together elsewhere, so the outline passes between them:
    each of its corners there goes around an empty pixel. Those of two components stay apart:
    each corner goes around its own pixel.
    """
    pinches = np.flatnonzero(scan.pinch)
    place, falling = scan.corners[pinches], scan.inside[pinches]  # upper left and lower right set
    lower = component_at(scan, label, np.where(falling, place, place - 1))
    upper = component_at(scan, label, place - scan.stride - falling)
    crossed = np.zeros(len(scan.corners) + len(pinches), bool)
    crossed[pinches + np.arange(len(pinches))] = falling == (lower == upper)
    twice = np.where(scan.pinch, 2, 1)
    y, x = np.divmod(np.repeat(scan.corners, twice), scan.stride)
    column = x.astype(np.uint16) if scan.stride < 2**16 else x  # sorted by radix
    return Corners(x, y, column, np.repeat(scan.inside, twice)[0::2], crossed)


def _polygons(scan: Scan, label: np.ndarray, corners: Corners, rings: Rings) -> np.ndarray:
    """A polygon per component, in the order of their numbers."""
    left = 2 * rings.top
    place = corners.y[left] * scan.stride + corners.x[left]
    component = component_at(
        scan, label, place - np.where(corners.below[rings.top], 0, scan.stride)
    )
    order = np.argsort(component, kind="stable")  # leaves the outer ring, the topmost, first
    return np.asarray(shapely.polygons(rings.lines[order], indices=component[order]))


def _measure(scan: Scan, label: np.ndarray, polygons: np.ndarray) -> Components:
    count = len(polygons)
    highest = np.zeros(count, np.float32)
    np.maximum.at(highest, label, scan.highest)
    pixels = np.bincount(label, weights=scan.ends - scan.starts, minlength=count)
    total = np.bincount(label, weights=scan.total, minlength=count)
    return Components(polygons, pixels.astype(np.int64), total, highest)


def _no_sides(shape: tuple[int, ...]) -> Sides:
    height, width = shape
    return Sides(*(np.zeros(length, np.int32) for length in (width, width, height, height)))


def _runs_at_sides(
    scan: Scan, mask: np.ndarray, inner: tuple[bool, bool, bool, bool]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For the top, bottom, left and right side: runs of set pixels there, and which pixels.

    One run per pixel; nothing for sides that are no inner ones.
    """
    found = []
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    height, width = mask.shape
    for side, (edge, is_inner) in enumerate(zip(edges, inner, strict=True)):
        pixels = np.flatnonzero(edge) if is_inner else np.empty(0, np.intp)
        place = (
            pixels,
            (height - 1) * scan.stride + pixels,
            pixels * scan.stride,
            pixels * scan.stride + width - 1,
        )[side]
        found.append((np.searchsorted(scan.starts, place, side="right") - 1, pixels))
    return found
