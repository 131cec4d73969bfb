"""Outlines without staircases. Works in pixel units, on polygons whose edges follow pixel edges.

Douglas-Peucker alone cannot straighten a staircase within half a pixel, because its inner
corners are 0.71 pixel away from the line through the outer ones. So every corner is first cut
at the middle of its two edges' outermost pixel sides; then Douglas-Peucker takes what is left
of the tolerance.
"""

from __future__ import annotations

import math

import numpy as np
import shapely

DEFAULT_TOLERANCE = 0.5  # pixels
_CUT = 0.5  # pixels along both edges of a corner; a unit edge shrinks to its midpoint
_CUT_DEVIATION = _CUT / math.sqrt(2)
# Two landslides that touch at a pixel corner are 2 × 0.354 apart once their corners are cut.
# While Douglas-Peucker moves each by less than half of that, they cannot meet.
SAFE_TOLERANCE = 2 * _CUT_DEVIATION


def simplify(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify valid pixel-edge `polygons` within `tolerance` pixels (0: as they are).

    No outline moves by more than the tolerance; every result is valid and a single polygon.
    Up to `SAFE_TOLERANCE` neighbours cannot come to overlap; above it, those of `polygons`
    that would overlap are simplified with `SAFE_TOLERANCE` instead.
    """
    if tolerance <= 0 or len(polygons) == 0:
        return polygons
    simple = _simplify(polygons, tolerance)
    safe = np.full(len(polygons), tolerance <= SAFE_TOLERANCE)
    while not safe.all():
        # One that is put back can meet a neighbour that was fine before, so look again.
        clash = _overlapping(simple) & ~safe
        if not clash.any():
            break
        simple[clash] = _simplify(polygons[clash], SAFE_TOLERANCE)
        safe |= clash
    return simple


def _simplify(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    cut = min(_CUT, tolerance * math.sqrt(2))
    chamfered = _chamfer(polygons, cut)
    rest = max(0.0, tolerance - cut / math.sqrt(2))
    simple = shapely.simplify(chamfered, rest, preserve_topology=True)
    # GEOS may drop a ring's first vertex in a second step, which adds to the deviation.
    far = _strays(chamfered, simple, rest + 1e-9)
    simple[far] = shapely.simplify(chamfered[far], rest / 2, preserve_topology=True)
    good = (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON) & shapely.is_valid(simple)
    simple[~good] = chamfered[~good]
    return simple


def _strays(before: np.ndarray, after: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether a vertex of `before` is further than `tolerance` from the outline `after`."""
    outlines = shapely.boundary(after)
    shapely.prepare(outlines)
    points, owner = shapely.get_coordinates(before, return_index=True)
    near = shapely.dwithin(outlines[owner], shapely.points(points), tolerance)
    strays = np.zeros(len(before), dtype=bool)
    strays[owner[~near]] = True
    return strays


def _chamfer(polygons: np.ndarray, cut: float) -> np.ndarray:
    """Replace every corner of every ring by two points, `cut` before and after it."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    open_end = np.append(ring[1:] == ring[:-1], False)  # a ring repeats its first point
    corners, ring = corners[open_end], ring[open_end]
    first = np.unique(ring, return_index=True)[1]
    last = np.append(first[1:], len(ring)) - 1
    ahead = _shift(corners, first, last, 1) - corners
    step = cut * ahead / np.abs(ahead).sum(axis=1, keepdims=True)  # edges are axis-aligned
    points = np.empty((2 * len(corners), 2))
    points[0::2] = corners - _shift(step, first, last, -1)
    points[1::2] = corners + step
    # A unit edge has shrunk to its midpoint, which its two corners both gave.
    moved = (points != _shift(points, 2 * first, 2 * last + 1, -1)).any(axis=1)
    cut_rings = shapely.linearrings(points[moved], indices=np.repeat(ring, 2)[moved])
    return np.asarray(shapely.polygons(cut_rings, indices=owner))


def _shift(values: np.ndarray, first: np.ndarray, last: np.ndarray, by: int) -> np.ndarray:
    """The next (`by` 1) or previous (-1) row of each row, around each ring from first to last."""
    index = np.arange(len(values)) + by
    if by > 0:
        index[last] = first
    else:
        index[first] = last
    return values[index]


def _overlapping(polygons: np.ndarray) -> np.ndarray:
    """Which of the polygons share area or a border with another, as a bool array."""
    tree = shapely.STRtree(polygons)
    a, b = tree.query(polygons, predicate="intersects")
    found = np.zeros(len(polygons), dtype=bool)
    found[a[a != b]] = True
    return found
