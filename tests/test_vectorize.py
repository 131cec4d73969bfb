"""Polygons are exactly the mask, whatever the strips; simplified ones stay close and valid."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize, shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from landslide_mapper.geo.simplify import DEFAULT_TOLERANCE, simplify
from landslide_mapper.geo.vectorize import Components, StripVectorizer

masks = hnp.arrays(
    bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans(), fill=st.just(1)
)


def vectorize(mask: np.ndarray, heights: list[int], probability: np.ndarray) -> Components:
    """Vectorise a whole mask in strips whose heights go round in `heights`."""
    vectorizer = StripVectorizer(mask.shape[1])
    found, row, turn = [], 0, 0
    while row < len(mask):
        end = row + heights[turn % len(heights)]
        found.append(vectorizer.add(mask[row:end], probability[row:end]))
        row, turn = end, turn + 1
    found.append(vectorizer.finish())
    return Components(
        *(
            np.concatenate([getattr(part, name) for part in found])
            for name in ("polygons", "pixels", "total", "highest")
        )
    )


def full(mask: np.ndarray) -> list[BaseGeometry]:
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4)
    return [shape(geometry) for geometry, _ in found]


def same_sets(a: np.ndarray, b: list[BaseGeometry]) -> bool:
    """Equal polygons with equal vertices, in any order."""
    return sorted(g.wkb for g in shapely.normalize(a)) == sorted(g.normalize().wkb for g in b)


def burnt(polygons: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if len(polygons) == 0:
        return np.zeros(shape, bool)
    return rasterize(polygons, out_shape=shape).astype(bool)


@given(mask=masks, heights=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_strips_give_the_polygons_of_the_whole_mask(mask: np.ndarray, heights: list[int]) -> None:
    probability = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    found = vectorize(mask, heights, probability)
    assert shapely.is_valid(found.polygons).all()
    assert same_sets(found.polygons, full(mask))
    np.testing.assert_array_equal(burnt(found.polygons, mask.shape), mask)
    assert found.pixels.sum() == mask.sum()
    for polygon, pixels, total, highest in zip(
        found.polygons, found.pixels, found.total, found.highest, strict=True
    ):
        inside = probability[burnt(np.array([polygon]), mask.shape)]
        assert polygon.area == pixels == inside.size
        assert total == pytest.approx(inside.sum(dtype=np.float64))
        assert highest == inside.max()


@pytest.mark.parametrize("height", [1, 7, 64, 500])
def test_large_masks_with_holes_islands_and_pinch_points(height: int) -> None:
    for mask in (blobs(1, (240, 200)), blobs(2, (200, 240), 0.6, 1), blobs(3, (90, 90), 0.5, 0)):
        found = vectorize(mask, [height], mask.astype(np.float32))
        assert same_sets(found.polygons, full(mask))
        np.testing.assert_array_equal(burnt(found.polygons, mask.shape), mask)


def test_components_are_given_out_as_soon_as_they_end() -> None:
    vectorizer = StripVectorizer(6)
    first = np.array([[1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 1]], bool)
    assert len(vectorizer.add(first, first.astype(np.float32))) == 1
    below = np.array([[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0]], bool)  # (2, 2) touches only a corner
    found = vectorizer.add(below, below.astype(np.float32))
    assert sorted(found.pixels) == [1, 1, 3]
    assert list(vectorizer.finish().pixels) == [2]


@given(mask=masks, tolerance=st.sampled_from([0.1, 0.3, DEFAULT_TOLERANCE, 0.7, 1.0, 2.5, 6.0]))
def test_simplified_polygons_are_valid_close_and_apart(mask: np.ndarray, tolerance: float) -> None:
    exact = vectorize(mask, [5], mask.astype(np.float32)).polygons
    simple = simplify(exact, tolerance)
    assert len(simple) == len(exact)
    if len(exact) == 0:
        return
    assert (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(simple).all()
    moved = shapely.hausdorff_distance(shapely.boundary(exact), shapely.boundary(simple))
    assert moved.max() <= tolerance + 1e-6
    a, b = shapely.STRtree(simple).query(simple, predicate="intersects")
    assert (a == b).all()


def test_half_a_pixel_straightens_staircases() -> None:
    diagonal = np.tri(60, 60, dtype=bool)
    exact = vectorize(diagonal, [60], diagonal.astype(np.float32)).polygons
    assert shapely.get_num_coordinates(exact)[0] == 123
    assert shapely.get_num_coordinates(simplify(exact, DEFAULT_TOLERANCE))[0] <= 8
    assert simplify(exact, 0) is exact
    mask = blobs(5, (300, 300), smooth=4)
    exact = vectorize(mask, [64], mask.astype(np.float32)).polygons
    simple = simplify(exact, DEFAULT_TOLERANCE)
    assert shapely.length(simple).sum() < 0.9 * shapely.length(exact).sum()
    assert shapely.area(simple).sum() == pytest.approx(shapely.area(exact).sum(), rel=0.01)


def test_neighbours_that_would_meet_keep_the_safe_tolerance() -> None:
    comb = np.zeros((40, 60), bool)
    comb[:20, ::4] = comb[0] = True
    comb[22:, 2::4] = comb[-1] = True
    comb[18:24, 2::4] = True  # teeth that reach into each other
    exact = vectorize(comb, [40], comb.astype(np.float32)).polygons
    simple = simplify(exact, 8.0)
    a, b = shapely.STRtree(simple).query(simple, predicate="intersects")
    assert (a == b).all()
