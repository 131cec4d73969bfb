"""Rings of axis-aligned outlines, traced from their corners alone, all at once.

Along a pixel row the corners of outlines come in pairs, the two ends of a horizontal edge; so they
do along a pixel column. Following horizontal and vertical edges in turn closes every ring.
Coordinates are pixel corners: x = column, y = row, downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely


@dataclass(frozen=True)
class Corners:
    """Corners of outlines in the order of the rows they lie in, from left to right in each.

    Where two outlines, or one outline with itself, meet at a point (a pinch), there are two
    corners: first the one with the edge to the left, then the one with the edge to the right.
    Corners 2 i and 2 i + 1 are the ends of horizontal edge i.
    """

    x: np.ndarray  # int, (2 n,)
    y: np.ndarray  # int, (2 n,)
    column: np.ndarray  # int, (2 n,): equal for corners in one column, sorts the columns
    below: np.ndarray  # bool, (n,): the inside is below the edge, not above it
    crossed: np.ndarray  # bool, (2 n,): first corner of a pinch, and its vertical edge goes down


@dataclass(frozen=True)
class Rings:
    """Closed rings with the inside at their right hand (seen with y downwards).

    They are in the order of their topmost, then leftmost edges, and each starts with that edge.
    """

    lines: np.ndarray  # shapely linear rings, (m,)
    top: np.ndarray  # int, (m,): the horizontal edge that each starts with


def trace(corners: Corners, row: int = 0, col: int = 0) -> Rings:
    """Trace the rings that `corners` are the corners of, moved by `row` and `col`."""
    order, first = _cycles(_next_edges(corners))
    below = corners.below[order]
    points = np.empty((2 * len(order), 2))
    points[0::2, 0] = corners.x[2 * order + ~below]
    points[1::2, 0] = corners.x[2 * order + below]
    points[0::2, 1] = points[1::2, 1] = corners.y[2 * order]
    points += (col, row)
    length = np.diff(np.append(first, len(order)))
    ring = np.repeat(np.arange(len(first)), 2 * length)
    return Rings(np.asarray(shapely.linearrings(points, indices=ring)), order[first])


def _next_edges(corners: Corners) -> np.ndarray:
    """The horizontal edge that follows each, after the vertical edge between them."""
    down = np.argsort(corners.column, kind="stable")
    crossed = np.flatnonzero(corners.crossed[down])
    down[crossed], down[crossed + 1] = down[crossed + 1], down[crossed]
    other_end = np.empty(len(down), np.int32)
    other_end[down[0::2]] = down[1::2]
    other_end[down[1::2]] = down[0::2]
    # An edge with the inside below runs to the right, so that the inside is at the right hand.
    ends = np.arange(0, len(down), 2, dtype=np.int32) + corners.below
    following: np.ndarray = other_end[ends] >> 1
    return following


def _cycles(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cycles of the permutation `step`, one after the other.

    Each begins with its least node, and they are in the order of these. Returns the nodes and
    where in them each cycle begins.
    """
    nodes = np.arange(len(step), dtype=np.int32)
    anchor, place = _ranks(step, np.ones(len(step), np.int32))
    least = np.empty(len(step), np.int32)
    least[anchor[::-1]] = nodes[::-1]  # the last one written stays: the least
    least = least[anchor]
    length = np.bincount(least, minlength=len(step))
    begin = np.cumsum(length) - length  # of the cycle whose least node it is
    place -= place[least]
    place += np.where(place < 0, length[least], 0).astype(np.int32)
    order = np.empty(len(step), np.int32)
    order[begin[least] + place] = nodes
    return order, begin[length > 0]


def _ranks(step: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every node a node of its cycle, the same for all, and the weight between that and it.

    About a third of the nodes are heads. From all of them at once one walks on to the next head;
    the stretches become the nodes of a smaller permutation, which is ranked in the same way.
    """
    head = _heads(step)
    heads = np.flatnonzero(head).astype(np.int32)
    stretch = np.empty(len(step), np.int32)  # that a node is in
    place = np.empty(len(step), np.int32)  # weight between the stretch's head and the node
    onward = np.empty(len(heads), np.int32)  # the stretch that follows
    extent = np.zeros(len(heads), np.int32)
    at, walkers = heads, np.arange(len(heads), dtype=np.int32)
    stretch[heads] = walkers
    while len(walkers):
        stretch[at] = walkers
        place[at] = extent[walkers]
        extent[walkers] += weight[at]
        at = step[at]
        arrived = head[at]
        onward[walkers[arrived]] = stretch[at[arrived]]
        at, walkers = at[~arrived], walkers[~arrived]
    anchor, offset = np.arange(len(heads), dtype=np.int32), np.zeros(len(heads), np.int32)
    left = np.flatnonzero(onward != anchor)  # the others are whole cycles
    if len(left):
        number = np.empty(len(heads), np.int32)
        number[left] = np.arange(len(left))
        inner, offset[left] = _ranks(number[onward[left]], extent[left])
        anchor[left] = left[inner]
    return heads[anchor[stretch]], offset[stretch] + place


def _heads(step: np.ndarray) -> np.ndarray:
    """Nodes whose scrambled number is less than that of both neighbours, and lone nodes.

    Every cycle has one, and because neighbours' numbers have nothing to do with each other, the
    next one is never more than a few steps away.
    """
    key = np.arange(len(step), dtype=np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):  # one to one: no two keys are equal
        key ^= key >> np.uint32(shift)
        key *= np.uint32(factor)
    key ^= key >> np.uint32(16)
    rises = key < key[step]
    head = np.empty(len(step), bool)
    head[step] = ~rises
    head &= rises
    head |= step == np.arange(len(step))
    return head


def unite(pieces: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """One polygon per owner from `pieces`, pixel-edge polygons without collinear vertices.

    Those of one owner hang together by edges and do not overlap. `owner` is sorted and names all
    of 0, 1, ... up to the last.

    Around a pixel corner let d be upper left - upper right - lower left + lower right, counting
    1 for inside. It is 1 or -1 at a corner of an outline, 2 or -2 at a pinch, else 0; and the
    union's is the sum of the pieces'. So edges need not be looked at.
    """
    x, y, difference, own = _differences(pieces, owner)
    order = np.lexsort((x, y, own))
    x, y, own = x[order], y[order], own[order]
    same = (x[1:] == x[:-1]) & (y[1:] == y[:-1]) & (own[1:] == own[:-1])
    first = np.flatnonzero(np.append(True, ~same))
    summed = np.add.reduceat(difference[order], first)
    first, summed = first[summed != 0], summed[summed != 0]
    twice = np.abs(summed)
    # All is one component, so outlines pass between the diagonal pixels of a pinch.
    crossed = np.zeros(twice.sum(), bool)
    crossed[(np.cumsum(twice) - twice)[summed == 2]] = True
    kept = np.repeat(first, twice)
    x, y, own = x[kept], y[kept], own[kept]
    column = own.astype(np.int64) * (int(np.ptp(x)) + 1) + (x - x.min())
    rings = trace(Corners(x, y, column, (np.repeat(summed, twice) > 0)[0::2], crossed))
    return np.asarray(shapely.polygons(rings.lines, indices=own[2 * rings.top]))


def _differences(
    pieces: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, difference (see `unite`) and owner of every corner of the pieces."""
    rings, piece = shapely.get_rings(pieces, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = points.astype(np.int64)
    kept = np.append(ring[1:] == ring[:-1], False)  # a ring repeats its first point
    leaves_level = np.append(points[1:, 1] == points[:-1, 1], False)[kept]
    outer = np.append(True, piece[1:] != piece[:-1])
    # With the inside at the right hand, 1 where a horizontal edge begins and -1 where it ends.
    turned = shapely.is_ccw(rings) != outer
    difference = np.where(leaves_level != turned[ring[kept]], 1, -1)
    x, y = points[kept].T
    return x, y, difference, owner[piece[ring[kept]]]
