"""Outlines of tiles on the ground, in one CRS, and tiles that show what another split shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyproj
import shapely

from landslide_mapper.data.split import SplitBlock, conflicts
from landslide_mapper.data.tiles import Plan, SceneSource, TileSource
from landslide_mapper.errors import note
from landslide_mapper.geo.crs import WGS84, same_crs, transformer, wgs84_transformer
from landslide_mapper.geo.scan import link


def settle(plans: list[Plan], sources: Sequence[TileSource]) -> tuple[list[Plan], int]:
    """Drop windows of scenes that lie over each other, so that no ground is in two splits."""
    crs, together = common_crs([source.scene.crs for source in sources])
    if not together:
        note("The scenes have CRS with no way between them: overlaps are not looked for")
        return plans, 0
    placed = [i for i, plan in enumerate(plans) if has_place(sources[plan.source])]
    some = [plans[i] for i in placed]
    if len(sources) < 2 or len({plan.split for plan in some}) < 2:
        return plans, 0
    shown = _shown(some, sources)
    shapes = outlines(shown, [plan.source for plan in some], sources, crs)
    tolerance = shapely.area(shapes) / [height * width for _, _, height, width in shown]
    found = conflicts(shapes, [p.split for p in some], [p.source for p in some], tolerance)
    dropped = {placed[k] for k in found}
    return [plan for i, plan in enumerate(plans) if i not in dropped], len(dropped)


def has_place(source: TileSource) -> bool:
    """Whether the source's coordinates say where it lies: in a CRS, or where label polygons do.

    Pictures without either are all at the same coordinates.
    """
    return source.scene.crs is not None or (isinstance(source, SceneSource) and source.scene.placed)


def same_ground(blocks: Sequence[SplitBlock], sources: Sequence[TileSource]) -> list[int]:
    """A group number for each block; blocks of several scenes that show the same place (images of
    different dates, say) are in one group, so that the draw gives them one split."""
    group = np.arange(len(blocks))
    crs, together = common_crs([source.scene.crs for source in sources])
    if not together or len(sources) < 2 or not all(map(has_place, sources)):
        return group.tolist()
    squares = [(b.top, b.left, b.bottom - b.top, b.right - b.left) for b in blocks]
    shapes = outlines(squares, [b.source for b in blocks], sources, crs)
    area = shapely.area(shapes)
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    later = one < other
    one, other = one[later], other[later]
    shared = shapely.area(shapely.intersection(shapes[one], shapes[other]))
    # More than half of both: a block has at most one such partner in another scene, so groups
    # cannot grow sideways over the whole map. What overlaps less is settled window by window.
    same = shared > 0.5 * np.maximum(area[one], area[other])
    link(group, one[same], other[same])
    return group.tolist()


def common_crs(all_crs: Sequence[pyproj.CRS | None]) -> tuple[pyproj.CRS | None, bool]:
    """The CRS of footprints: the scenes' own when it is one, else EPSG:4326.

    None when there is none at all, or (second value false) when there is no way between them.
    """
    distinct = list(dict.fromkeys(all_crs))
    if all(same_crs(crs, distinct[0]) for crs in distinct):
        return distinct[0], True
    if any(wgs84_transformer(crs) is None for crs in distinct):  # of no CRS as well
        return None, False
    return WGS84, True


def footprints(
    plans: Sequence[Plan], sources: Sequence[TileSource], crs: pyproj.CRS | None
) -> np.ndarray:
    """Outlines in `crs` of what tiles show of their scenes, as polygons.

    Their padding is left out: it lies on the ground of scenes that adjoin, and shows nothing of it.
    """
    owners = [plan.source for plan in plans]
    return outlines(_shown(plans, sources), owners, sources, crs)


def _shown(plans: Sequence[Plan], sources: Sequence[TileSource]) -> list[tuple[int, int, int, int]]:
    """The part (row, col, height, width) of each plan's square that lies in its scene."""
    found = []
    for plan in plans:
        scene = sources[plan.source].scene
        top, left = max(plan.row, 0), max(plan.col, 0)
        bottom = min(plan.row + plan.span, scene.height)
        right = min(plan.col + plan.span, scene.width)
        found.append((top, left, bottom - top, right - left))
    return found


def outlines(
    windows: Sequence[tuple[int, int, int, int]],
    owners: Sequence[int],
    sources: Sequence[TileSource],
    crs: pyproj.CRS | None,
) -> np.ndarray:
    """Polygons in `crs` of pixel windows (row, col, height, width) of the sources `owners`."""
    rings = np.empty((len(windows), 4, 2))
    for i, (window, owner) in enumerate(zip(windows, owners, strict=True)):
        rings[i] = sources[owner].scene.corners(*window)
    for i, source in enumerate(sources):
        own = source.scene.crs
        if own is None or crs is None or same_crs(own, crs):
            continue
        mine = np.asarray(owners) == i
        move = transformer(own, crs)
        rings[mine] = np.stack(move.transform(rings[mine, :, 0], rings[mine, :, 1]), axis=-1)
    return np.asarray(shapely.polygons(rings))
