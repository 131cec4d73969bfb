"""Simplified outlines are valid, close to the exact ones, and apart whatever is simplified when."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from fakes import blobs
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.joining import Joiner
from landslide_mapper.geo.simplify import (
    DEFAULT_TOLERANCE,
    SAFE_TOLERANCE,
    room_between,
    room_inside,
    simplify,
)
from landslide_mapper.geo.vectorize import Components, vectorize_block

tolerances = st.sampled_from([0.1, 0.3, DEFAULT_TOLERANCE, 0.7, SAFE_TOLERANCE, 1.0, 2.5, 6.0])
small = hnp.arrays(
    bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans(), fill=st.just(1)
)
large = st.builds(
    blobs,
    st.integers(0, 999),
    st.tuples(st.integers(15, 60), st.integers(15, 60)),
    st.sampled_from([0.1, 0.3, 0.5, 0.7]),
    st.integers(0, 3),
)


def vectorize(mask: np.ndarray) -> Components:
    return vectorize_block(mask, mask[mask].astype(np.float32)).whole


def check(exact: np.ndarray, simple: np.ndarray, tolerance: float) -> None:
    """Valid, single, close, apart."""
    assert len(simple) == len(exact)
    if len(exact) == 0:
        return
    assert (shapely.get_type_id(simple) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(simple).all()
    assert (shapely.get_num_interior_rings(simple) == shapely.get_num_interior_rings(exact)).all()
    moved = shapely.hausdorff_distance(shapely.boundary(exact), shapely.boundary(simple))
    assert moved.max() <= tolerance + 1e-6
    a, b = shapely.STRtree(simple).query(simple, predicate="intersects")
    assert (a == b).all()


@given(mask=st.one_of(small, large), tolerance=tolerances)
@example(blobs(4, (14, 14), 0.7, 2), 2.5)  # crosses itself, if GEOS does not look for that
def test_simplified_polygons_are_valid_close_and_apart(mask: np.ndarray, tolerance: float) -> None:
    exact = vectorize(mask).polygons
    check(exact, simplify(exact, tolerance), tolerance)


@given(mask=large, tolerance=tolerances, cut=st.integers(1, 14), across=st.booleans())
def test_polygons_simplified_block_by_block_are_apart(
    mask: np.ndarray, tolerance: float, cut: int, across: bool
) -> None:
    parts = (mask[:cut], mask[cut:]) if across else (mask[:, :cut], mask[:, cut:])
    joiner = Joiner(1 if across else 2)
    exact, simple = [], []
    for number, part in enumerate(parts):
        row, col = (number * cut, 0) if across else (0, number * cut)
        on_side = (number == 1, number == 0)
        inner = (*on_side, False, False) if across else (False, False, *on_side)
        block = vectorize_block(part, part[part].astype(np.float32), row, col, inner)
        whole = block.whole.polygons
        room = room_inside(whole, Frame(row, col, *part.shape), inner)
        turn = (number, 0) if across else (0, number)
        joined = joiner.add(*turn, block.open, block.sides).polygons
        exact += [whole, joined]
        simple += [
            simplify(whole, tolerance, room, block.open.polygons),
            simplify(joined, tolerance, np.zeros(len(joined))),
        ]
    assert len(joiner.finish()) == 0
    check(np.concatenate(exact), np.concatenate(simple), tolerance)


def test_half_a_pixel_straightens_staircases() -> None:
    diagonal = np.tri(60, 60, dtype=bool)
    exact = vectorize(diagonal).polygons
    assert shapely.get_num_coordinates(exact)[0] == 123
    assert shapely.get_num_coordinates(simplify(exact, DEFAULT_TOLERANCE))[0] <= 8
    assert simplify(exact, 0) is exact
    mask = blobs(5, (300, 300), smooth=4)
    exact = vectorize(mask).polygons
    simple = simplify(exact, DEFAULT_TOLERANCE)
    assert shapely.length(simple).sum() < 0.9 * shapely.length(exact).sum()
    assert shapely.area(simple).sum() == pytest.approx(shapely.area(exact).sum(), rel=0.01)


def test_a_large_tolerance_is_used_where_there_is_room() -> None:
    mask = np.zeros((60, 100), bool)
    mask[20:40, 10:30] = np.tri(20, 20, dtype=bool)
    mask[np.arange(20, 40, 2), np.arange(10, 30, 2) - 1] = True  # a ragged slope
    alone = vectorize(mask)
    roomy = shapely.get_num_coordinates(simplify(alone.polygons, 4.0))[0]
    tight = shapely.get_num_coordinates(simplify(alone.polygons, 4.0, np.zeros(1)))[0]
    assert roomy < tight
    safe = simplify(alone.polygons, SAFE_TOLERANCE)
    for tolerance in (1.0, 4.0):
        assert not shapely.equals_exact(simplify(alone.polygons, tolerance), safe).any()
        assert shapely.equals_exact(simplify(alone.polygons, tolerance, np.zeros(1)), safe).all()
    mask[15:45, 32:34] = True  # two pixels away
    both = vectorize(mask).polygons
    first = np.flatnonzero(shapely.bounds(both)[:, 0] < 20)[0]
    neighbour = np.flatnonzero(shapely.bounds(both)[:, 0] >= 30)
    given_together = simplify(both, 4.0)[first]
    given_beside = simplify(both[[first]], 4.0, beside=both[neighbour])[0]
    assert given_together.equals_exact(given_beside)
    assert not given_together.equals_exact(simplify(alone.polygons, 4.0)[0])


def test_a_hole_with_an_island_and_a_corner_that_touches() -> None:
    mask = np.ones((30, 30), bool)
    mask[5:25, 5:25] = False
    mask[10:20, 10:20] = np.tri(10, 10, dtype=bool)
    mask[24, 24] = True  # hangs on the frame by a corner only
    mask[24, 25] = False
    mask[25, 24] = False
    exact = vectorize(mask).polygons
    assert len(exact) == 3
    for tolerance in (0.5, 2.0, 8.0):
        check(exact, simplify(exact, tolerance), tolerance)


def test_teeth_that_reach_into_each_other_stay_apart() -> None:
    comb = np.zeros((40, 60), bool)
    comb[:20, ::4] = comb[0] = True
    comb[22:, 2::4] = comb[-1] = True
    comb[18:24, 2::4] = True
    exact = vectorize(comb).polygons
    check(exact, simplify(exact, 8.0), 8.0)


def test_a_vertex_that_geos_drops_late_does_not_stray() -> None:
    exact = vectorize(blobs(3, (30, 30), 0.3, 2)).polygons[:1]
    check(exact, simplify(exact, 6.0), 6.0)


@pytest.mark.parametrize("tolerance", [0.3, DEFAULT_TOLERANCE, SAFE_TOLERANCE, 2.5])
def test_corners_that_smaller_pixels_reach_into_are_not_cut(tolerance: float) -> None:
    """As where a landslide goes on from a coarse scene into a fine one."""
    coarse = shapely.union(shapely.box(0, 0, 10, 4), shapely.box(0, 0, 4, 10))
    fine = shapely.union(shapely.box(4.1, 4.12, 6.1, 4.42), shapely.box(5.8, 3.5, 6.1, 4.42))
    exact = np.array([shapely.union(coarse, fine)])
    check(exact, simplify(exact, tolerance), tolerance)


def test_room_is_the_distance_to_the_nearest_other_polygon() -> None:
    boxes = shapely.box([0, 17, 17], [0, 0, 19.5], [10, 30, 30], [10, 10, 30])
    assert room_between(boxes, 4.0).tolist() == [7, 7, np.inf]  # up to twice the tolerance
    assert room_between(boxes, 5.0).tolist() == [7, 7, 9.5]
    assert room_between(boxes, 5.0, np.array([np.inf, 2.0, 1.0])).tolist() == [7, 2, 1]
    assert room_between(boxes[:1], 4.0, None, boxes[1:]).tolist() == [7]
    near = shapely.box([0, 12], [0, 0], [10, 20], [10, 10])
    assert room_between(near, 4.0, np.array([2.5, 2.5])).tolist() == [2, 2]


def test_room_is_the_distance_to_the_nearest_inner_side() -> None:
    boxes = shapely.box([103, 110], [52, 60], [108, 119], [55, 70])
    frame = Frame(50, 100, 40, 20)
    assert list(room_inside(boxes, frame, (True, False, False, False))) == [2, 10]
    assert list(room_inside(boxes, frame, (False, True, False, False))) == [35, 20]
    assert list(room_inside(boxes, frame, (False, False, True, False))) == [3, 10]
    assert list(room_inside(boxes, frame, (True, False, True, False))) == [2, 10]
    assert list(room_inside(boxes, frame, (False, False, False, True))) == [12, 1]
    assert list(room_inside(boxes, frame, (False,) * 4)) == [np.inf, np.inf]
    assert len(room_inside(boxes[:0], frame, (True,) * 4)) == 0
