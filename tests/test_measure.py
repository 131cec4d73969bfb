"""Areas and lengths are the ellipsoid's, in every CRS and on every planet."""

from __future__ import annotations

import time

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import shapes
from shapely.geometry import shape

from landslide_mapper.geo.crs import wgs84_transformer
from landslide_mapper.geo.measure import (
    Measurer,
    inner_points,
    reproject,
    to_map,
)

MARS = (
    'PROJCS["SimpleCylindrical_Mars",GEOGCS["GCS_Mars",DATUM["D_Mars",'
    'SPHEROID["Mars",3396190,0]],PRIMEM["Reference_Meridian",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Equirectangular"],UNIT["metre",1]]'
)


def test_a_square_kilometre_at_60_degrees_north_is_one_in_every_crs() -> None:
    """Web Mercator would make it four."""
    square = np.array([shapely.segmentize(shapely.box(499500, 6650000, 500500, 6651000), 50)])
    for code in (32648, 3857, 4326, 3413):
        crs = pyproj.CRS.from_epsg(code)
        way = pyproj.Transformer.from_crs(32648, crs, always_xy=True)
        # The unit of the identity transform is 1 m, or 1 degree in EPSG:4326.
        gsd = 111000.0 if code == 4326 else 1.0
        measurer, placed = Measurer(crs, Affine.identity(), gsd), reproject(square, way)
        found = measurer.measure(placed)
        assert measurer.area(placed)[0] == pytest.approx(1e6, rel=1e-3)
        assert found.perimeter[0] == pytest.approx(4000, rel=1e-3)
        assert found.length[0] == pytest.approx(1000, rel=1e-3)
        assert found.width[0] == pytest.approx(1000, rel=1e-3)


def test_holes_count_in_area_and_perimeter_whatever_their_direction() -> None:
    crs = pyproj.CRS.from_epsg(32648)
    hole = [(20, 20), (20, 40), (40, 40), (40, 20)]
    polygons = np.array(
        [
            shapely.Polygon(shapely.box(0, 0, 100, 100).exterior.coords, [ring])
            for ring in (hole, hole[::-1])
        ]
    )
    transform = Affine(1, 0, 499950, 0, -1, 3500000)
    measurer = Measurer(crs, transform, 1.0)
    found = measurer.measure(polygons)
    np.testing.assert_allclose(measurer.area(polygons), 9600, rtol=1e-3)
    np.testing.assert_allclose(found.perimeter, 480, rtol=1e-3)


def test_long_and_short_side_of_a_turned_rectangle() -> None:
    crs = pyproj.CRS.from_epsg(4326)
    size = 1 / 111195.0
    transform = Affine(size, 0, 10.0, 0, -size, 0.0)  # at the equator a pixel is about 1 m
    turned = shapely.affinity.rotate(shapely.box(0, 0, 300, 100), 30)
    found = Measurer(crs, transform, 1.0).measure(np.array([turned]))
    assert found.length[0] == pytest.approx(300, rel=0.01)
    assert found.width[0] == pytest.approx(100, rel=0.01)


def test_long_edges_follow_the_crs_not_the_geodesic() -> None:
    """The sides of this 'rectangle' along parallels are 55 km; a geodesic would cut the corner."""
    found = Measurer(pyproj.CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 60.5), 80000.0).area(
        np.array([shapely.box(10, 0, 11, 1)])
    )
    lat = np.radians(np.linspace(59.5, 60.5, 10001))
    e2 = pyproj.Geod(ellps="WGS84").es
    curve = 1 - e2 * np.sin(lat) ** 2
    strip = 6378137.0**2 * (1 - e2) / curve**2 * np.cos(lat) * np.radians(1)
    assert found[0] == pytest.approx(np.trapezoid(strip, lat), rel=1e-5)


def test_a_picture_of_a_continent_is_measured_in_moments() -> None:
    """In pieces of 2.5 km, as finer scenes need, it takes minutes, and the planet gigabytes."""
    measurer = Measurer(pyproj.CRS.from_epsg(4326), Affine(0.5, 0, 0, 0, -0.5, 60), 50e3)
    started = time.process_time()
    area = measurer.area(np.array([shapely.box(0, 0, 60, 60)]))
    assert time.process_time() - started < 10
    north, south = (authalic_area(lat) for lat in (60, 30))
    assert area[0] == pytest.approx((north - south) / 12, rel=1e-5)


def authalic_area(lat: float) -> float:
    """Area in m² between the equator and a parallel."""
    geod = pyproj.Geod(ellps="WGS84")
    e, sine = geod.es**0.5, np.sin(np.radians(lat))
    q = (1 - geod.es) * (sine / (1 - geod.es * sine**2) + np.arctanh(e * sine) / e)
    return float(np.pi * geod.a**2 * q)


def test_mars_has_metres_but_no_way_to_earth() -> None:
    mars = pyproj.CRS.from_wkt(MARS)
    assert wgs84_transformer(mars) is None
    transform = Affine(200, 0, 0, 0, -200, 0)
    box = np.array([shapely.box(0, 0, 10, 10)])
    assert Measurer(mars, transform, 200.0).area(box)[0] == pytest.approx(4e6, rel=1e-3)
    lon, lat = inner_points(box, transform, None)
    assert np.isnan(lon).all()
    assert np.isnan(lat).all()


def test_without_crs_nothing_is_measured() -> None:
    measurer = Measurer(None, Affine.identity(), None)
    assert not measurer.metric
    assert np.isnan(measurer.area(np.array([shapely.box(0, 0, 1, 1)]))).all()
    assert np.isnan(measurer.measure(np.array([shapely.box(0, 0, 1, 1)])).perimeter).all()


def test_rotated_transforms_and_ring_direction() -> None:
    transform = Affine.translation(500000, 3500000) * Affine.rotation(25) * Affine.scale(2, -2)
    box = np.array([shapely.box(0, 0, 50, 10)])
    placed = to_map(box, transform)
    assert placed[0].area == pytest.approx(2000)
    assert placed[0].exterior.is_ccw
    measurer = Measurer(pyproj.CRS.from_epsg(32648), transform, 2.0)
    found = measurer.measure(box)
    assert measurer.area(box)[0] == pytest.approx(2000, rel=2e-3)
    assert (found.length[0], found.width[0]) == pytest.approx((100, 20), rel=2e-3)


def test_a_point_inside_is_inside() -> None:
    crs = pyproj.CRS.from_epsg(32648)
    ring = shapely.Polygon([(0, 0), (90, 0), (90, 90), (80, 90), (80, 10), (0, 10)])  # an L
    transform = Affine(1, 0, 500000, 0, -1, 3500000)
    way = wgs84_transformer(crs)
    lon, lat = inner_points(np.array([ring]), transform, way)
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(lon[0], lat[0])
    assert to_map(np.array([ring]), transform)[0].contains(shapely.Point(back))


@pytest.mark.parametrize("start", [170.0, 350.0, -190.0])
def test_longitudes_of_points_are_between_180_degrees_west_and_east(start: float) -> None:
    """Some scenes count them from 0 to 360, or on beyond the antimeridian."""
    boxes = shapely.box([0, 15], [0, 0], [2, 17], [2, 2])
    way = wgs84_transformer(pyproj.CRS.from_epsg(4326))
    lon, lat = inner_points(boxes, Affine(1, 0, start, 0, -1, 10), way)
    assert lon == pytest.approx([(start + x + 180) % 360 - 180 for x in (1, 16)])
    assert lat == pytest.approx([9, 9])


def test_what_lies_beyond_the_limb_has_no_longitude_and_no_latitude() -> None:
    view = pyproj.CRS.from_string("+proj=ortho +lat_0=0 +lon_0=0 +ellps=WGS84 +type=crs")
    boxes = shapely.box([0, 90], [-1, -1], [2, 92], [1, 1])  # 100 km pixels, 6378 km to the limb
    lon, lat = inner_points(boxes, Affine(1e5, 0, 0, 0, -1e5, 0), wgs84_transformer(view))
    assert np.isfinite([lon[0], lat[0]]).all()
    assert np.isnan([lon[1], lat[1]]).all()


def test_grads_are_no_degrees() -> None:
    """EPSG:4807 counts 400 to a turn, from Paris."""
    pixel = 1e-4
    there = Affine(pixel, 0, 2, 0, -pixel, 50)  # grads: 45 degrees north
    box = np.array([shapely.box(0, 0, 100, 100)])
    measurer = Measurer(pyproj.CRS.from_epsg(4807), there, 10.0)
    geod = pyproj.CRS.from_epsg(4807).get_geod()
    assert geod is not None
    lon, lat = np.array([2, 2, 2.01, 2.01]) * 0.9, np.array([50, 49.99, 49.99, 50]) * 0.9
    area, around = geod.polygon_area_perimeter(lon, lat)
    assert measurer.area(box) == pytest.approx([abs(area)], rel=1e-5)
    assert measurer.measure(box).perimeter == pytest.approx([around], rel=1e-5)


def test_long_edges_are_as_long_as_they_are_on_the_map() -> None:
    """A parallel is no great circle, and no straight way through the planet."""
    there = Affine(1, 0, 0, 0, -1, 60)  # degrees
    measurer = Measurer(pyproj.CRS.from_epsg(4326), there, 111_000.0)
    box = shapely.box(0, 0, 20, 1)
    on_map = shapely.segmentize(shapely.box(0, 59, 20, 60), 0.01)
    _, wanted = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(on_map)
    assert measurer.measure(np.array([box])).perimeter == pytest.approx([wanted], rel=1e-5)


def test_reprojected_rings_turn_as_they_should() -> None:
    way = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    box = shapely.box(5, 5, 6, 6, ccw=False)
    assert reproject(np.array([box]), way)[0].exterior.is_ccw


def outlines(seed: int, side: int = 40) -> np.ndarray:
    """Pixel-edge polygons with holes on a square of `side` pixels."""
    mask = blobs(seed, (side, side), 0.4)
    return np.array([shape(g) for g, _ in shapes(mask.astype(np.uint8), mask=mask)], dtype=object)


def geodesic(crs: pyproj.CRS, placed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and perimeters of `placed` polygons (coordinates of `crs`), ring by ring."""
    geod, geodetic = crs.get_geod(), crs.geodetic_crs
    assert geod is not None
    way = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    found = []
    for polygon in placed:
        rings = [
            geod.polygon_area_perimeter(*way.transform(*shapely.get_coordinates(ring).T))
            for ring in (polygon.exterior, *polygon.interiors)
        ]
        area = abs(rings[0][0]) - sum(abs(hole) for hole, _ in rings[1:])
        found.append((area, sum(around for _, around in rings)))
    return np.array(found).T


@given(
    seed=st.integers(0, 99),
    place=st.sampled_from(
        [
            (32648, 500000, 10000),
            (32648, 170000, 9300000),
            (3857, 11e6, 0),
            (3857, 1e6, 15e6),
            (3413, 0, 0),
            (3413, -2e6, 1.5e6),
            (4326, 179.999, 0.01),
            (4326, 10, 60),
            (4326, 0, 88),
            (4326, 0, -89.9),
            (MARS, 1e6, -2e6),
        ]
    ),
    gsd=st.sampled_from([2, 30, 1250]),
    turn=st.floats(0, 360),
)
def test_areas_and_perimeters_are_the_geodesics(
    seed: int, place: tuple[int | str, float, float], gsd: float, turn: float
) -> None:
    """From a pixel to 50 km, at the poles, across 180° and on Mars."""
    code, x, y = place
    crs = pyproj.CRS.from_user_input(code)
    unit = gsd / 111e3 if code == 4326 else gsd
    if code == 4326 and abs(y) + 40 * unit > 90:
        return
    transform = (
        Affine.translation(x - 20 * unit, y)
        * Affine.rotation(turn if code != 4326 or abs(y) < 80 else 0)
        * Affine.scale(unit, -unit)
    )
    polygons = outlines(seed)
    measurer = Measurer(crs, transform, gsd)
    fine = shapely.segmentize(polygons, 200 / gsd)
    area, perimeter = geodesic(crs, to_map(fine, transform))
    # Geod rounds azimuths: 2e-16 times the radius squared is a hundredth of a m² an edge.
    rounding = 0.02 * shapely.get_num_coordinates(fine)
    assert (abs(measurer.area(polygons) - area) < 1e-6 * area + rounding).all()
    np.testing.assert_allclose(measurer.measure(polygons).perimeter, perimeter, rtol=1e-6)


@pytest.mark.parametrize("gsd", [0.5, 2, 30, 100, 1250])
@pytest.mark.parametrize("lat", [-89, -45, 0, 30, 60, 80, 89])
def test_areas_in_degrees_are_those_of_the_authalic_cylinder(lat: float, gsd: float) -> None:
    """Between parallels and meridians, an area is a sum of differences of the authalic latitude."""
    polygons, unit = outlines(3), gsd / 111e3
    transform = Affine(unit, 0, 179.9, 0, -unit, lat)
    found = Measurer(pyproj.CRS.from_epsg(4326), transform, gsd).area(polygons)
    e, a = pyproj.Geod(ellps="WGS84").es ** 0.5, 6378137.0

    def area(ring: shapely.LinearRing) -> float:
        x, y = shapely.get_coordinates(ring).T
        sine = np.sin(np.radians(lat - y * unit))
        q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        turns = (x[1:] + x[:-1]) / 2 * np.diff(q)
        return float(abs(turns.sum()) * np.radians(unit) * a**2 / 2)

    expected = [area(p.exterior) - sum(area(hole) for hole in p.interiors) for p in polygons]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("gsd", [0.05, 0.5, 2, 30])
@pytest.mark.parametrize("place", [(32648, 170000, 9300000), (3395, 1e6, 15e6), (3413, 9, 9)])
def test_small_areas_are_the_plane_ones_over_the_scale(
    place: tuple[int, float, float], gsd: float
) -> None:
    code, x, y = place
    crs = pyproj.CRS.from_epsg(code)
    polygons = outlines(1)
    transform = Affine(gsd, 0, x, 0, -gsd, y)
    found = Measurer(crs, transform, gsd).area(polygons)
    centres = shapely.get_coordinates(shapely.centroid(to_map(polygons, transform)))
    lonlat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*centres.T)
    scale = pyproj.Proj(crs).get_factors(*lonlat).areal_scale
    np.testing.assert_allclose(found, shapely.area(polygons) * gsd**2 / scale, rtol=1e-6)


@given(seed=st.integers(0, 999), turn=st.floats(0, 180))
def test_no_turn_gives_a_smaller_rectangle(seed: int, turn: float) -> None:
    crs = pyproj.CRS.from_epsg(32648)
    polygons = outlines(seed)
    transform = Affine.translation(500000, 0) * Affine.rotation(turn)
    measurer = Measurer(crs, transform, 1.0)
    found, area = measurer.measure(polygons), measurer.area(polygons)
    turned = [shapely.affinity.rotate(p, angle) for p in polygons for angle in range(0, 90, 3)]
    low, high = np.split(shapely.bounds(turned).reshape(len(polygons), -1, 4), 2, axis=2)
    sides = np.prod(high - low, axis=2) * 0.9996**-2
    assert (found.length * found.width <= sides.min(axis=1) * (1 + 1e-6)).all()
    assert (found.length >= found.width).all()
    assert (found.length * found.width >= area * (1 - 1e-6)).all()


def test_places_that_are_nowhere_have_no_measures() -> None:
    crs = pyproj.CRS.from_proj4("+proj=ortho +lat_0=0 +lon_0=0 +ellps=WGS84")
    boxes = shapely.box([0, 7e6], 0, [1000, 7.1e6], 1000)  # the second is beside the globe
    measurer = Measurer(crs, Affine.identity(), 1.0)
    found = measurer.measure(boxes)
    for values in (measurer.area(boxes), found.perimeter, found.length, found.width):
        assert np.isfinite(values).tolist() == [True, False]
