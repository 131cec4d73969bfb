"""The part of a scene that is asked for: which pixels, through any window, in any CRS."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from fakes import UTM, model_info, write_scene
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from landslide_mapper.errors import LsmapError, once
from landslide_mapper.geo.aoi import VERTEX_STEPS, Aoi, _on_grid, place, read_area
from landslide_mapper.geo.crs import repaired
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.scene import Scene, open_scene
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.plan import ScenePlan, plan_detection, smallest_pixel

SHAPE = (90, 120)
TO_LONLAT = pyproj.Transformer.from_crs("EPSG:32648", "EPSG:4326", always_xy=True)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return open_scene(write_scene(tmp_path / "scene.tif", np.full(SHAPE, 9, np.uint8)))


def on_map(polygon: shapely.Polygon, transform: Affine = UTM) -> shapely.Polygon:
    """From pixel coordinates to the map."""
    return shapely.transform(polygon, lambda p: np.array([transform * tuple(xy) for xy in p]))


def write_area(path: Path, *polygons: shapely.Polygon, crs: str | None = "EPSG:32648") -> str:
    geopandas.GeoDataFrame(geometry=list(polygons), crs="EPSG:32648").to_crs(crs).to_file(path)
    return str(path)


def pixels(scene: Scene, **asked: Any) -> Aoi:
    area = read_area(asked.get("bounds"), asked.get("bounds_crs"), asked.get("aoi"))
    assert area is not None
    found = place(area, scene)
    assert found is not None
    return found


def all_of(aoi: Aoi, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return aoi.inside(0, 0, *shape)


STAR = shapely.Polygon([(20, 5), (110, 40), (70, 45), (95, 85), (50, 55), (3.3, 80.2), (35, 40)])
ISLAND = shapely.Point(100, 15).buffer(9)


def test_a_rectangle_is_the_pixels_with_their_centre_in_it(scene: Scene) -> None:
    west, north = UTM * (10.4, 20.6)
    east, south = UTM * (30.6, 41.4)
    aoi = pixels(scene, bounds=(west, south, east, north))
    assert aoi.frame == Frame(21, 10, 20, 21)
    assert aoi.polygons is None
    inside = all_of(aoi)
    assert inside[21:41, 10:31].all()
    assert inside.sum() == 20 * 21


def test_rectangles_that_meet_on_pixel_centres_share_none_and_leave_none_out(scene: Scene) -> None:
    boxes = [(10.5, 20.5, 30.5, 40.5), (30.5, 20.5, 50.5, 40.5), (10.5, 40.5, 30.5, 60.5)]
    frames = [pixels(scene, bounds=on_map(shapely.box(*box)).bounds).frame for box in boxes]
    assert frames == [Frame(20, 10, 20, 20), Frame(20, 30, 20, 20), Frame(40, 10, 20, 20)]


def test_a_rectangle_over_the_edge_is_cut(scene: Scene) -> None:
    west, north = UTM * (-50, -50)
    east, south = UTM * (40, 5000)
    assert pixels(scene, bounds=(west, south, east, north)).frame == Frame(0, 0, 90, 40)


def test_a_rectangle_in_another_crs_is_bent(scene: Scene) -> None:
    corner, far = UTM * (20, 70), UTM * (100, 10)
    lons, lats = TO_LONLAT.transform(*zip(corner, far, strict=True))
    bounds = (lons[0], lats[0], lons[1], lats[1])
    aoi = pixels(scene, bounds=bounds, bounds_crs="EPSG:4326")
    rows, cols = np.indices(SHAPE) + 0.5
    x, y = UTM * (cols, rows)
    lon, lat = TO_LONLAT.transform(x, y)
    expected = (lon > bounds[0]) & (lon < bounds[2]) & (lat > bounds[1]) & (lat < bounds[3])
    assert (all_of(aoi) == expected).all()
    assert 4000 < expected.sum() < 5000


@pytest.mark.parametrize("crs", ["EPSG:32648", "EPSG:4326", "EPSG:3857"])
def test_polygons_in_any_crs(scene: Scene, tmp_path: Path, crs: str) -> None:
    path = write_area(tmp_path / "aoi.gpkg", on_map(STAR), on_map(ISLAND), crs=crs)
    aoi = pixels(scene, aoi=path)
    expected = rasterize([STAR, ISLAND], out_shape=SHAPE) > 0
    # Vertices are moved by less than a hundredth of a pixel.
    assert (all_of(aoi) != expected).sum() <= (0 if crs == "EPSG:32648" else 3)
    assert aoi.frame == Frame(5, 3, 80, 107)  # pixels with their centre in the bounds
    points = shapely.get_coordinates(aoi.polygons) * VERTEX_STEPS
    assert (points == np.rint(points)).all()


@given(
    seed=st.integers(0, 999),
    row=st.integers(-20, 100),
    col=st.integers(-20, 130),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
)
def test_inside_does_not_depend_on_the_window(
    seed: int, row: int, col: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    # Vertices on halves: edges through pixel centres.
    points = rng.integers(-10, 140, (3, 5, 2)) / 2 + rng.integers(0, 40, (3, 1, 2))
    polygons = shapely.convex_hull(shapely.multipoints(points))
    aoi = Aoi(Frame(0, 0, *SHAPE), polygons)
    window = aoi.inside(row, col, height, width)
    padded = np.pad(all_of(aoi), ((20, 200), (20, 230)))
    assert (window == padded[row + 20 : row + 20 + height, col + 20 : col + 20 + width]).all()


@given(seed=st.integers(0, 9999), scale=st.sampled_from([0.001, 0.01, 1]))
def test_polygons_keep_their_place_and_are_valid_on_the_grid(seed: int, scale: float) -> None:
    """Some collapse, and some cross themselves there."""
    points = np.random.default_rng(seed).normal(50, scale, (12, 7, 2))
    polygons = repaired(shapely.polygons(points))
    found = _on_grid(polygons)
    assert shapely.is_valid(found).all()
    assert (shapely.area(found) > 0).all()
    moved = shapely.symmetric_difference(shapely.union_all(found), shapely.union_all(polygons))
    assert shapely.is_empty(shapely.buffer(moved, -0.003))


def test_both_options_are_the_intersection(scene: Scene, tmp_path: Path) -> None:
    path = write_area(tmp_path / "aoi.gpkg", on_map(STAR))
    west, north = UTM * (0, 0)
    east, south = UTM * (60, 50)
    aoi = pixels(scene, aoi=path, bounds=(west, south, east, north))
    expected = rasterize([STAR], out_shape=SHAPE) > 0
    expected[50:] = False
    expected[:, 60:] = False
    assert (all_of(aoi) == expected).all()
    assert aoi.frame.bottom <= 50
    assert aoi.frame.right <= 60
    lons, lats = TO_LONLAT.transform((west, east), (south, north))
    bent = pixels(
        scene, aoi=path, bounds=(lons[0], lats[0], lons[1], lats[1]), bounds_crs="EPSG:4326"
    )
    assert (all_of(bent) != expected).mean() < 0.01


def test_a_rectangle_in_a_hole_asks_for_nothing(scene: Scene, tmp_path: Path) -> None:
    ring = shapely.box(5, 5, 115, 85).difference(shapely.box(30, 20, 90, 70))
    west, south, east, north = on_map(shapely.box(40, 30, 60, 50)).bounds
    area = read_area(
        (west, south, east, north), None, write_area(tmp_path / "a.gpkg", on_map(ring))
    )
    assert area is not None
    assert place(area, scene) is None


def test_the_whole_earth_meets_a_scene_in_utm(scene: Scene) -> None:
    aoi = pixels(scene, bounds=(-180, -90, 180, 90), bounds_crs="EPSG:4326")
    assert aoi.frame == Frame.whole(*SHAPE)
    assert all_of(aoi).all()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize(("west", "east"), [(179, 180), (-180, -179), (-180, 180)])
def test_a_scene_in_metres_across_the_antimeridian(
    tmp_path: Path, west: float, east: float, crs: str
) -> None:
    """The rectangle is two degrees high, and its sides are bent in the CRS of the scene."""
    to_scene = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True)
    x, y = to_scene.transform(180, -17)
    lies = Affine(0.5, 0, x - 30, 0, -0.5, y + 20)
    scene = open_scene(
        write_scene(tmp_path / "s.tif", np.full(SHAPE, 9, np.uint8), "EPSG:32760", lies)
    )
    asked = geopandas.GeoDataFrame(geometry=[shapely.box(west, -18, east, -16)], crs="EPSG:4326")
    asked.to_crs(crs).to_file(tmp_path / "aoi.gpkg")
    rows, cols = np.indices(SHAPE) + 0.5
    lon, _ = to_scene.transform(*(lies * (cols, rows)), direction="INVERSE")
    expected = (lon > west) & (lon < east)
    assert expected.mean() > 0.4
    # Its edges are followed in pieces, to a tenth of a pixel or so.
    assert (all_of(pixels(scene, aoi=str(tmp_path / "aoi.gpkg"))) != expected).sum() <= 20


def test_a_rectangle_across_the_antimeridian(tmp_path: Path) -> None:
    """Its west is east of its east, as `lsmap info` and RFC 7946 write it."""
    to_scene = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True)
    x, y = to_scene.transform(180, -17)
    lies = Affine(0.5, 0, x - 30, 0, -0.5, y + 20)
    pixel_values = np.full(SHAPE, 9, np.uint8)
    scene = open_scene(write_scene(tmp_path / "s.tif", pixel_values, "EPSG:32760", lies))
    rows, cols = np.indices(SHAPE) + 0.5
    lon, _ = to_scene.transform(*(lies * (cols, rows)), direction="INVERSE")
    east = -180 + float(np.quantile(lon[lon < 0] + 180, 0.5))
    inside = pixels(scene, bounds=(179.0, -18.0, east, -16.0), bounds_crs="EPSG:4326")
    expected = (lon > 0) | (lon < east)
    assert 0.5 < expected.mean() < 0.9
    assert (all_of(inside) != expected).sum() <= 20
    with pytest.raises(LsmapError, match="west below east"):  # the two sides were mixed up
        read_area((104.5, 29.0, 104.4, 30.0), "EPSG:4326", None)
    with pytest.raises(LsmapError, match="west below east"):  # metres
        read_area((170.0, 29.0, -170.0, 30.0), "EPSG:32648", None)


def test_a_rotated_scene(tmp_path: Path) -> None:
    turned = Affine.translation(300000, 3500000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    path = write_scene(tmp_path / "s.tif", np.full(SHAPE, 9, np.uint8), transform=turned)
    corners = on_map(shapely.box(40, 30, 60, 50), turned).bounds
    aoi = pixels(open_scene(path), bounds=corners)
    rows, cols = np.indices(SHAPE) + 0.5
    x, y = turned * (cols, rows)
    inside = (x > corners[0]) & (x < corners[2]) & (y > corners[1]) & (y < corners[3])
    assert (all_of(aoi) == inside).all()


def test_it_travels_to_other_processes(scene: Scene, tmp_path: Path) -> None:
    aoi = pixels(scene, aoi=write_area(tmp_path / "aoi.gpkg", on_map(STAR)))
    before = all_of(aoi)
    assert (all_of(pickle.loads(pickle.dumps(aoi))) == before).all()


def plans(scenes: tuple[str, ...], folder: Path, **options: Any) -> list[ScenePlan]:
    return plan_detection(DetectConfig(scenes, folder / "out.gpkg", **options), model_info())


def test_scenes_of_which_nothing_is_asked_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    band = np.full(SHAPE, 9, np.uint8)
    one = write_scene(tmp_path / "one.tif", band)
    two = write_scene(tmp_path / "two.tif", band, transform=UTM * Affine.translation(5000, 0))
    aoi = write_area(tmp_path / "aoi.gpkg", on_map(STAR))
    (found,) = plans((two, one), tmp_path, aoi=aoi, mask=tmp_path / "mask.tif")
    assert found.scene.name == "one.tif"
    assert found.aoi is not None
    assert found.frame == found.aoi.frame
    assert (found.grid.height, found.grid.width) == SHAPE
    assert "left out, nothing of them was asked for: two.tif" in capsys.readouterr().err
    with pytest.raises(LsmapError, match=r"two\.tif: this is an input"):
        plans((two, one), tmp_path, aoi=aoi, mask=Path(two), overwrite=True)


def test_a_rectangle_is_one_place_in_scenes_of_several_crs(tmp_path: Path) -> None:
    band = np.full(SHAPE, 9, np.uint8)
    one = write_scene(tmp_path / "one.tif", band)
    same = write_scene(tmp_path / "same.tif", band)
    other = write_scene(tmp_path / "other.tif", band, crs="EPSG:32647")
    west, north = UTM * (20, 10)
    east, south = UTM * (60, 50)
    bbox = (west, south, east, north)
    says = r"one.tif is in EPSG:32648 and other.tif in EPSG:32647; .* --bbox-crs$"
    with pytest.raises(LsmapError, match=says):
        plans((one, same, other), tmp_path, bbox=bbox)
    (found,) = plans((one, other), tmp_path, bbox=bbox, bbox_crs="EPSG:32648")
    assert found.scene.name == "one.tif"


def test_the_frame_is_in_working_pixels(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "one.tif", np.full(SHAPE, 9, np.uint8))
    west, north = UTM * (20, 10)
    east, south = UTM * (60, 50)
    bbox = (west, south, east, north)
    (found,) = plans((scene,), tmp_path, bbox=bbox, gsd=1.0)
    assert found.frame == Frame(5, 10, 20, 20)
    assert found.footprint.bounds == pytest.approx(bbox)
    assert smallest_pixel([found]) == pytest.approx(1)
    place = UTM * Affine.scale(0.1)
    fine = write_scene(tmp_path / "fine.tif", np.ones((9, 9), np.uint8), transform=place)
    assert smallest_pixel(plans((scene, fine), tmp_path, gsd="native")) == pytest.approx(0.05)


def test_a_footprint_is_bent_in_the_crs_of_the_layer(tmp_path: Path) -> None:
    """By four tenths of these pixels in the middle of an edge of 120 kilometres."""
    band = np.full((300, 300), 9, np.uint8)
    first = write_scene(tmp_path / "a.tif", band, "EPSG:4326", Affine(1e-5, 0, 103, 0, -1e-5, 32))
    place = UTM * Affine.scale(800)  # pixels of 400 m
    second = write_scene(tmp_path / "b.tif", band, transform=place)
    found = plans((first, second), tmp_path, gsd="native")[1].footprint
    whole = on_map(shapely.box(0, 0, 300, 300), place)
    edge = shapely.get_coordinates(shapely.segmentize(whole, 400))
    outline = shapely.points(np.column_stack(TO_LONLAT.transform(*edge.T)))
    off = shapely.distance(found.exterior, outline)
    assert off.max() < 0.01 * 400 / 111e3


def test_a_shift_between_scenes_that_is_not_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    band = np.full(SHAPE, 9, np.uint8)
    first = write_scene(tmp_path / "a.tif", band)
    place = Affine(2, 0, 18300000, 0, -2, 3500000)
    second = write_scene(tmp_path / "b.tif", band, "EPSG:21418", place)  # Beijing 1954
    once.cache_clear()
    plans((first, second), tmp_path)
    said = capsys.readouterr().err
    assert said.count("the shift between the datums of Beijing 1954 / ") == 1


def test_no_overlap_is_not_the_default(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "one.tif", np.full(SHAPE, 9, np.uint8))
    for asked, overlap in ((None, 16), (0, 0), (9, 9)):
        (found,) = plans((scene,), tmp_path, overlap=asked)
        assert found.grid.overlap == overlap


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"bbox": (0.0, 0.0, 10.0, 10.0)},
            r"spans x 300000 to 300060, .*--bbox spans x 0 to 10, .*\(the same CRS",
        ),
        (
            {"bbox": (5.0, 45.0, 6.0, 46.0), "bbox_crs": "EPSG:4326"},
            r"\(EPSG:32648\), --bbox spans x 5 to 6, y 45 to 46 \(EPSG:4326\)",
        ),
        ({"bbox": (1.0, 0.0, 0.0, 10.0)}, "west below east"),
        ({"bbox": (0.0, 10.0, 1.0, 0.0)}, "south below north"),
        ({"bbox": (0.0, 0.0, math.inf, 10.0)}, "--bbox 0,0,inf,10: give west"),
        ({"bbox": (-1e308, 0.0, 1e308, 10.0)}, "--bbox -1e[+]308,0,1e[+]308,10: give west"),
        ({"bbox_crs": "EPSG:4326"}, "there is no --bbox"),
        ({"bbox": (0.0, 0.0, 1.0, 1.0), "bbox_crs": "EPSG:0"}, "not a coordinate reference system"),
        ({"aoi": "absent.gpkg"}, "no such file"),
    ],
)
def test_areas_that_cannot_be_had(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full(SHAPE, 9, np.uint8))
    with pytest.raises(LsmapError, match=says) as error:
        plans((scene,), tmp_path, **options)
    assert "\n" not in str(error.value)


def test_points_are_no_area(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full(SHAPE, 9, np.uint8))
    path = write_area(tmp_path / "aoi.gpkg", on_map(STAR).centroid)
    with pytest.raises(LsmapError, match=r"aoi.gpkg: there is no polygon in it .* the AOI"):
        plans((scene,), tmp_path, aoi=path)


def test_an_area_without_crs_and_a_scene_with_one(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full(SHAPE, 9, np.uint8))
    path = tmp_path / "aoi.shp"
    write_area(path, on_map(STAR))
    path.with_suffix(".prj").unlink()
    with pytest.raises(LsmapError, match=r"aoi.shp: has no coordinate reference system"):
        plans((scene,), tmp_path, aoi=str(path))


def test_a_plain_image_has_its_own_coordinates(tmp_path: Path) -> None:
    identity = Affine.identity()
    scene = write_scene(
        tmp_path / "s.tif", np.full(SHAPE, 9, np.uint8), crs=None, transform=identity
    )
    (found,) = plans((scene,), tmp_path, bbox=(10.0, -40.0, 30.0, -20.0))
    assert found.frame == Frame(20, 10, 20, 20)


@pytest.mark.parametrize(
    ("crs", "side", "corner"),
    [("EPSG:32648", 0.5, (300000, 3500000)), ("EPSG:4326", 4.5e-6, (103, 31))],
)
def test_bounds_on_a_turned_scene_are_the_map_s(
    tmp_path: Path, crs: str, side: float, corner: tuple[float, float]
) -> None:
    """Also where pixels are a few millionths of a degree."""
    turned = Affine.translation(*corner) * Affine.rotation(45) * Affine.scale(side, -side)
    scene = open_scene(
        write_scene(tmp_path / "scene.tif", np.ones((256, 256), np.uint8), crs, turned)
    )
    x, y = turned * (128, 128)
    half = 30 * side
    found = place(read_area((x - half, y - half, x + half, y + half), None, None), scene)
    assert found is not None
    assert found.inside(0, 0, 256, 256).sum() == pytest.approx(3600, rel=0.01)
