"""Areas and lengths are the ellipsoid's, in every CRS and on every planet."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from landslide_mapper.geo.measure import (
    Measurer,
    inner_points,
    reproject,
    to_map,
    wgs84_transformer,
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
        found = Measurer(crs, Affine.identity(), gsd).measure(reproject(square, way))
        assert found.area[0] == pytest.approx(1e6, rel=1e-3)
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
    found = Measurer(crs, transform, 1.0).measure(polygons)
    np.testing.assert_allclose(found.area, 9600, rtol=1e-3)
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
    assert np.isnan(measurer.measure(np.array([shapely.box(0, 0, 1, 1)])).area).all()


def test_rotated_transforms_and_ring_direction() -> None:
    transform = Affine.translation(500000, 3500000) * Affine.rotation(25) * Affine.scale(2, -2)
    box = np.array([shapely.box(0, 0, 50, 10)])
    placed = to_map(box, transform)
    assert placed[0].area == pytest.approx(2000)
    assert placed[0].exterior.is_ccw
    found = Measurer(pyproj.CRS.from_epsg(32648), transform, 2.0).measure(box)
    assert found.area[0] == pytest.approx(2000, rel=2e-3)
    assert (found.length[0], found.width[0]) == pytest.approx((100, 20), rel=2e-3)


def test_a_point_inside_is_inside() -> None:
    crs = pyproj.CRS.from_epsg(32648)
    ring = shapely.Polygon([(0, 0), (90, 0), (90, 90), (80, 90), (80, 10), (0, 10)])  # an L
    transform = Affine(1, 0, 500000, 0, -1, 3500000)
    way = wgs84_transformer(crs)
    lon, lat = inner_points(np.array([ring]), transform, way)
    back = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(lon[0], lat[0])
    assert to_map(np.array([ring]), transform)[0].contains(shapely.Point(back))
