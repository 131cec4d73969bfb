"""Label polygons on a scene: near it, in its CRS, as pixels of a mask."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import affine
import numpy as np
import pyproj
import shapely
from pyproj.exceptions import ProjError
from rasterio.features import rasterize

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.crs import (
    Move,
    check_shift,
    crs_name,
    eastward,
    goes_round,
    moved,
    mover,
    same_crs,
    transformer,
)
from landslide_mapper.geo.labels import Labels
from landslide_mapper.geo.scene import Scene
from landslide_mapper.mask_values import IGNORE, LANDSLIDE

EDGE_PIECES = 64  # an edge that is straight in one CRS is bent in another: pieces per extent
NEAR = 0.1  # of a scene's extent: bounds that were brought into another CRS may be this far out


def in_scene_crs(labels: Labels, scene: Scene) -> tuple[np.ndarray, int]:
    """The polygons in the scene's CRS, and how many could not be brought there.

    Polygons whose CRS is the scene's are passed through as they are, but for whole turns where
    longitudes beyond ±180 occur. Raises `LsmapError` when one of the two CRS is unknown or there
    is no way from one to the other.
    """
    polygons, lost, turn = _brought(labels, scene)
    return (_turned_towards(scene, polygons) if turn else polygons), lost


def _brought(labels: Labels, scene: Scene) -> tuple[np.ndarray, int, bool]:
    """The same, but whole turns of longitude away from the scene perhaps: that is told last."""
    polygons, lost, across = labels.polygons, 0, False
    if not same_map(labels, scene):
        move = mover(_way(labels, scene))
        polygons, reached = moved(polygons, move)
        if scene.crs is not None and scene.crs.is_geographic:
            own = replace(labels, polygons=labels.polygons[reached])
            polygons, across = _not_torn(polygons, own, move)
        lost = int((~reached).sum())
    beyond = beyond_the_antimeridian(scene) or _counts_beyond_180(labels, shapely.bounds(polygons))
    in_degrees = scene.crs is not None and scene.crs.is_geographic
    return polygons, lost, in_degrees and (across or beyond)


def _not_torn(polygons: np.ndarray, labels: Labels, move: Move) -> tuple[np.ndarray, bool]:
    """The labels' polygons in degrees, going on beyond ±180 where they cross it.

    Args:
        polygons: those of `labels` in degrees; what crosses ±180 spans the globe there.
        labels: the polygons in a CRS of their own, in which they do not.
        move: from that CRS to the degrees.

    Returns:
        The polygons, and whether any crosses ±180.
    """
    west, _, east, _ = shapely.bounds(polygons).T
    across = (east - west > 180) & ~goes_round(labels.polygons, labels.crs)
    polygons[across] = moved(labels.polygons[across], lambda points: eastward(move(points)))[0]
    return polygons, bool(across.any())


def _turned_towards(scene: Scene, polygons: np.ndarray) -> np.ndarray:
    """Polygons with the longitudes that a scene in degrees counts, whole turns away or not."""
    if shapely.is_empty(polygons).all():
        return polygons
    middle = np.mean(scene.corners(0, 0, scene.height, scene.width), axis=0)[0]
    # Part by part: polygons are often cut in two at ±180.
    parts, owner = shapely.get_parts(polygons, return_index=True)
    turns = np.rint((middle - shapely.bounds(parts)[:, ::2].mean(axis=1)) / 360)
    points, part = shapely.get_coordinates(parts, return_index=True)
    points[:, 0] += 360 * turns[part]
    parts = np.asarray(shapely.set_coordinates(parts, points))
    found = polygons.copy()
    for index, pieces in zip(
        np.unique(owner), np.split(parts, np.flatnonzero(np.diff(owner)) + 1), strict=True
    ):
        found[index] = shapely.union_all(pieces)
    return found


def ground_near(labels: Labels, scene: Scene) -> np.ndarray:
    """What a layer covers near the scene, in the scene's CRS; its polygons may come in parts.

    Raises:
        LsmapError: see `in_scene_crs`.
    """
    if same_map(labels, scene):
        around = _turned(labels, beyond_the_antimeridian(scene))
        labels = replace(labels, polygons=around)
        return around[near_scene(labels, shapely.bounds(around), scene)]
    pieces = replace(labels, polygons=_pieces_near(labels, scene))
    polygons, _, turn = _brought(pieces, scene)
    return _to_either_side(polygons) if turn else polygons


def _turned(labels: Labels, always: bool = False) -> np.ndarray:
    """The polygons as they are, and where longitudes beyond ±180 occur a turn to either side too.

    Some layers count longitudes from 0 to 360.
    """
    around = labels.polygons
    if always or _counts_beyond_180(labels, shapely.bounds(around)):
        return _to_either_side(around)
    return around


def _to_either_side(polygons: np.ndarray) -> np.ndarray:
    """The polygons, and the same a turn of longitude to the west and to the east."""
    turns = [partial(np.add, (turn, 0)) for turn in (-360, 0, 360)]
    return np.concatenate([shapely.transform(polygons, turn) for turn in turns])


def _counts_beyond_180(labels: Labels, bounds: np.ndarray) -> bool:
    """Whether polygons of these bounds (n, 4) are in degrees and some lie beyond ±180."""
    degrees = labels.crs is not None and labels.crs.is_geographic
    return bool(degrees and np.abs(bounds[:, ::2]).max(initial=0) > 180)


def _pieces_near(labels: Labels, scene: Scene) -> np.ndarray:
    """The polygons near the scene, still in their own CRS, with edges in short pieces.

    Far from the scene its CRS may be undefined, so what is there must not be taken along.
    """
    ring = scene.outline
    ring = shapely.segmentize(ring, ring.length / 4 / EDGE_PIECES)
    assert scene.crs is not None  # see `same_map`
    assert labels.crs is not None
    try:
        points = mover(transformer(scene.crs, labels.crs))(shapely.get_coordinates(ring))
    except ProjError:
        return labels.polygons  # `in_scene_crs` says what is wrong
    if not np.isfinite(points).all():
        return labels.polygons
    sides = _torn_apart(points)
    low, high = (np.array([end(side, axis=0) for side in sides]) for end in (np.min, np.max))
    margin = (np.ptp(points[:, 1]) + (high - low)[:, 0].sum()) / EDGE_PIECES
    around = shapely.union_all(shapely.box(*(low - margin).T, *(high + margin).T))
    polygons = _turned(labels)
    touching = shapely.intersects(shapely.box(*shapely.bounds(polygons).T), around)
    near = areas(shapely.intersection(polygons[touching], around))
    return np.asarray(shapely.segmentize(near, margin))


def _torn_apart(points: np.ndarray) -> list[np.ndarray]:
    """The points (n, 2) of a ring, those at either end of the map apart where it reaches over it.

    One box around all of them would be as wide as the map, across the antimeridian.
    """
    x = points[:, 0]
    if np.abs(np.diff(x)).max() <= np.ptp(x) / 2:
        return [points]
    east = x > (x.min() + x.max()) / 2
    return [points[~east], points[east]]


def areas(shapes: np.ndarray) -> np.ndarray:
    """The polygons in `shapes`, one by one."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return parts[
        (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    ]


def same_map(labels: Labels, scene: Scene) -> bool:
    """Whether labels and scene have the same CRS, or both have none.

    Raises:
        LsmapError: one of them has none.
    """
    if labels.crs is None and scene.crs is not None:
        raise LsmapError(
            f"{labels.path}: the layer has no CRS (the scene {scene.name} is in "
            f"{crs_name(scene.crs)}); {labels.options.say_crs()}"
        )
    if scene.crs is None and labels.crs is not None:
        raise LsmapError(
            f"{scene.path}: the scene has no CRS but the labels have ({crs_name(labels.crs)}); "
            "set it with: gdal_edit.py -a_srs EPSG:... SCENE"
        )
    return same_crs(labels.crs, scene.crs)


def beyond_the_antimeridian(scene: Scene) -> bool:
    """Whether a scene in degrees reaches beyond ±180 of them."""
    west, _, east, _ = scene.bounds
    degrees = scene.crs is not None and scene.crs.is_geographic
    return degrees and max(-west, east) > 180 + 1e-9


def near_scene(labels: Labels, bounds: np.ndarray, scene: Scene) -> np.ndarray:
    """Which polygons may touch the scene, by their bounds: bool (n,), all where that is not known.

    A country's polygons need not be brought into the CRS of each scene, only those near it.

    Args:
        labels: the polygons.
        bounds: of the polygons, (n, 4), as shapely gives them.
        scene: where they are to lie.

    Raises:
        LsmapError: see `in_scene_crs`.
    """
    west, south, east, north = scene.bounds
    if not same_map(labels, scene):
        way = _way(labels, scene)
        try:
            west, south, east, north = way.transform_bounds(
                west, south, east, north, direction="INVERSE"
            )
        except ProjError:
            west = np.nan
    turned = _counts_beyond_180(labels, bounds) or beyond_the_antimeridian(scene)
    known = np.isfinite([west, south, east, north]).all()
    if turned or not known or west > east:  # the antimeridian, a pole
        return np.ones(len(bounds), dtype=bool)
    margin = NEAR * max(east - west, north - south)
    return (
        (bounds[:, 0] <= east + margin)
        & (bounds[:, 2] >= west - margin)
        & (bounds[:, 1] <= north + margin)
        & (bounds[:, 3] >= south - margin)
    )


def _way(labels: Labels, scene: Scene) -> pyproj.Transformer:
    assert scene.crs is not None  # see `same_map`
    way = way_to(scene.crs, f"{scene.name} ({crs_name(scene.crs)})", labels)
    assert labels.crs is not None  # see `same_map`
    check_shift(way, labels.crs, scene.crs, scene.transform * (scene.width / 2, scene.height / 2))
    return way


def way_to(crs: pyproj.CRS, whose: str, labels: Labels) -> pyproj.Transformer:
    """From the CRS of the labels to another; errors call it by `whose` it is.

    Raises:
        LsmapError: there is no way.
    """
    assert labels.crs is not None
    if labels.crs.is_geocentric:
        raise LsmapError(
            f"{labels.path}: its CRS {crs_name(labels.crs)} is geocentric (metres from the earth's "
            "centre), which is not a map; reproject it first: "
            "ogr2ogr -t_srs EPSG:4326 OUTPUT.gpkg INPUT"
        )
    try:
        return transformer(labels.crs, crs)
    except ProjError as error:
        raise LsmapError(
            f"{labels.path}: there is no way from its CRS ({crs_name(labels.crs)}) to that of "
            f"{whose}; are they on the same planet?"
        ) from error


def burn(
    shape: tuple[int, int],
    transform: affine.Affine,
    landslides: np.ndarray,
    ignored: np.ndarray,
    aoi: np.ndarray | None,
) -> np.ndarray:
    """Mask uint8 of `shape`: 1 where a pixel's centre lies in a landslide, 0 elsewhere.

    255 where it lies in an ignored polygon or outside `aoi` (None: everywhere is inside).
    """
    mask = _inside(shape, transform, landslides)
    if len(ignored):
        mask[_inside(shape, transform, ignored) > 0] = IGNORE
    if aoi is not None:
        mask[_inside(shape, transform, aoi) == 0] = IGNORE
    return mask


def _inside(shape: tuple[int, int], transform: affine.Affine, polygons: np.ndarray) -> np.ndarray:
    if not len(polygons):
        return np.zeros(shape, dtype=np.uint8)
    pairs: list[tuple[Any, int]] = [(polygon, LANDSLIDE) for polygon in polygons]
    return rasterize(pairs, out_shape=shape, transform=transform, fill=0, dtype="uint8")
