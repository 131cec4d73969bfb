"""Layers in a plane in which areas are those on the ground, so that they can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyproj
import shapely

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.geo.crs import Move, check_shift, crs_name, geodetic, moved, unit_metres
from landslide_mapper.geo.labels import Labels
from landslide_mapper.geo.placing import way_to

# An edge that is straight in one CRS is bent in another, by 2 cm at this length.
EDGE_METRES = 1000.0


def in_plane(layers: Sequence[Labels]) -> tuple[list[Labels], list[np.ndarray]]:
    """The polygons that the plane reaches, of each layer, as they are and in the plane.

    The plane is Lambert's azimuthal equal-area projection around the middle of the second layer,
    on its ellipsoid, in metres; layers without CRS stay as they are.

    Raises:
        LsmapError: only some have a CRS, one has no ellipsoid, there is no way between them, or
            no polygon of a layer lies where its CRS reaches.
    """
    flattened = [_flatten(*each) for each in zip(layers, _moves(layers), strict=True)]
    return [labels for labels, _ in flattened], [flat for _, flat in flattened]


def _moves(layers: Sequence[Labels]) -> list[Move | None]:
    """For each layer the way from its CRS into the plane; None: as it is."""
    crs = layers[1].crs
    lacking = [labels for labels in layers if labels.crs is None]
    if len(lacking) == len(layers):
        return [None] * len(layers)
    if lacking or crs is None:
        known = next(labels for labels in layers if labels.crs is not None)
        raise LsmapError(
            f"{lacking[0].path}: has no coordinate reference system and {known.path} has one "
            f"({crs_name(known.crs)}), so they cannot be laid over each other; assign it first: "
            "ogr2ogr -a_srs EPSG:... OUTPUT.gpkg INPUT"
        )
    ground = geodetic(crs)
    known_crs = [labels.crs for labels in layers if labels.crs is not None]
    if ground is None or any(c.is_geocentric for c in known_crs):
        raise LsmapError(
            f"{layers[1].path}: areas need maps on an ellipsoid, and a CRS here is none "
            f"({', '.join(crs_name(labels.crs) for labels in layers)}); reproject it first: "
            "ogr2ogr -t_srs EPSG:4326 OUTPUT.gpkg INPUT"
        )
    degrees = ground.degrees
    whose = f"{layers[1].path} ({crs_name(crs)})"
    ways = [way_to(ground.crs, whose, labels) for labels in layers]
    lon, lat = _middle(layers[1], ways[1], degrees)
    for own, way in zip(known_crs, ways, strict=True):
        check_shift(way, own, ground.crs, (lon / degrees, lat / degrees))
    plane = pyproj.Proj(proj="laea", lat_0=lat, lon_0=lon, a=ground.geod.a, es=ground.geod.es)

    def move_by(way: pyproj.Transformer) -> Move:
        def move(points: np.ndarray) -> np.ndarray:
            x, y = way.transform(points[:, 0], points[:, 1])
            return np.column_stack(plane(np.asarray(x) * degrees, np.asarray(y) * degrees))

        return move

    return [move_by(way) for way in ways]


def _middle(labels: Labels, way: pyproj.Transformer, degrees: float) -> tuple[float, float]:
    """Longitude and latitude of the middle of a layer: the mean direction of its polygons.

    A mean of directions is right at the antimeridian too.
    """
    centres = shapely.get_coordinates(shapely.centroid(labels.polygons))
    x, y = way.transform(centres[:, 0], centres[:, 1])
    lon, lat = np.radians(np.asarray(x) * degrees), np.radians(np.asarray(y) * degrees)
    seen = np.isfinite(lon) & np.isfinite(lat)
    lon, lat = lon[seen], lat[seen]
    if not len(lon):
        raise LsmapError(f"{labels.path}: its coordinates lie outside of its CRS; is it right?")
    mean = [(np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean()]
    return math.degrees(math.atan2(mean[1], mean[0])), math.degrees(
        math.atan2(np.sin(lat).mean(), math.hypot(*mean))
    )


def _flatten(labels: Labels, move: Move | None) -> tuple[Labels, np.ndarray]:
    """The polygons that the projection reaches, as they are and, valid, in the plane."""
    if move is None or labels.crs is None or not len(labels.polygons):
        return labels, labels.polygons
    metres = unit_metres(labels.crs)
    assert metres is not None  # or there would be no way
    polygons = shapely.segmentize(labels.polygons, EDGE_METRES / metres)
    flat, reached = moved(polygons, move)
    if not reached.any():
        raise LsmapError(
            f"{labels.path}: no polygon of it lies where its CRS ({crs_name(labels.crs)}) reaches; "
            f"if it is another, {labels.options.say_crs()}"
        )
    if not reached.all():
        lost = np.count_nonzero(~reached)
        note(f"{labels.path}: {lost} polygons lie where its CRS does not reach; left out")
        labels = labels.only(reached)
    return labels, flat
