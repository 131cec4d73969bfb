"""A landslide that several scenes show becomes one; nothing else is put together."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from affine import Affine
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import shapes
from shapely.geometry import shape

from landslide_mapper.geo.measure import reproject
from landslide_mapper.geo.merge import groups, neighbours, union

GRID = Affine(0.5, 0, 400000, 0, -0.5, 3500000)
PIXEL = 0.5


def polygons_of(mask: np.ndarray, transform: Affine = GRID) -> np.ndarray:
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=transform)
    return np.array([shape(geometry) for geometry, _ in found], dtype=object)


def merged(*cuts: np.ndarray) -> tuple[list[shapely.Polygon], list[set[int]]]:
    """What polygons of several scenes make together, and the scenes that each is of."""
    polygons = np.concatenate(cuts)
    scenes = np.repeat(np.arange(len(cuts)), [len(cut) for cut in cuts])
    found, shown = [], []
    for group in groups(polygons, scenes, PIXEL):
        for part in union(polygons[group], PIXEL) if len(group) > 1 else polygons[group]:
            found.append(part)
            shown.append(set(scenes[group].tolist()))
    return found, shown


def sorted_sets(polygons: list[shapely.Polygon]) -> list[shapely.Polygon]:
    return sorted(shapely.normalize(polygons), key=lambda polygon: polygon.wkb)


@given(
    seed=st.integers(0, 9999),
    smooth=st.integers(0, 2),
    share=st.floats(0.1, 0.7),
    cuts=st.tuples(st.integers(1, 29), st.integers(1, 29)),
    down=st.booleans(),
)
def test_two_cuts_of_a_mask_make_the_whole_again(
    seed: int, smooth: int, share: float, cuts: tuple[int, int], down: bool
) -> None:
    """With any overlap, none included; corners where landslides only touch keep them apart."""
    mask = blobs(seed, (30, 30), share, smooth)
    first, second = min(cuts), max(cuts)
    left, right = mask.copy(), mask.copy()
    left[:, second:] = False
    right[:, :first] = False
    if down:
        mask, left, right = mask.T, left.T, right.T
    found, shown = merged(polygons_of(left), polygons_of(right))
    expected = polygons_of(mask)
    assert len(found) == len(expected)
    for one, two in zip(sorted_sets(found), sorted_sets(list(expected)), strict=True):
        assert one.is_valid
        assert one.equals(two)
    for polygon, scenes in zip(found, shown, strict=True):
        assert scenes == {
            scene
            for scene, cut in enumerate((left, right))
            if shapely.intersects(polygons_of(cut), polygon.buffer(-0.1)).any()
        }


def test_only_scenes_that_meet_are_neighbours() -> None:
    boxes = [shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3), shapely.box(3.01, 1, 4, 2)]
    near = neighbours([*boxes, shapely.box(9, 9, 10, 10), shapely.Polygon()], 0.02)
    assert [None if one is None else one.area for one in near] == [4, 4.99, 4, None, None]


def test_scenes_of_another_crs_meet_within_the_slack() -> None:
    """The second scene lies beside the first one, and its corners are rounded on the way here."""
    left, right = shapely.box(400000, 0, 400010, 10), shapely.box(400010, 5, 400020, 15)
    for shift, count in ((0.0, 1), (0.01, 1), (-0.01, 1), (0.1, 2)):
        there = pyproj.Transformer.from_crs(32648, 4326, always_xy=True)
        back = pyproj.Transformer.from_crs(4326, 32648, always_xy=True)
        moved = np.array([shapely.affinity.translate(right, shift)])
        moved = reproject(reproject(moved, there), back)
        found, shown = merged(np.array([left]), moved)
        assert len(found) == count
        assert all(p.geom_type == "Polygon" and p.is_valid and not p.interiors for p in found)
        if count == 1:
            assert abs(found[0].area - 200) < 0.11
            assert shown == [{0, 1}]


def test_polygons_of_one_scene_stay_apart_and_order_is_kept() -> None:
    first = shapely.box([0, 2, 8], [0, 0, 0], [2, 4, 9], [1, 1, 1])  # two share an edge
    second = shapely.box([8.5], [0.5], [9.5], [1.5])
    found, shown = merged(first, second)
    assert [polygon.bounds for polygon in found] == [(0, 0, 2, 1), (2, 0, 4, 1), (8, 0, 9.5, 1.5)]
    assert shown == [{0}, {0}, {0, 1}]


def test_a_common_corner_puts_nothing_together() -> None:
    squares = shapely.box([0, 10], [0, 10], [10, 20], [10, 20])
    assert [group.tolist() for group in groups(squares, np.arange(2), PIXEL)] == [[0], [1]]


def test_a_slit_narrower_than_the_slack_is_closed() -> None:
    """It is open at one end only, or at none."""
    below = shapely.box(0, 0, 10, 10).difference(shapely.box(2, 9.99, 8, 10))
    for second in (shapely.box(0, 10, 10, 20), shapely.box(0, 10.01, 10, 20)):
        (whole,) = union(np.array([below, second]), PIXEL)
        assert not whole.interiors
        assert abs(whole.area - 200) < 1e-6


def test_what_another_crs_has_folded_is_put_together_all_the_same() -> None:
    spike = shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 20), (10, 10), (0, 10)])
    hole = [(9, 4), (11, 4), (11, 6), (9, 6)]  # that reaches over the edge
    crossed = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [hole])
    for folded, area in ((spike, 200), (crossed, 199)):
        (whole,) = union(np.array([folded, shapely.box(9.5, 0, 20, 10)]), PIXEL)
        assert whole.is_valid
        assert abs(whole.area - area) < 1e-6
