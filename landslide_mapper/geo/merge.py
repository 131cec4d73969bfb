"""One landslide that several scenes show is one landslide of the layer.

Where scenes overlap or lie side by side, polygons of different scenes that overlap or share an
edge are put together; polygons of one scene never are, for they are apart already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely

from landslide_mapper.geo.scan import link

# Of a pixel: so much may be between two polygons that share an edge, because scenes in different
# CRS, or moved by parts of a pixel, never meet exactly.
SLACK = 1 / 20
# Of a pixel: so long is an edge that is shared, at least.
SHARED = 1 / 2


def neighbours(footprints: Sequence[shapely.Polygon], distance: float) -> list[Any]:
    """For each footprint, the others within a distance, as one prepared geometry, or None."""
    shapes = np.array(footprints, dtype=object)
    one, other = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=distance)
    apart = one != other
    one, other = one[apart], other[apart]
    found: list[Any] = [None] * len(shapes)
    for index in np.unique(one):
        found[index] = shapely.union_all(shapes[other[one == index]])
        shapely.prepare(found[index])
    return found


def groups(polygons: np.ndarray, scenes: np.ndarray, pixel: float) -> list[np.ndarray]:
    """Which polygons show the same landslide.

    Args:
        polygons: (n,), valid, all in the CRS of the layer.
        scenes: (n,) the scene that each is of.
        pixel: side of a pixel in units of the layer.

    Returns:
        Indices of each group in ascending order, and so are the groups by their first.
    """
    first = np.arange(len(polygons))  # of its group, for each
    link(first, *_pairs(polygons, scenes, pixel))
    order = np.argsort(first, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(first[order])) + 1) if len(order) else []


def _pairs(polygons: np.ndarray, scenes: np.ndarray, pixel: float) -> tuple[np.ndarray, np.ndarray]:
    """Polygons of different scenes that overlap or share an edge, two by two."""
    slack = SLACK * pixel
    a, b = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=slack)
    other = (a < b) & (scenes[a] != scenes[b])
    a, b = a[other], b[other]
    near, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    grown = _grown(polygons[near], slack / 2)
    common = shapely.intersection(grown[place[: len(a)]], grown[place[len(a) :]])
    # Grown by half the slack each, they overlap along a shared edge in a band as wide as the
    # slack, at a mere corner in a square of that side.
    parts, pair = shapely.get_parts(common, return_index=True)
    meet = np.unique(pair[shapely.area(parts) > SHARED * pixel * slack])
    return a[meet], b[meet]


def union(polygons: np.ndarray, pixel: float) -> list[shapely.Polygon]:
    """Valid polygons, nearly always one, that cover what those of a group cover."""
    slack = SLACK * pixel
    polygons = shapely.make_valid(polygons)  # another CRS may have folded one
    together = shapely.union_all(polygons)
    if not isinstance(together, shapely.Polygon):
        # Slits narrower than the slack are between them: close those.
        grown = _grown(polygons, slack / 2)
        together = _grown(shapely.union_all(grown), -slack / 2)
    parts = shapely.get_parts(together)
    return [_tidy(part, pixel) for part in parts[shapely.area(parts) > 0]]


def _tidy(polygon: shapely.Polygon, pixel: float) -> shapely.Polygon:
    """Without slits between what was put together, and without points on straight edges."""
    holes = [
        hole
        for hole in polygon.interiors
        if not _grown(shapely.Polygon(hole), -SLACK * pixel / 2).is_empty
    ]
    whole = shapely.Polygon(polygon.exterior, holes)
    tidy = shapely.simplify(whole, 1e-6 * pixel, preserve_topology=True)
    return shapely.orient_polygons(tidy if tidy.is_valid else whole)


def _grown(polygons: Any, distance: float) -> Any:
    return shapely.buffer(polygons, distance, join_style="mitre", quad_segs=1)
