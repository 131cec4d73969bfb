"""Coordinate reference systems: names, units, and the ways of polygons from one to another."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyproj
import shapely

from landslide_mapper.errors import once, warn

WGS84 = pyproj.CRS("EPSG:4326")
UTM_SCALE = re.compile(r'PARAMETER\["scale[^"]*",0\.9996(?=[],])', re.IGNORECASE)  # in WKT
GLOBE = 1e7  # metres: a landslide that wide goes round the globe, over the edge of the map
NO_SHIFT = "Ballpark geographic offset"  # in PROJ's names of ways
SAME_AXES = 1e-3  # metres by which axes of ellipsoids differ at most that are the same
FLATTENINGS = (1 / 312, 1 / 290)  # of ellipsoids of the earth, old ones too

Move = Callable[[np.ndarray], np.ndarray]  # points (n, 2) to points (n, 2)


def crs_code(crs: pyproj.CRS | None) -> str | None:
    """Authority and code such as EPSG:32648, else the CRS's own name; None without one."""
    if crs is None:
        return None
    code = crs.to_authority()
    return ":".join(code) if code else crs.name


def crs_name(crs: pyproj.CRS | None) -> str:
    """The same in words, where there may be no CRS."""
    code = crs_code(crs)
    return "no CRS" if code is None else code


def same_crs(one: pyproj.CRS | None, other: pyproj.CRS | None) -> bool:
    """Whether two CRS mean the same map, whatever the axis order says."""
    if one is None or other is None:
        return one is other
    return one == other or one.equals(other, ignore_axis_order=True)


def unit_metres(crs: pyproj.CRS | None) -> float | None:
    """About how many metres the unit of a CRS is, on the ground; None where nobody knows."""
    if crs is None or not crs.axis_info:
        return None
    factor, geod = crs.axis_info[0].unit_conversion_factor, crs.get_geod()
    if not crs.is_geographic:
        return factor
    return factor * geod.a if geod is not None else None  # radians times the radius


def degrees_per_unit(geodetic: pyproj.CRS) -> float:
    """Of longitude and latitude: a geographic CRS may count in grads."""
    return math.degrees(geodetic.axis_info[0].unit_conversion_factor)


def transformer(start: pyproj.CRS, end: pyproj.CRS) -> pyproj.Transformer:
    """From one CRS to another, x before y in both.

    Raises:
        pyproj.exceptions.ProjError: there is no way, as from Mars to the earth.
    """
    return pyproj.Transformer.from_crs(start, end, always_xy=True)


def check_shift(
    way: pyproj.Transformer, start: pyproj.CRS, end: pyproj.CRS, place: tuple[float, float]
) -> None:
    """Warn, once for two CRS, where PROJ does not know the shift between their datums.

    It takes longitudes and latitudes as they are then. What it knows depends on the place.

    Args:
        way: the `transformer` from `start` to `end`.
        start, end: the two CRS.
        place: x and y of a point, in `end`.
    """
    one, other = start.get_geod(), end.get_geod()
    if one is None or other is None or not (_surveyed(one) and _surveyed(other)):
        return
    # Frames of satellites, as WGS 84 and CGCS2000, differ by decimetres whatever PROJ knows.
    if max(abs(one.a - other.a), abs(one.b - other.b)) < SAME_AXES:
        return
    way.transform(place[0], place[1], direction="INVERSE")
    try:
        used = way.get_last_used_operation().description
    except pyproj.exceptions.ProjError:  # it is the only one, and moves nothing
        used = way.description
    if NO_SHIFT in used:
        once(
            warn,
            f"PROJ does not know the shift between the datums of {start.name} and {end.name} here, "
            "so places may be off by up to some hundred metres; reproject one of them in QGIS with "
            "the right transformation, or install PROJ's grids",
        )


def _surveyed(geod: pyproj.Geod) -> bool:
    """Whether an ellipsoid is one of the earth's; a sphere is nobody's, and Mars is flatter."""
    return FLATTENINGS[0] < geod.f < FLATTENINGS[1]


def layer_wkt(crs: pyproj.CRS) -> str:
    """A CRS for a layer's file, as WKT.

    GDAL's drivers for GeoPackage and FlatGeobuf declare a UTM zone without a code to be the one
    in metres, even where it counts in feet or kilometres. A scale that is not quite UTM's keeps
    them from that, and moves nothing by more than a tenth of a micrometre.
    """
    wkt = crs.to_wkt()
    in_metres = not crs.axis_info or crs.axis_info[0].unit_conversion_factor == 1
    return wkt if in_metres or crs.to_authority() else UTM_SCALE.sub(r"\g<0>0000000001", wkt)


def way(start: pyproj.CRS, end: pyproj.CRS) -> pyproj.Transformer | None:
    """The `transformer` from one CRS to another; None when there is no way (another planet)."""
    try:
        return transformer(start, end)
    except pyproj.exceptions.ProjError:
        return None


def wgs84_transformer(crs: pyproj.CRS | None) -> pyproj.Transformer | None:
    """From `crs` to longitude and latitude in WGS 84; None when there is no way (no CRS, Mars)."""
    return None if crs is None else way(crs, WGS84)


class Geodetic(NamedTuple):
    """Where a CRS lies on its own ellipsoid."""

    crs: pyproj.CRS  # longitude and latitude
    there: pyproj.Transformer
    degrees: float  # per unit of longitude and latitude
    geod: pyproj.Geod


@lru_cache(maxsize=64)
def geodetic(crs: pyproj.CRS | None) -> Geodetic | None:
    """The longitudes and latitudes that a CRS is made from.

    None for one without an ellipsoid, or without a way to it.
    """
    own, geod = (crs.geodetic_crs, crs.get_geod()) if crs is not None else (None, None)
    if crs is None or own is None or geod is None:
        return None
    there = way(crs, own)
    return None if there is None else Geodetic(own, there, degrees_per_unit(own), geod)


def mover(transformer: pyproj.Transformer) -> Move:
    """A transformer (with ``always_xy``) as a function of points."""

    def move(points: np.ndarray) -> np.ndarray:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return move


def moved(polygons: np.ndarray, move: Move) -> tuple[np.ndarray, np.ndarray]:
    """Polygons on another map, valid there, and which of the given ones it reaches, bool (n,)."""
    shapes = np.asarray(shapely.transform(polygons, move))
    reached = np.asarray(np.isfinite(shapely.bounds(shapes)).all(axis=1))
    return repaired(shapes[reached]), reached


def goes_round(polygons: np.ndarray, crs: pyproj.CRS | None) -> np.ndarray:
    """Which polygons (n,) are wider, from the west end to the east end, than `GLOBE`: bool (n,)."""
    west, _, east, _ = shapely.bounds(polygons).T
    return np.asarray((east - west) * (unit_metres(crs) or 1.0) > GLOBE)


def eastward(points: np.ndarray, turn: float = 360.0) -> np.ndarray:
    """Points (n, 2) with western longitudes counted on beyond the antimeridian, a `turn` more."""
    return points + (points[:, :1] < 0) * np.array([turn, 0])


def repaired(polygons: np.ndarray) -> np.ndarray:
    """The same polygons, valid; what collapses is left out of them."""
    broken = ~shapely.is_valid(polygons)
    valid = polygons.copy()
    valid[broken] = shapely.make_valid(polygons[broken], method="structure", keep_collapsed=False)
    return valid
