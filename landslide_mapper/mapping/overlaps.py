"""Landslides where scenes overlap or adjoin: put together first, then filtered and shaped.

Pieces wait here, outlined by their pixels' edges in the CRS of the layer, until the last scene
has passed. What they make together is brought into the pixels of the scene of its first piece and
treated there like any landslide of that scene; only that its mask is those of all scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import shapely

from landslide_mapper.geo import merge
from landslide_mapper.geo.crs import Move, mover, same_crs, transformer
from landslide_mapper.geo.features import Landslides, Pieces, Shaping
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.rasters import UNSEEN, StripRaster, pixels_inside
from landslide_mapper.geo.simplify import SAFE_TOLERANCE
from landslide_mapper.geo.vectorize import Components
from landslide_mapper.mapping.plan import ScenePlan, smallest_pixel

# Outlines (n,) in the CRS of the layer, what is said of each, and the scenes that show each.
Landslide = tuple[np.ndarray, dict[str, np.ndarray], list[list[int]]]


@dataclass(frozen=True)
class _Wholes:
    """What pieces made together, n of them; one of their scenes, the home, is worked in."""

    components: Components  # polygons in the CRS of the layer; pixels count as square metres
    room: np.ndarray  # see `Pieces`, but in metres
    scenes: list[list[int]]  # that show it, the home first

    @property
    def home(self) -> np.ndarray:
        """Number of the scene that each is worked in."""
        return np.array([scenes[0] for scenes in self.scenes], dtype=int)

    def where(self, chosen: np.ndarray) -> _Wholes:
        """Those that `chosen` (bool) names."""
        scenes = list(compress(self.scenes, chosen.tolist()))
        return _Wholes(self.components.where(chosen), self.room[chosen], scenes)


@dataclass(frozen=True)
class _Shaped:
    """Landslides of one home, n of them."""

    home: int
    components: Components  # polygons in pixels of the home
    outlines: np.ndarray  # simplified, in pixels of the home
    placed: np.ndarray  # the same in the CRS of the layer
    exact: np.ndarray  # along the pixels' edges, in the CRS of the layer
    scenes: list[list[int]]  # that show each


class Overlaps:
    """Collects the pieces of all scenes and hands out the landslides that they make."""

    def __init__(self, plans: Sequence[ScenePlan], shaping: Shaping) -> None:
        self._plans = plans
        self._shaping = shaping
        self._pixel = smallest_pixel(plans)
        # Where there are no metres, sizes in pixels are compared.
        self._sizes = np.array([max(plan.scene.gsd or (1.0,)) for plan in plans])
        self._scenes = {
            number: Landslides(plan.scene, shaping, plan.to_layer)
            for number, plan in enumerate(plans)
            if plan.shared is not None
        }
        self._pieces: list[Pieces] = []
        self._placed: list[np.ndarray] = []
        self._numbers: list[np.ndarray] = []

    def add(self, number: int, pieces: Pieces) -> None:
        """Take pieces of the scene of this number; their polygons are in its pixels."""
        if len(pieces.room):
            self._placed.append(self._scenes[number].on_map(pieces.components.polygons))
            self._numbers.append(np.full(len(pieces.room), number))
            self._pieces.append(pieces)

    def landslides(self, mask: Callable[[int], Path] | None) -> Iterator[Landslide]:
        """The landslides, batch by batch, filtered and shaped.

        `mask` names the mask raster of each scene, which what is left out and filled is changed
        in; None: there are none.

        Raises:
            OSError: a mask cannot be written.
        """
        if not self._pieces:
            return
        wholes = self._together()
        if self._shaping.min_area > 0:
            # First all that is left out, which may lie in a hole of what is kept.
            wholes = wholes.where(self._large(wholes, mask))
        shaped = list[_Shaped]()
        for number in np.unique(wholes.home).tolist():
            mine = wholes.home == number
            shaped.append(self._shape(number, wholes.where(mine), wholes.where(~mine), mask))
        if not shaped:
            return
        exact = np.concatenate([one.exact for one in shaped])
        placed = _apart(np.concatenate([one.placed for one in shaped]), exact)
        for one in shaped:
            mine, placed = placed[: len(one.exact)], placed[len(one.exact) :]
            outlines = np.where(mine == one.exact, one.components.polygons, one.outlines)
            yield mine, self._scenes[one.home].columns(one.components, outlines), one.scenes

    def _together(self) -> _Wholes:
        """Put the pieces of each landslide together."""
        pieces = Pieces.concatenate(self._pieces)
        placed, scenes = np.concatenate(self._placed), np.concatenate(self._numbers)
        size = self._sizes[scenes]
        groups = merge.groups(placed, scenes, self._pixel)
        first = np.cumsum([0, *map(len, groups)])[:-1]
        order = np.concatenate(groups)
        area = (pieces.components.pixels * size**2)[order]
        united = [
            merge.union(placed[group], self._pixel) if len(group) > 1 else [placed[group[0]]]
            for group in groups
        ]
        shown = [list(dict.fromkeys(scenes[group].tolist())) for group in groups]
        owner = np.repeat(np.arange(len(groups)), [len(parts) for parts in united])
        components = Components(
            np.array([part for parts in united for part in parts], dtype=object),
            np.add.reduceat(area, first)[owner],
            np.add.reduceat(pieces.components.mean[order] * area, first)[owner],
            np.maximum.reduceat(pieces.components.highest[order], first)[owner],
        )
        room = np.minimum.reduceat((pieces.room * size)[order], first)
        return _Wholes(components, room[owner], [shown[group] for group in owner.tolist()])

    def _large(self, wholes: _Wholes, mask: Callable[[int], Path] | None) -> np.ndarray:
        """Which are not left out, bool (n,); the others vanish from the masks."""
        large = np.ones(len(wholes.scenes), bool)
        for number in np.unique(wholes.home).tolist():
            mine = wholes.home == number
            with self._canvas(number, wholes.where(mine), mask) as canvas:
                components = self._at_home(number, wholes.where(mine))
                large[mine] = self._scenes[number].sieve(components, canvas)
        return large

    def in_pixels(self, number: int, polygons: np.ndarray) -> np.ndarray:
        """Polygons (n,) in the CRS of the layer, in pixels of the scene of this number."""
        return np.asarray(shapely.transform(polygons, _way(None, self._plans[number])))

    def _at_home(self, number: int, wholes: _Wholes) -> Components:
        """The components in pixels of a scene."""
        polygons = self.in_pixels(number, wholes.components.polygons)
        return replace(wholes.components, polygons=polygons)

    @contextmanager
    def _canvas(
        self, number: int, wholes: _Wholes, mask: Callable[[int], Path] | None
    ) -> Iterator[_Masks | None]:
        """All masks that these reach into, in the pixels of a scene."""
        if mask is None:
            yield None
            return
        outlines = np.array([plan.footprint for plan in self._plans])
        tree = shapely.STRtree(outlines)
        # A scene whose bounds alone are touched may lie apart, and its mask be finished and gone.
        touched = np.unique(tree.query(wholes.components.polygons, predicate="intersects")[1])
        plans = {index: self._plans[index] for index in touched.tolist()}
        with ExitStack() as stack:
            yield _Masks(
                [
                    (
                        _way(self._plans[number], plan),
                        stack.enter_context(StripRaster(mask(index), None, plan.frame)),
                    )
                    for index, plan in plans.items()
                ]
            )

    def _shape(
        self, number: int, mine: _Wholes, others: _Wholes, mask: Callable[[int], Path] | None
    ) -> _Shaped:
        landslides, plan = self._scenes[number], self._plans[number]
        components, beside = self._at_home(number, mine), None
        if self._shaping.in_pixels(plan.scene) > SAFE_TOLERANCE:
            near = shapely.intersects(others.components.polygons, plan.footprint)
            beside = self._at_home(number, others.where(near)).polygons
        room = mine.room / self._sizes[number]
        with self._canvas(number, mine, mask if self._shaping.fill_holes > 0 else None) as canvas:
            kept, outlines = landslides.outline(components, canvas, room, beside)
        # On the way through the pixels coordinates are rounded, and neighbours would overlap.
        exact = _filled_alike(mine.components.polygons, components.polygons, kept.polygons)
        placed = np.where(outlines == kept.polygons, exact, landslides.on_map(outlines))
        return _Shaped(number, kept, outlines, placed, exact, mine.scenes)


def _filled_alike(polygons: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`polygons` without the holes that those in `before` have lost in `after`."""
    polygons = polygons.copy()
    rings = shapely.get_num_interior_rings
    for index in np.flatnonzero(rings(before) != rings(after)):
        left = {hole.wkb for hole in after[index].interiors}
        pairs = zip(polygons[index].interiors, before[index].interiors, strict=True)
        holes = [hole for hole, same in pairs if same.wkb in left]
        polygons[index] = shapely.Polygon(polygons[index].exterior, holes)
    return polygons


def _apart(outlines: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Simplified outlines, but the exact ones where they would overlap.

    In one grid they cannot (see `simplify`). Pixels of another grid may be nearer than that.
    """
    outlines = outlines.copy()
    while True:
        # Anew each time: an exact outline may reach further than its simplified one did.
        one, other = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        one, other = one[one < other], other[one < other]
        clash = shapely.relate_pattern(outlines[one], outlines[other], "T********")
        back = np.unique(np.concatenate([one[clash], other[clash]]))
        back = back[outlines[back] != exact[back]]
        if not len(back):
            return outlines
        outlines[back] = exact[back]


class _Masks:
    """The masks of several scenes as one canvas, in the pixels of one of them.

    Each comes with the way of points from there into its own pixels.
    """

    def __init__(self, masks: Sequence[tuple[Move, StripRaster]]) -> None:
        self._masks = masks

    def holds(self, polygons: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
        """Whether a pixel inside each polygon has one of `values`, all masks together.

        A landslide counts in any of them; what one has not seen, another may have.
        """
        found = np.zeros(len(polygons), bool)
        for way, mask in self._masks:
            shown = np.asarray(shapely.transform(polygons, way))
            found |= mask.holds(shown, tuple(set(values) - {UNSEEN}))
        if UNSEEN in values:
            found[~found] = [self._has_unseen(polygon) for polygon in polygons[~found]]
        return found

    def _has_unseen(self, polygon: shapely.Polygon) -> bool:
        """Whether there is a pixel of the home in it that no mask has seen."""
        left, top, right, bottom = np.rint(polygon.bounds).astype(int).tolist()
        around = Frame(top, left, bottom - top + 1, right - left + 1)
        for part, _, inside in pixels_inside(np.array([polygon]), around):
            rows, cols = np.nonzero(inside)
            centres = np.column_stack([cols + part.col, rows + part.row]) + 0.5
            unseen = np.ones(len(centres), bool)
            for way, mask in self._masks:
                cols, rows = np.floor(way(centres)).astype(int).T
                unseen &= mask.at(rows, cols) == UNSEEN
            if unseen.any():
                return True
        return False

    def burn(self, polygons: np.ndarray, value: int) -> None:
        """Give all pixels inside the polygons that were seen this value, in every mask."""
        for way, mask in self._masks:
            mask.burn(np.asarray(shapely.transform(polygons, way)), value)


def _way(start: ScenePlan | None, end: ScenePlan) -> Move:
    """The way of points from the pixels of one scene, or from the layer, into those of another."""
    crs = start.scene.crs if start else end.layer_crs
    there = None
    if crs is not None and end.scene.crs is not None and not same_crs(crs, end.scene.crs):
        there = mover(transformer(crs, end.scene.crs))
    into = ~end.scene.transform

    def move(points: np.ndarray) -> np.ndarray:
        if start is not None:
            points = np.column_stack(start.scene.transform * tuple(points.T))
        if there is not None:
            points = there(points)
        return np.column_stack(into * tuple(points.T))

    return move
