"""From components to landslides: which are kept, what shape they get, what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import pyproj
import shapely

from landslide_mapper.geo.crs import wgs84_transformer
from landslide_mapper.geo.measure import Measurer, inner_points, reproject, to_map
from landslide_mapper.geo.rasters import UNSEEN
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.simplify import DEFAULT_TOLERANCE, room_between, simplify
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


class Canvas(Protocol):
    """A mask that can be looked into and changed, inside polygons (n,) in pixels."""

    def holds(self, polygons: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Whether a pixel inside each polygon has one of `values`, as a bool array (n,)."""
        ...

    def burn(self, polygons: np.ndarray, value: int) -> None:
        """Give all pixels inside the polygons that were seen this value."""
        ...


@dataclass(frozen=True)
class Pieces:
    """Components that may go on in another scene: they wait, as they are, until that is known.

    `room` (n,) is how far off their neighbours in the scene are, in pixels: see `room_between`.
    """

    components: Components
    room: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence[Pieces]) -> Pieces:
        """All of `parts`, in their order; none is fine."""
        return cls(
            Components.concatenate([part.components for part in parts]),
            np.concatenate([np.empty(0), *(part.room for part in parts)]),
        )


class Shaped(NamedTuple):
    """Components (n,) that are kept, their outlines (n,) in pixels, and what has to wait."""

    components: Components
    outlines: np.ndarray
    pieces: Pieces


class Landslides:
    """Turns the components of one scene into polygons with attributes, batch by batch.

    `to_layer` leads from the scene's CRS to that of the layer; None: it is the same. What touches
    the `shared` ground, in pixels, may go on in another scene, and is not shaped.
    """

    def __init__(
        self,
        scene: Scene,
        shaping: Shaping,
        to_layer: pyproj.Transformer | None = None,
        shared: shapely.Geometry | None = None,
    ) -> None:
        self._scene = scene
        self._shaping = shaping
        self._to_layer = to_layer
        self._shared = shared
        shapely.prepare(shared)
        self._tolerance = shaping.in_pixels(scene)
        self._wgs84 = wgs84_transformer(scene.crs)
        self._measurer = Measurer(scene.crs, scene.transform, max(scene.gsd) if scene.gsd else None)

    def shape(
        self,
        components: Components,
        canvas: Canvas | None,
        room: np.ndarray | None = None,
        beside: np.ndarray | None = None,
    ) -> Shaped:
        """Leave out, fill and simplify, as was asked for; set aside what may not be whole.

        What is left out or filled changes on `canvas` as well, so that mask and polygons say the
        same. Filling holes needs it; None otherwise means that nobody asked for a mask. `room` and
        `beside` are what `simplify` takes: how far off each component's unknown neighbours are,
        in pixels, and known ones that are not shaped now.
        """
        aside = np.zeros(len(components), bool)
        if self._shared is not None:
            aside = np.asarray(shapely.intersects(components.polygons, self._shared))
        pieces = Pieces(components.where(aside), np.empty(0))
        if aside.any():
            near = room_between(components.polygons, self._tolerance, room, beside)
            pieces = Pieces(components.where(aside), near[aside])
            waiting = pieces.components.polygons
            beside = waiting if beside is None else np.concatenate([beside, waiting])
            components, room = components.where(~aside), None if room is None else room[~aside]
        large = self.sieve(components, canvas)
        components, room = components.where(large), None if room is None else room[large]
        return Shaped(*self.outline(components, canvas, room, beside), pieces)

    def sieve(self, components: Components, canvas: Canvas | None) -> np.ndarray:
        """Which components are large enough, bool (n,); the others vanish from `canvas`."""
        large = np.ones(len(components), bool)
        if self._shaping.min_area > 0 and len(components):
            # What cannot be measured (beyond the limb of a satellite's view) is not small.
            large = ~(self._measurer.area(components.polygons) < self._shaping.min_area)
            if canvas is not None:
                canvas.burn(components.polygons[~large], 0)
        return large

    def outline(
        self,
        components: Components,
        canvas: Canvas | None,
        room: np.ndarray | None = None,
        beside: np.ndarray | None = None,
    ) -> tuple[Components, np.ndarray]:
        """The components with small holes filled, and their outlines; see `shape`."""
        if self._shaping.fill_holes > 0:
            assert canvas is not None
            polygons = self._filled(components.polygons, canvas)
            components = replace(components, polygons=polygons)
        return components, simplify(components.polygons, self._tolerance, room, beside)

    def _filled(self, polygons: np.ndarray, canvas: Canvas) -> np.ndarray:
        """Fill small holes, unless they hold pixels that were not seen or another landslide."""
        pierced = np.flatnonzero(shapely.get_num_interior_rings(polygons))
        if len(pierced) == 0:
            return polygons
        rings, owner = shapely.get_rings(polygons[pierced], return_index=True)
        inner = np.flatnonzero(owner[1:] == owner[:-1]) + 1  # a polygon's first ring is no hole
        holes = np.asarray(shapely.polygons(rings[inner]))
        small = self._measurer.area(holes) < self._shaping.fill_holes
        inner, holes = inner[small], holes[small]
        empty = ~canvas.holds(holes, (1, UNSEEN))
        canvas.burn(holes[empty], 1)
        stays = np.ones(len(rings), dtype=bool)
        stays[inner[empty]] = False
        polygons = polygons.copy()
        polygons[pierced] = shapely.polygons(rings[stays], indices=owner[stays])
        return polygons

    def on_map(self, outlines: np.ndarray) -> np.ndarray:
        """Outlines in the layer's CRS."""
        placed = to_map(outlines, self._scene.transform)
        return reproject(placed, self._to_layer) if self._to_layer else placed

    def columns(self, components: Components, outlines: np.ndarray) -> dict[str, np.ndarray]:
        """What can be measured of each landslide, float64 (n,): numbers of `vector_formats.FIELDS`.

        The area is that of the mapped pixels; perimeter, length and width are the outline's.
        """
        measures = self._measurer.measure(outlines)
        lon, lat = inner_points(outlines, self._scene.transform, self._wgs84)
        return {
            "area_m2": self._measurer.area(components.polygons),
            "perimeter_m": measures.perimeter,
            "length_m": measures.length,
            "width_m": measures.width,
            "lon": lon,
            "lat": lat,
            "confidence": components.mean,
            "max_probability": components.highest.astype(np.float64),
        }
