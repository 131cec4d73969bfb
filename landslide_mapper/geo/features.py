"""From components to landslides: which are kept, what shape they get, what is said of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import shapely

from landslide_mapper.geo.measure import (
    Measurer,
    inner_points,
    reproject,
    to_map,
    wgs84_transformer,
)
from landslide_mapper.geo.rasters import UNSEEN, StripRaster
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.simplify import DEFAULT_TOLERANCE, simplify
from landslide_mapper.geo.vectorize import Components


@dataclass(frozen=True)
class Shaping:
    """What is asked of the outlines. Areas in m², the tolerance in metres."""

    min_area: float = 0.0  # smaller landslides are left out
    fill_holes: float = 0.0  # smaller holes are filled
    tolerance: float | None = None  # of the simplification; None: half a pixel

    def in_pixels(self, scene: Scene) -> float:
        """The tolerance in pixels of `scene`, in its coarser direction."""
        if self.tolerance is None:
            return DEFAULT_TOLERANCE
        return self.tolerance / max(scene.gsd) if scene.gsd else 0.0


class Landslides:
    """Turns the components of one scene into polygons with attributes, batch by batch.

    `mask` is the scene's mask as written so far; what is left out or filled changes there as
    well, so that mask and polygons say the same. Filling holes needs it; None otherwise means
    that nobody asked for a mask.
    """

    def __init__(
        self,
        scene: Scene,
        shaping: Shaping,
        mask: StripRaster | None,
        to_layer: pyproj.Transformer | None,
    ) -> None:
        self._scene = scene
        self._shaping = shaping
        self._mask = mask
        self._to_layer = to_layer  # None: the layer has the scene's CRS
        self._tolerance = shaping.in_pixels(scene)
        self._wgs84 = wgs84_transformer(scene.crs)
        self._measurer = Measurer(scene.crs, scene.transform, max(scene.gsd) if scene.gsd else None)

    def shape(self, components: Components) -> tuple[Components, np.ndarray]:
        """The components that are kept, and their simplified outlines, both in pixels."""
        if self._shaping.min_area > 0:
            components = self._sieve(components)
        if self._shaping.fill_holes > 0:
            components = self._fill(components)
        return components, simplify(components.polygons, self._tolerance)

    def _sieve(self, components: Components) -> Components:
        small = self._measurer.area(components.polygons) < self._shaping.min_area
        if self._mask is not None:
            for polygon in components.polygons[small]:
                self._mask.burn(polygon, 0)
        return components.where(~small)

    def _fill(self, components: Components) -> Components:
        """Fill small holes, unless they hold pixels that were not seen or another landslide."""
        assert self._mask is not None
        polygons = components.polygons.copy()
        for index in np.flatnonzero(shapely.get_num_interior_rings(polygons)):
            holes = np.array([shapely.Polygon(ring) for ring in polygons[index].interiors])
            keep = []
            small = self._measurer.area(holes) < self._shaping.fill_holes
            for hole, fits in zip(holes, small, strict=True):
                if fits and not np.isin(self._mask.inside(hole), (1, UNSEEN)).any():
                    self._mask.burn(hole, 1)
                else:
                    keep.append(hole.exterior)
            polygons[index] = shapely.Polygon(polygons[index].exterior, keep)
        return Components(polygons, components.pixels, components.total, components.highest)

    def on_map(self, outlines: np.ndarray) -> np.ndarray:
        """Outlines in the layer's CRS."""
        placed = to_map(outlines, self._scene.transform)
        return reproject(placed, self._to_layer) if self._to_layer else placed

    def attributes(
        self, components: Components, outlines: np.ndarray, model: str
    ) -> Iterator[dict[str, Any]]:
        """One row per landslide, all of `vectors.FIELDS` but ``id``.

        The area is that of the mapped pixels; perimeter, length and width are the outline's.
        """
        measures = self._measurer.measure(outlines)
        area = self._measurer.area(components.polygons)
        lon, lat = inner_points(outlines, self._scene.transform, self._wgs84)
        for index, mean in enumerate(components.mean):
            yield {
                "area_m2": float(area[index]),
                "perimeter_m": float(measures.perimeter[index]),
                "length_m": float(measures.length[index]),
                "width_m": float(measures.width[index]),
                "confidence": float(mean),
                "max_probability": float(components.highest[index]),
                "lon": float(lon[index]),
                "lat": float(lat[index]),
                "scene": self._scene.name,
                "model": model,
                "review": None,
            }
