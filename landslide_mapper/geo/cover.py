"""Which pixels lie inside polygons whose edges follow pixel edges. Pure arithmetic on arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely

_POINTS = 200_000  # of polygons that are worked on together
_PIXELS = 1_000_000  # that are handed out together, about


def covered(polygons: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Every pixel inside `polygons` (n,), as index of its polygon, row and column.

    Polygons are valid and in pixel coordinates (x = column). The pixels come in bounded portions,
    polygon by polygon, row by row.
    """
    for first, last in _portions(shapely.get_num_coordinates(polygons), _POINTS):
        owner, row, start, stop = _runs(polygons[first:last])
        lengths = stop - start
        for begin, end in _portions(lengths, _PIXELS):
            times = lengths[begin:end]
            before = np.cumsum(times) - times
            col = np.arange(times.sum()) + np.repeat(start[begin:end] - before, times)
            yield (
                np.repeat(owner[begin:end] + first, times),
                np.repeat(row[begin:end], times),
                col,
            )


def _portions(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Slices of items that are together about `limit` in size."""
    share = np.cumsum(sizes) // limit
    first = 0
    for end in (np.flatnonzero(np.diff(share, append=-1)) + 1).tolist():
        yield first, end
        first = end


def _runs(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Polygon, row, first column and column after the last of each run of pixels inside."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    x, y = np.rint(points).astype(np.int64).T
    upright = np.flatnonzero((ring[1:] == ring[:-1]) & (x[1:] == x[:-1]) & (y[1:] != y[:-1]))
    top, bottom = np.minimum(y[upright], y[upright + 1]), np.maximum(y[upright], y[upright + 1])
    times = bottom - top
    side = np.repeat(upright, times)
    row = np.arange(len(side)) + np.repeat(top - (np.cumsum(times) - times), times)
    whose = owner[ring[side]]
    # Along a row, every upright edge leads in or out of the polygon.
    order = np.lexsort((x[side], row, whose))
    start, stop = x[side[order]].reshape(-1, 2).T
    return whose[order[::2]], row[order[::2]], start, stop
