"""One landslide that several scenes show is one landslide of the layer.

Where scenes overlap or lie side by side, polygons of different scenes that overlap or share an
edge are put together; polygons of one scene never are, for they are apart already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine

from landslide_mapper.geo.crs import unit_metres, wgs84_transformer
from landslide_mapper.geo.features import outline_columns
from landslide_mapper.geo.measure import Measurer
from landslide_mapper.geo.scan import link

# Of a pixel: so much may be between two polygons that share an edge, because scenes in different
# CRS, or moved by parts of a pixel, never meet exactly.
SLACK = 1 / 20
# Of a pixel: so long is an edge that is shared, at least.
SHARED = 1 / 2

Columns = dict[str, np.ndarray]


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


class Merger:
    """Lets polygons through, but holds back those that another scene may show as well.

    `footprints` are the outlines of all scenes in the CRS of the layer, `pixel` is the side of
    a pixel in its units. The order of what comes out follows the order of what came in.
    """

    def __init__(
        self, footprints: Sequence[shapely.Polygon], pixel: float, layer_crs: pyproj.CRS | None
    ) -> None:
        self._pixel = pixel
        self._crs = layer_crs
        self._slack = SLACK * pixel
        self._others = neighbours(footprints, self._slack)
        self._scenes: list[np.ndarray] = []
        self._polygons: list[np.ndarray] = []
        self._columns: list[Columns] = []

    def add(
        self, scene: int, polygons: np.ndarray, columns: Mapping[str, Any]
    ) -> tuple[np.ndarray, Columns]:
        """Take polygons (n,) of a scene; returns those that no other scene can show.

        `columns` has an array (n,), or one value for all, under each name of `vectors.FIELDS`
        but ``id`` and ``review``; the scene's is a text.
        """
        table = {
            name: values if isinstance(values, np.ndarray) else np.full(len(polygons), values, "O")
            for name, values in columns.items()
        }
        others = self._others[scene]
        if others is None or len(polygons) == 0:
            return polygons, table
        held = shapely.dwithin(polygons, others, self._slack)
        if held.any():
            self._scenes.append(np.full(int(held.sum()), scene))
            self._polygons.append(polygons[held])
            self._columns.append({name: values[held] for name, values in table.items()})
        return polygons[~held], {name: values[~held] for name, values in table.items()}

    def finish(self) -> tuple[np.ndarray, Columns]:
        """What was held back, put together."""
        if not self._polygons:
            return np.empty(0, dtype=object), {}
        polygons, scenes = np.concatenate(self._polygons), np.concatenate(self._scenes)
        columns = {
            name: np.concatenate([part[name] for part in self._columns])
            for name in self._columns[0]
        }
        self._polygons, self._scenes, self._columns = [], [], []
        groups = _groups(len(polygons), self._pairs(polygons, scenes))
        alone = np.array([group[0] for group in groups if len(group) == 1], dtype=int)
        together = [
            (piece, group)
            for group in groups
            if len(group) > 1
            for piece in self._union(polygons[group])
        ]
        if not together:
            return polygons[alone], {name: values[alone] for name, values in columns.items()}
        unions = np.array([piece for piece, _ in together], dtype=object)
        merged = self._described(unions, [group for _, group in together], polygons, columns)
        # Each group comes where its first polygon would have come.
        order = np.argsort(
            np.concatenate([alone, [group[0] for _, group in together]]), kind="stable"
        )
        table = {
            name: np.concatenate([values[alone], merged[name]])[order]
            for name, values in columns.items()
        }
        return np.concatenate([polygons[alone], unions])[order], table

    def _pairs(self, polygons: np.ndarray, scenes: np.ndarray) -> np.ndarray:
        """Pairs (k, 2) of polygons of different scenes that overlap or share an edge."""
        tree = shapely.STRtree(polygons)
        a, b = tree.query(polygons, predicate="dwithin", distance=self._slack)
        other = (a < b) & (scenes[a] != scenes[b])
        a, b = a[other], b[other]
        near, place = np.unique(np.concatenate([a, b]), return_inverse=True)
        grown = _grown(polygons[near], self._slack / 2)
        common = shapely.intersection(grown[place[: len(a)]], grown[place[len(a) :]])
        # Grown by half the slack each, they overlap along a shared edge in a band as wide as the
        # slack, at a mere corner in a square of that side.
        parts, pair = shapely.get_parts(common, return_index=True)
        meet = np.unique(pair[shapely.area(parts) > SHARED * self._pixel * self._slack])
        return np.stack([a[meet], b[meet]], axis=1)

    def _union(self, polygons: np.ndarray) -> list[shapely.Polygon]:
        """Valid polygons, nearly always one, that cover what the given ones cover."""
        polygons = shapely.make_valid(polygons)  # another CRS may have folded one
        union = shapely.union_all(polygons)
        if not isinstance(union, shapely.Polygon):
            # Slits narrower than the slack are between them: close those.
            grown = _grown(polygons, self._slack / 2)
            union = _grown(shapely.union_all(grown), -self._slack / 2)
        parts = shapely.get_parts(union)
        return [self._tidy(part) for part in parts[shapely.area(parts) > 0]]

    def _tidy(self, polygon: shapely.Polygon) -> shapely.Polygon:
        """Without slits between what was put together, and without points on straight edges."""
        holes = [
            hole
            for hole in polygon.interiors
            if not _grown(shapely.Polygon(hole), -self._slack / 2).is_empty
        ]
        whole = shapely.Polygon(polygon.exterior, holes)
        tidy = shapely.simplify(whole, 1e-6 * self._pixel, preserve_topology=True)
        return shapely.orient_polygons(tidy if tidy.is_valid else whole)

    def _described(
        self,
        unions: np.ndarray,
        groups: list[np.ndarray],
        polygons: np.ndarray,
        columns: Columns,
    ) -> Columns:
        """The columns of what was put together, measured anew on the outlines in the layer."""
        measurer = Measurer(self._crs, Affine.identity(), unit_metres(self._crs))
        weight = np.asarray(shapely.area(polygons))
        mean, highest = columns["confidence"], columns["max_probability"]
        found = {
            "area_m2": measurer.area(unions),
            **outline_columns(measurer, unions, Affine.identity(), wgs84_transformer(self._crs)),
            "confidence": np.array([np.average(mean[g], weights=weight[g]) for g in groups]),
            "max_probability": np.array([highest[group].max() for group in groups]),
            "scene": np.array(
                [", ".join(dict.fromkeys(columns["scene"][group])) for group in groups], dtype="O"
            ),
        }
        first = np.array([group[0] for group in groups])
        return {name: found.get(name, values[first]) for name, values in columns.items()}


def _grown(polygons: Any, distance: float) -> Any:
    return shapely.buffer(polygons, distance, join_style="mitre", quad_segs=1)


def _groups(count: int, pairs: np.ndarray) -> list[np.ndarray]:
    """Items that hang together by `pairs`, each group and the groups in ascending order."""
    first = np.arange(count)  # of its group, for each item
    link(first, *pairs.T)
    order = np.argsort(first, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
