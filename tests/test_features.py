"""What is left out, filled and measured, and that mask and polygons say the same."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from fakes import blobs, write_scene
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize

from landslide_mapper.geo.features import Landslides, Shaping
from landslide_mapper.geo.rasters import UNSEEN, ArrayCanvas, classes
from landslide_mapper.geo.scene import Scene, open_scene
from landslide_mapper.geo.vector_formats import FIELDS
from landslide_mapper.geo.vectorize import Components, vectorize_block


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """60 × 70 pixels of 0.25 m²."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return open_scene(write_scene(path, np.ones((60, 70), np.uint8)))


def components(mask: np.ndarray, row: int = 0, col: int = 0) -> Components:
    probability = np.where(mask, 0.75, 0.25).astype(np.float32)
    return vectorize_block(mask, probability[mask], row, col).whole


@given(
    seed=st.integers(0, 9999),
    share=st.floats(0.2, 0.8),
    min_area=st.sampled_from([0.0, 1.0, 8.0, 1e6]),
    fill_holes=st.sampled_from([0.0, 1.0, 8.0, 1e6]),
    place=st.sampled_from([(0, 0), (7, 11)]),
)
def test_the_mask_is_the_polygons(
    scene: Scene,
    seed: int,
    share: float,
    min_area: float,
    fill_holes: float,
    place: tuple[int, int],
) -> None:
    mask = blobs(seed, (40, 50), share, seed % 3)
    valid = np.random.default_rng(seed).random(mask.shape) > 0.01
    mask &= valid
    canvas = ArrayCanvas(classes(mask, valid), *place)
    found = components(mask, *place)
    landslides = Landslides(scene, Shaping(min_area, fill_holes, 0))
    kept, outlines, _ = landslides.shape(found, canvas)
    assert outlines is kept.polygons
    assert shapely.is_valid(outlines).all()
    moved = shapely.transform(outlines, lambda points: points - np.array(place[::-1]))
    burnt = np.zeros(mask.shape, bool)
    if len(moved):
        burnt = rasterize(moved, out_shape=mask.shape).astype(bool)
    np.testing.assert_array_equal(canvas.values, classes(burnt, valid))
    columns = landslides.columns(kept, outlines)
    assert (columns["area_m2"] >= min_area).all()
    large = landslides.columns(found, found.polygons)["area_m2"] >= min_area
    assert len(kept) == large.sum()
    if fill_holes == 0:
        assert shapely.equals(outlines, found.polygons[large]).all()
    for polygon in moved:
        for ring in polygon.interiors:
            hole = shapely.Polygon(ring)
            inside = canvas.values[rasterize([hole], out_shape=mask.shape).astype(bool)]
            assert hole.area / 4 > fill_holes * 0.99 or np.isin(inside, (1, UNSEEN)).any()


def test_every_number_of_a_row_is_measured(scene: Scene) -> None:
    mask = np.zeros((60, 70), bool)
    mask[10:20, 30:50] = True
    mask[12:14, 33:35] = False
    probability = np.where(mask, 0.5, 0).astype(np.float32)
    probability[15, 40] = 1
    found = vectorize_block(mask, probability[mask]).whole
    landslides = Landslides(scene, Shaping())
    kept, outlines, _ = landslides.shape(found, None)
    columns = landslides.columns(kept, outlines)
    assert set(columns) == {name for name, kind in FIELDS.items() if kind is np.float64}
    assert all(values.shape == (1,) and values.dtype == np.float64 for values in columns.values())
    row = {name: values[0] for name, values in columns.items()}
    # The scale of UTM is 1.00008 here.
    assert row["area_m2"] == pytest.approx((200 - 4) / 4, rel=3e-4)
    exact = landslides.columns(kept, kept.polygons)
    assert exact["perimeter_m"][0] == pytest.approx(60 / 2 + 8 / 2, rel=3e-4)
    assert 0.9 * exact["perimeter_m"][0] < row["perimeter_m"] < exact["perimeter_m"][0]
    assert row["length_m"] == pytest.approx(10, rel=3e-4)
    assert row["width_m"] == pytest.approx(5, rel=3e-4)
    assert row["confidence"] == pytest.approx((195 * 0.5 + 1) / 196)
    assert row["max_probability"] == 1
    assert 102 < row["lon"] < 103
    assert 31 < row["lat"] < 32


def test_no_component_makes_no_row(scene: Scene) -> None:
    nothing = components(np.zeros((4, 5), bool))
    canvas = ArrayCanvas(np.zeros((4, 5), np.uint8), 0, 0)
    landslides = Landslides(scene, Shaping(5, 5))
    kept, outlines, _ = landslides.shape(nothing, canvas, np.zeros(0))
    assert len(kept) == len(outlines) == 0
    assert all(len(values) == 0 for values in landslides.columns(kept, outlines).values())


def test_room_stays_with_its_polygon(scene: Scene) -> None:
    """Without room a polygon moves little, however large the tolerance."""
    mask = np.zeros((60, 70), bool)
    mask[0, 0] = True  # left out, and its room with it
    for left in (10, 40):
        steps = np.arange(20)
        for step in steps:
            mask[20 + step // 4 : 50, left + step] = True
    found = components(mask)
    landslides = Landslides(scene, Shaping(min_area=10, tolerance=2))
    room = np.array([9.0, 0.0, 1e9])
    kept, outlines, _ = landslides.shape(found, None, room)
    assert len(kept) == 2
    moved = shapely.hausdorff_distance(kept.polygons, outlines)
    assert moved[0] <= 0.71 < moved[1] <= 4
