"""Areas, lengths and places of polygons on the ellipsoid, whatever the CRS of the scene.

Everything is computed on the CRS's own ellipsoid through its own geodetic CRS, so EPSG:3857,
EPSG:4326 and a projection of Mars are all right. Polygons come in pixel coordinates.

A landslide is small beside a planet. So its area is the plane one times the scale at its
centroid, wrong by about D²/6R², less than one in ten million up to `SMALL`; larger ones are cut
into pieces, though hardly into parts of a pixel. (pyproj.Geod is slow, and rounds to a hundredth of
a m² an edge.) Lengths are those of chords through the planet, shorter than their geodesics by
L²/24R² of themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from affine import Affine

from landslide_mapper.geo.crs import geodetic, mover

MAX_EDGE_METRES = 1000.0  # of a chord: an edge that is straight in the CRS may be curved

SMALL = 4e-4  # of the semi-major axis: 2.5 km on Earth
FINEST = 0.5  # pixels: a picture of the whole planet is not cut into millions of pieces
SCALE_STEP_METRES = 50.0  # to both sides, for the scale at a point


@dataclass(frozen=True)
class Measures:
    """Lengths of polygons in metres; NaN where the CRS gives no metres."""

    perimeter: np.ndarray  # of all rings, holes as well
    length: np.ndarray  # long side of the smallest rectangle around the polygon
    width: np.ndarray  # its short side


def to_map(polygons: np.ndarray, transform: Affine) -> np.ndarray:
    """Pixel coordinates (column, row) to map coordinates; exterior rings counter-clockwise."""
    placed = shapely.transform(polygons, lambda points: _affine(points, transform))
    return shapely.orient_polygons(placed)


def to_pixels(polygons: np.ndarray, transform: Affine) -> np.ndarray:
    """Map coordinates to pixel coordinates (column, row)."""
    inverse = ~transform
    return np.asarray(shapely.transform(polygons, lambda points: _affine(points, inverse)))


def reproject(polygons: np.ndarray, transformer: pyproj.Transformer) -> np.ndarray:
    """Polygons through `transformer` (with ``always_xy``); exterior rings counter-clockwise."""
    return shapely.orient_polygons(shapely.transform(polygons, mover(transformer)))


def inner_points(
    polygons: np.ndarray, transform: Affine, transformer: pyproj.Transformer | None
) -> tuple[np.ndarray, np.ndarray]:
    """Longitude (-180 to 180) and latitude of a point inside each polygon.

    NaN without `transformer`, and where the point has none.
    """
    if transformer is None or len(polygons) == 0:
        nothing = np.full(len(polygons), np.nan)
        return nothing, nothing
    points = shapely.get_coordinates(shapely.point_on_surface(polygons))
    placed = _affine(points, transform)
    lon, lat = transformer.transform(placed[:, 0], placed[:, 1])
    lost = ~(np.isfinite(lon) & np.isfinite(lat))
    lon = np.where(lost, np.nan, lon)
    turned = np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)
    return turned, np.where(lost, np.nan, lat)


class Measurer:
    """Measures polygons of one scene; `transform` and `crs` are the scene's.

    `metric` is false when the CRS is missing or has no ellipsoid, or `gsd`, about how many metres a
    pixel is, is not known: then every measure is NaN.
    """

    def __init__(self, crs: pyproj.CRS | None, transform: Affine, gsd: float | None) -> None:
        self._transform = transform
        self._geodetic = geodetic(crs)
        self._gsd = math.nan if gsd is None else gsd
        self.metric = self._geodetic is not None and gsd is not None

    def area(self, polygons: np.ndarray) -> np.ndarray:
        """Geodesic area in m² of each polygon."""
        if not self.metric or len(polygons) == 0:
            return np.full(len(polygons), np.nan)
        assert self._geodetic is not None
        side = max(FINEST, SMALL * self._geodetic.geod.a / self._gsd)
        pieces, owner = _cut(polygons, side)
        areas = np.asarray(shapely.area(pieces)) * self._scale(shapely.centroid(pieces))
        return np.bincount(owner, areas, len(polygons))

    def _scale(self, centres: np.ndarray) -> np.ndarray:
        """Square metres per square pixel at points."""
        step = SCALE_STEP_METRES / self._gsd
        offsets = step * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        around = shapely.get_coordinates(centres)[:, None] + offsets
        points = self._in_space(around.reshape(-1, 2))[1].reshape(3, -1, 4)
        right = (points[..., 0] - points[..., 1]) / (2 * step)
        down = (points[..., 2] - points[..., 3]) / (2 * step)
        scale: np.ndarray = np.linalg.norm(np.cross(right, down, axis=0), axis=0)
        return scale

    def measure(self, polygons: np.ndarray) -> Measures:
        """Geodesic perimeter, and the sides of the smallest rectangle around each polygon."""
        if not self.metric or len(polygons) == 0:
            nothing = np.full(len(polygons), np.nan)
            return Measures(nothing, nothing, nothing)
        rings = self._rings(polygons)
        step = np.diff(rings.points, axis=1, append=0.0)
        step[:, np.append(rings.first[1:], step.shape[1]) - 1] = 0  # from one ring to the next
        around = np.add.reduceat(np.sqrt((step**2).sum(axis=0)), rings.first)
        perimeter = np.bincount(rings.owner, around, len(polygons))
        length, width = _rectangles(rings)
        return Measures(perimeter, length, width)

    def _rings(self, polygons: np.ndarray) -> _Rings:
        bounds, longest = shapely.bounds(polygons), max(FINEST, MAX_EDGE_METRES / self._gsd)
        long = (bounds[:, 2:] - bounds[:, :2]).max(axis=1) > longest
        if long.any():
            polygons = polygons.copy()
            polygons[long] = shapely.segmentize(polygons[long], longest)
        rings, owner = shapely.get_rings(polygons, return_index=True)
        first = np.append(0, np.cumsum(shapely.get_num_coordinates(rings))[:-1])
        return _Rings(*self._in_space(shapely.get_coordinates(rings)), first, owner)

    def _in_space(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates (n, 2) as (2, n) degrees and as (3, n) metres from the centre.

        NaN where the projection does not reach.
        """
        assert self._geodetic is not None
        placed, geod = _affine(pixels, self._transform), self._geodetic.geod
        lonlat = np.array(self._geodetic.there.transform(placed[:, 0], placed[:, 1]))
        lonlat[:, ~np.isfinite(lonlat).all(axis=0)] = np.nan
        lonlat *= self._geodetic.degrees
        (sin_lon, sin_lat), (cos_lon, cos_lat) = _turns(lonlat)
        normal = geod.a / np.sqrt(1 - geod.es * sin_lat**2)
        flat, up = normal * cos_lat, (1 - geod.es) * normal * sin_lat
        return lonlat, np.stack([flat * cos_lon, flat * sin_lon, up])


@dataclass(frozen=True)
class _Rings:
    """The rings of polygons, closed and one after the other, as points on the ellipsoid."""

    lonlat: np.ndarray  # (2, n) degrees
    points: np.ndarray  # (3, n) metres from the planet's centre
    first: np.ndarray  # (r,) index of each ring's first point
    owner: np.ndarray  # (r,) index of each ring's polygon


def _cut(polygons: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of polygons that are no wider and no higher than `side`, and whose they are."""
    owner = np.arange(len(polygons))
    while True:
        low, high = np.split(shapely.bounds(polygons), 2, axis=1)
        large = (high - low > side).any(axis=1)
        if not large.any():
            return polygons, owner
        low, high, whole = low[large], high[large], polygons[large]
        longer = (np.arange(len(low)), np.argmax(high - low, axis=1))
        end, start = high.copy(), low.copy()
        end[longer] = start[longer] = (low[longer] + high[longer]) / 2
        halves = [
            shapely.intersection(whole, shapely.box(*low.T, *end.T)),
            shapely.intersection(whole, shapely.box(*start.T, *high.T)),
        ]
        polygons = np.concatenate([polygons[~large], *halves])
        owner = np.concatenate([owner[~large], owner[large], owner[large]])


def _turns(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radians = np.radians(degrees)
    return np.sin(radians), np.cos(radians)


def _rectangles(rings: _Rings) -> tuple[np.ndarray, np.ndarray]:
    """Long and short sides of the smallest rectangles, each in the plane that touches there."""
    exterior = np.append(True, rings.owner[1:] != rings.owner[:-1])
    counts = np.diff(rings.first, append=rings.lonlat.shape[1])
    chosen = np.repeat(exterior, counts)
    first, counts = rings.first[exterior], counts[exterior]
    x, y, z = rings.points[:, chosen] - np.repeat(rings.points[:, first], counts, axis=1)
    (sin_lon, sin_lat), (cos_lon, cos_lat) = (
        np.repeat(turn, counts, axis=1) for turn in _turns(rings.lonlat[:, first])
    )
    outward = cos_lon * x + sin_lon * y  # from the axis, in the meridian's plane
    plane = np.stack([cos_lon * y - sin_lon * x, cos_lat * z - sin_lat * outward], axis=1)
    owner = np.repeat(np.arange(len(first)), counts)
    lost = np.isnan(plane).any(axis=1)
    plane[lost] = 0
    boxes = np.asarray(shapely.oriented_envelope(shapely.linestrings(plane, indices=owner)))
    sides = np.zeros((len(boxes), 2))
    solid = shapely.get_type_id(boxes) == shapely.GeometryType.POLYGON
    corners = shapely.get_coordinates(boxes[solid]).reshape(-1, 5, 2)
    sides[solid] = np.hypot(*np.diff(corners[:, :3], axis=1).transpose(2, 0, 1))
    sides[~solid, 0] = shapely.length(boxes[~solid])
    sides[owner[lost]] = np.nan
    return sides.max(axis=1), sides.min(axis=1)


def _affine(points: np.ndarray, transform: Affine) -> np.ndarray:
    x, y = points[:, 0], points[:, 1]
    return np.column_stack(
        [
            transform.a * x + transform.b * y + transform.c,
            transform.d * x + transform.e * y + transform.f,
        ]
    )
