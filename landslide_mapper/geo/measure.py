"""Areas, lengths and places of polygons on the ellipsoid, whatever the CRS of the scene.

Everything is computed on the CRS's own ellipsoid through its own geodetic CRS, so EPSG:3857,
EPSG:4326 and a projection of Mars are all right. Polygons come in pixel coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from affine import Affine

# An edge that is straight in the CRS is not a geodesic. Pieces of this length are, within
# centimetres.
MAX_EDGE_METRES = 2000.0

WGS84 = pyproj.CRS("EPSG:4326")


@dataclass(frozen=True)
class Measures:
    """Measures of polygons, metres and square metres; NaN where the CRS gives no metres."""

    area: np.ndarray
    perimeter: np.ndarray  # of all rings, holes as well
    length: np.ndarray  # long side of the smallest rectangle around the polygon
    width: np.ndarray  # its short side


def to_map(polygons: np.ndarray, transform: Affine) -> np.ndarray:
    """Pixel coordinates (column, row) to map coordinates; exterior rings counter-clockwise."""
    placed = shapely.transform(polygons, lambda points: _affine(points, transform))
    return shapely.orient_polygons(placed)


def reproject(polygons: np.ndarray, transformer: pyproj.Transformer) -> np.ndarray:
    """Polygons through `transformer` (with ``always_xy``); exterior rings counter-clockwise."""

    def move(points: np.ndarray) -> np.ndarray:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.orient_polygons(shapely.transform(polygons, move))


def wgs84_transformer(crs: pyproj.CRS | None) -> pyproj.Transformer | None:
    """From `crs` to longitude and latitude in WGS 84; None when there is no way (no CRS, Mars)."""
    if crs is None:
        return None
    try:
        return pyproj.Transformer.from_crs(crs, WGS84, always_xy=True)
    except pyproj.exceptions.ProjError:
        return None


def inner_points(
    polygons: np.ndarray, transform: Affine, transformer: pyproj.Transformer | None
) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of a point inside every polygon; NaN without `transformer`."""
    if transformer is None or len(polygons) == 0:
        nothing = np.full(len(polygons), np.nan)
        return nothing, nothing
    points = shapely.get_coordinates(shapely.point_on_surface(polygons))
    placed = _affine(points, transform)
    lon, lat = transformer.transform(placed[:, 0], placed[:, 1])
    lost = ~(np.isfinite(lon) & np.isfinite(lat))
    return np.where(lost, np.nan, lon), np.where(lost, np.nan, lat)


class Measurer:
    """Measures polygons of one scene; `transform` and `crs` are the scene's.

    `metric` is false when the CRS is missing or has no ellipsoid: then every measure is NaN.
    """

    def __init__(self, crs: pyproj.CRS | None, transform: Affine, gsd: float | None) -> None:
        self._transform = transform
        self._geod = crs.get_geod() if crs is not None else None
        geodetic = crs.geodetic_crs if crs is not None else None
        self.metric = self._geod is not None and geodetic is not None and gsd is not None
        if crs is None or geodetic is None or gsd is None:
            return
        self._to_geodetic = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
        # A geographic CRS may count in grads.
        self._degrees = math.degrees(geodetic.axis_info[0].unit_conversion_factor)
        self._max_edge = MAX_EDGE_METRES / gsd  # pixels

    def area(self, polygons: np.ndarray) -> np.ndarray:
        """Geodesic area in m² of each polygon."""
        if not self.metric:
            return np.full(len(polygons), np.nan)
        return self._rings(self._lonlat(polygons))[0]

    def measure(self, polygons: np.ndarray) -> Measures:
        """Geodesic area and perimeter, and the sides of the smallest rectangle around each."""
        if not self.metric:
            nothing = np.full(len(polygons), np.nan)
            return Measures(nothing, nothing, nothing, nothing)
        lonlat = self._lonlat(polygons)
        area, perimeter = self._rings(lonlat)
        length, width = self._rectangles(lonlat)
        return Measures(area, perimeter, length, width)

    def _lonlat(self, polygons: np.ndarray) -> np.ndarray:
        """The same polygons in degrees on the CRS's own ellipsoid."""

        def move(points: np.ndarray) -> np.ndarray:
            placed = _affine(points, self._transform)
            lon, lat = self._to_geodetic.transform(placed[:, 0], placed[:, 1])
            return np.column_stack([lon, lat]) * self._degrees

        return shapely.transform(shapely.segmentize(polygons, self._max_edge), move)

    def _rings(self, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._geod is not None
        area, perimeter = np.zeros(len(lonlat)), np.zeros(len(lonlat))
        for index, polygon in enumerate(lonlat):
            for number, ring in enumerate((polygon.exterior, *polygon.interiors)):
                points = shapely.get_coordinates(ring)
                # Signed by the ring's direction, which says nothing here: holes are known.
                inside, around = self._geod.polygon_area_perimeter(points[:, 0], points[:, 1])
                area[index] += -abs(inside) if number else abs(inside)
                perimeter[index] += around
        return area, perimeter

    def _rectangles(self, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sides of the smallest rectangle, in the plane that touches the ellipsoid there."""
        if len(lonlat) == 0:
            return np.zeros(0), np.zeros(0)
        hulls = shapely.convex_hull(lonlat)
        points, owner = shapely.get_coordinates(hulls, return_index=True)
        first = np.unique(owner, return_index=True)[1]
        lon0, lat0 = points[first].T
        # Radii of curvature across (N) and along (M) the meridian.
        assert self._geod is not None
        sine = np.sin(np.radians(lat0))
        curve = 1 - self._geod.es * sine**2
        across = self._geod.a / np.sqrt(curve) * np.cos(np.radians(lat0))
        along = self._geod.a * (1 - self._geod.es) / curve**1.5
        turn = (points[:, 0] - lon0[owner] + 180) % 360 - 180  # a polygon may cross 180°
        east = np.radians(turn) * across[owner]
        north = np.radians(points[:, 1] - lat0[owner]) * along[owner]
        sides = [_rectangle(part) for part in np.split(np.column_stack([east, north]), first[1:])]
        return np.array([s[0] for s in sides]), np.array([s[1] for s in sides])


def _rectangle(hull: np.ndarray) -> tuple[float, float]:
    """Long and short side of the smallest-area rectangle around a closed convex ring (metres).

    One of its sides lies along an edge of the hull, so those directions are all there is to try.
    """
    edges = np.diff(hull, axis=0)
    norm = np.hypot(edges[:, 0], edges[:, 1])
    edges = edges[norm > 0] / norm[norm > 0, None]
    if len(edges) == 0:
        return 0.0, 0.0
    ahead = hull @ edges.T
    aside = hull @ np.stack([-edges[:, 1], edges[:, 0]])
    a, b = np.ptp(ahead, axis=0), np.ptp(aside, axis=0)
    best = int(np.argmin(a * b))
    return float(max(a[best], b[best])), float(min(a[best], b[best]))


def _affine(points: np.ndarray, transform: Affine) -> np.ndarray:
    x, y = points[:, 0], points[:, 1]
    return np.column_stack(
        [
            transform.a * x + transform.b * y + transform.c,
            transform.d * x + transform.e * y + transform.f,
        ]
    )
