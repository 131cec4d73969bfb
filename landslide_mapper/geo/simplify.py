"""Outlines without staircases. Works in pixel units, on polygons whose edges follow pixel edges.

Douglas-Peucker alone cannot straighten a staircase within half a pixel, because its inner
corners are 0.71 pixel away from the line through the outer ones. So every corner is first cut
at the middle of its two edges' outermost pixel sides; then Douglas-Peucker takes what is left
of the tolerance.

Neighbours are never compared after the fact, so landslides may be simplified batch by batch. Let
polygon i move by at most t(i). Outlines that have had their corners cut are at least 0.707 apart;
while each moves on by less than half of that (t up to `SAFE_TOLERANCE`), they cannot meet. A
larger t(i) is given only when everything else is further away than 2 t(i). So take any two, and i
to be the one with the larger t: if t(i) is above `SAFE_TOLERANCE`, they are more than
2 t(i) >= t(i) + t(j) apart, and cannot meet either. Nor can one come to lie within the other: on
its way an outline would have to pass over the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely

from landslide_mapper.geo.grid import Frame

DEFAULT_TOLERANCE = 0.5  # pixels
_CUT = 0.5  # pixels along both edges of a corner; a unit edge shrinks to its midpoint
_CUT_DEVIATION = _CUT / math.sqrt(2)
# Two landslides that touch at a pixel corner are 2 × 0.354 apart once their corners are cut.
SAFE_TOLERANCE = 2 * _CUT_DEVIATION
_HAIR = 1 - 1e-6  # "less than half" in floating point
_SAME = 1e-6  # pixels: a unit edge that has been on the map and back is no exact one
_PIECE = 32  # edges; distances are measured between pieces of outlines, whose bounds are tight


def simplify(
    polygons: np.ndarray,
    tolerance: float,
    room: np.ndarray | None = None,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """Simplify valid pixel-edge `polygons` within `tolerance` pixels (0: as they are).

    No outline moves by more than the tolerance; every result is valid and a single polygon, and
    disjoint ones stay so (see above), whichever call they are simplified in. For that, polygons
    with others close by move less than a tolerance above `SAFE_TOLERANCE`.

    Args:
        polygons: (n,) shapely polygons, apart but for common corners.
        tolerance: in pixels.
        room: (n,) pixels between each polygon and the nearest place where there may be others
            that are not given here; by default there are none. With 0 a polygon is simplified
            within `SAFE_TOLERANCE` at most.
        beside: other polygons to keep away from, which are not simplified now.
    """
    if tolerance <= 0 or len(polygons) == 0:
        return polygons
    if tolerance <= SAFE_TOLERANCE:
        return _simplify(polygons, np.full(len(polygons), tolerance))
    near = room_between(polygons, tolerance, room, beside)
    return _simplify(polygons, np.clip(near / 2 * _HAIR, SAFE_TOLERANCE, tolerance))


def room_between(
    polygons: np.ndarray,
    tolerance: float,
    room: np.ndarray | None = None,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """Pixels between each polygon and the nearest other one, as far as `simplify` needs to know.

    The arguments are those of `simplify`; the result can be its `room` later on, when the
    neighbours are no longer at hand.
    """
    near = np.full(len(polygons), np.inf) if room is None else room
    if tolerance > SAFE_TOLERANCE and (near > 2 * SAFE_TOLERANCE).any():
        near = np.minimum(near, _nearest(polygons, beside, 2 * tolerance))
    return near


def room_inside(
    polygons: np.ndarray, frame: Frame, inner: tuple[bool, bool, bool, bool]
) -> np.ndarray:
    """Pixels between each of `polygons` and the nearest inner side of the block they lie in.

    `inner` says of the top, bottom, left and right side of the block, whose pixels are `frame`,
    whether the scene goes on there. Infinite where none is an inner one.
    """
    left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
    gaps = (top - frame.row, frame.bottom - bottom, left - frame.col, frame.right - right)
    room = np.full(len(polygons), np.inf)
    for gap, is_inner in zip(gaps, inner, strict=True):
        if is_inner:
            room = np.minimum(room, gap)
    return room


def _nearest(polygons: np.ndarray, beside: np.ndarray | None, reach: float) -> np.ndarray:
    """Distance of each polygon to the nearest other one or one of `beside`; inf beyond `reach`."""
    everything = polygons if beside is None else np.concatenate([polygons, beside])
    pieces, owner = _outline_pieces(everything)
    a, b = shapely.STRtree(pieces).query(pieces, predicate="dwithin", distance=reach)
    other = owner[a] < owner[b]
    a, b = a[other], b[other]
    distance = shapely.distance(pieces[a], pieces[b])
    near = np.full(len(everything), np.inf)
    np.minimum.at(near, owner[a], distance)
    np.minimum.at(near, owner[b], distance)
    return near[: len(polygons)]


def _outline_pieces(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outlines cut into lines of `_PIECE` edges at most, and the polygon each is of."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    first = np.searchsorted(ring, np.arange(len(rings)))
    joint = (np.arange(len(ring)) - first[ring]) % _PIECE == 0
    begins = joint & np.append(ring[1:] == ring[:-1], False)
    ends = begins.copy()  # where a piece begins, the one before it ends, unless the ring begins
    ends[first] = False
    piece = np.repeat(np.cumsum(begins) - 1, 1 + ends)
    piece[np.flatnonzero(ends) + np.arange(ends.sum())] -= 1
    lines = shapely.linestrings(np.repeat(points, 1 + ends, axis=0), indices=piece)
    return np.asarray(lines), owner[ring[begins]]


def _simplify(polygons: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Simplify each polygon within its tolerance: all the same, or none below `SAFE_TOLERANCE`."""
    cut = min(_CUT, float(tolerance.min()) * math.sqrt(2))
    rest = np.maximum(0.0, (tolerance - cut / math.sqrt(2)) * _HAIR)
    exact, owner = _chamfer(polygons, cut)
    # GEOS takes many times longer over polygons, where it looks for crossings; few have any.
    lines = shapely.simplify(exact, rest[owner], preserve_topology=False)
    bad = np.zeros(len(polygons), bool)
    bad[owner[shapely.get_num_coordinates(lines) < 4]] = True  # flat
    simple = _polygons(np.where(bad[owner], exact, lines), owner)
    bad |= ~shapely.is_valid(simple)
    if bad.any():
        again = bad[owner]
        chamfered = _polygons(exact[again], (np.cumsum(bad) - 1)[owner[again]])
        simple[bad] = _simplify_safely(chamfered, rest[bad])
        # Corners that another grid's pixels reach into cannot be cut.
        torn = np.flatnonzero(bad)[~shapely.is_valid(simple[bad])]
        simple[torn] = polygons[torn]
    return simple


def _simplify_safely(chamfered: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Simplify polygons within their tolerances; valid ones stay valid."""
    simple = shapely.simplify(chamfered, tolerance, preserve_topology=True)
    # GEOS may drop a ring's first vertex in a second step, which adds to the deviation.
    far = _strays(chamfered, simple, tolerance + 1e-9)
    simple[far] = shapely.simplify(chamfered[far], tolerance[far] / 2, preserve_topology=True)
    return np.asarray(simple)


def _strays(before: np.ndarray, after: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Whether a vertex of `before` is further than `tolerance` from the outline `after`."""
    outlines = shapely.boundary(after)
    shapely.prepare(outlines)
    points, owner = shapely.get_coordinates(before, return_index=True)
    reach: Any = tolerance[owner]  # shapely's stubs know of one number only
    near = shapely.dwithin(outlines[owner], shapely.points(points), reach)
    strays = np.zeros(len(before), dtype=bool)
    strays[owner[~near]] = True
    return strays


def _chamfer(polygons: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Replace every corner of every ring by two points, `cut` before and after it.

    On edges that are shorter than twice that, as another CRS may make them, the middle is taken.

    Returns the rings as closed lines, whose ends stay in place when they are simplified, and the
    polygon that each is of.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    corners, ring = shapely.get_coordinates(rings, return_index=True)
    last = np.append(ring[1:] != ring[:-1], True)  # a ring repeats its first point
    ahead = np.roll(corners, -1, axis=0)
    edge = ahead - corners
    length = np.maximum(np.hypot(*edge.T), 1e-300)[:, None]  # a ring's last point has no edge
    step = np.minimum(cut / length, 0.5) * edge
    points = np.empty((len(corners), 2, 2))
    points[:, 0] = corners + step
    points[:, 1] = ahead - step
    points[last, 0] = points[np.flatnonzero(np.append(True, last[:-1])), 0]
    # A unit edge has shrunk to its midpoint, which its two corners both gave.
    apart = (np.abs(points[:, 0] - points[:, 1]) > _SAME).any(axis=1)
    kept = np.stack([np.ones(len(corners), bool), apart], 1)
    kept[last, 1] = False
    return shapely.linestrings(points[kept], indices=np.repeat(ring, 2)[kept.ravel()]), owner


def _polygons(lines: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Polygons of closed lines, the shell first; `owner` counts from 0 without gaps."""
    points, ring = shapely.get_coordinates(lines, return_index=True)
    rings = np.asarray(shapely.linearrings(points, indices=ring))
    return np.asarray(shapely.polygons(rings, indices=owner))
