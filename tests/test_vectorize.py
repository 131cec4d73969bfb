"""Polygons are exactly the mask, however it is cut into blocks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize, shapes
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from landslide_mapper.geo import scan
from landslide_mapper.geo.joining import Joiner
from landslide_mapper.geo.vectorize import BlockComponents, Components, vectorize_block

small = hnp.arrays(
    bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans(), fill=st.just(1)
)
cuts = st.lists(st.integers(1, 79), max_size=5)


def vectorize(
    mask: np.ndarray, probability: np.ndarray, rows: list[int], cols: list[int]
) -> Components:
    """Vectorise in blocks, cut before `rows` and `cols`; those without landslide are left out."""
    bands, columns = (
        list(pairwise([0, *sorted({cut for cut in cuts if cut < size}), size]))
        for cuts, size in ((rows, mask.shape[0]), (cols, mask.shape[1]))
    )
    joiner = Joiner(len(columns))
    found = []
    for band, (top, bottom) in enumerate(bands):
        for column, (left, right) in enumerate(columns):
            part = np.s_[top:bottom, left:right]
            inner = (band > 0, bottom < mask.shape[0], column > 0, right < mask.shape[1])
            if mask[part].any():
                block = vectorize_block(mask[part], probability[part][mask[part]], top, left, inner)
                found += [block.whole, add(joiner, band, column, block)]
    return Components.concatenate([*found, joiner.finish()])


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


def check(mask: np.ndarray, found: Components) -> None:
    assert shapely.is_valid(found.polygons).all()
    assert same_sets(found.polygons, full(mask))
    np.testing.assert_array_equal(burnt(found.polygons, mask.shape), mask)
    np.testing.assert_array_equal(shapely.area(found.polygons), found.pixels)


@given(mask=small, rows=cuts, cols=cuts)
def test_blocks_give_the_polygons_and_sums_of_the_whole_mask(
    mask: np.ndarray, rows: list[int], cols: list[int]
) -> None:
    probability = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    found = vectorize(mask, probability, rows, cols)
    check(mask, found)
    for polygon, total, highest in zip(found.polygons, found.total, found.highest, strict=True):
        inside = probability[burnt(np.array([polygon]), mask.shape)]
        assert total == pytest.approx(inside.sum(dtype=np.float64))
        assert highest == inside.max()


@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.7, 0.97, 1.0]),
    smooth=st.integers(0, 2),
    rows=cuts,
    cols=cuts,
)
def test_blocks_of_any_layout_with_holes_islands_and_pinch_points(
    seed: int,
    shape: tuple[int, int],
    share: float,
    smooth: int,
    rows: list[int],
    cols: list[int],
) -> None:
    mask = blobs(seed, shape, share, smooth)
    probability = np.random.default_rng(seed).random(shape, dtype=np.float32)
    found = vectorize(mask, probability, rows, cols)
    check(mask, found)
    once = vectorize(mask, probability, [], [])
    # The same polygons from the same first vertices on, so that what follows is the same too.
    mine, ref = (np.argsort(shapely.to_wkb(part.polygons)) for part in (found, once))
    np.testing.assert_array_equal(
        shapely.to_wkb(found.polygons[mine]), shapely.to_wkb(once.polygons[ref])
    )
    np.testing.assert_allclose(found.total[mine], once.total[ref], rtol=1e-12)
    np.testing.assert_array_equal(found.highest[mine], once.highest[ref])


def test_a_real_scene(bundled_scene: Path) -> None:
    with rasterio.open(bundled_scene) as raster:
        green = raster.read(2)
    mask = green > np.median(green)  # as ragged as it gets
    probability = (green / 255).astype(np.float32)
    found = vectorize(mask, probability, [97, 400], [333, 334, 700])
    check(mask, found)
    assert found.total.sum() == pytest.approx(probability[mask].sum(dtype=np.float64))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5)])
def test_masks_that_are_all_or_nothing(shape: tuple[int, int]) -> None:
    probability = np.full(shape[0] * shape[1], 0.75, np.float32)
    block = vectorize_block(np.ones(shape, bool), probability, 10, 20)
    assert block.whole.polygons[0].bounds == (20, 10, 20 + shape[1], 10 + shape[0])
    assert block.whole.mean == [0.75]
    assert shapely.get_num_coordinates(block.whole.polygons[0]) == 5
    block = vectorize_block(np.zeros(shape, bool), probability[:0], 0, 0, (True,) * 4)
    assert len(block.whole) == len(block.open) == 0
    assert not any(side.any() for side in sides(block))


def sides(block: BlockComponents) -> tuple[np.ndarray, ...]:
    return block.sides.top, block.sides.bottom, block.sides.left, block.sides.right


def test_components_are_in_reading_order_and_sides_name_the_open_ones() -> None:
    mask = np.array([[0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 0, 1]], bool)
    block = vectorize_block(mask, mask[mask].astype(np.float32), 0, 0, (False, True, True, False))
    assert [p.bounds for p in block.whole.polygons] == [(1, 0, 2, 1), (4, 0, 5, 1), (2, 1, 3, 2)]
    assert [p.bounds for p in block.open.polygons] == [(0, 2, 2, 3), (4, 2, 5, 4)]
    assert list(block.sides.bottom) == [0, 0, 0, 0, 2]
    assert list(block.sides.left) == [0, 0, 1, 0]
    assert not block.sides.top.any()
    assert not block.sides.right.any()


def test_rows_that_are_scanned_apart_hang_together(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = blobs(4, (90, 60), 0.4, 1)
    for chunk in (1, 61, 122, 427):  # pixels: one, two and seven rows at a time
        monkeypatch.setattr(scan, "_CHUNK", chunk)
        check(mask, vectorize(mask, mask.astype(np.float32), [], []))


def add(joiner: Joiner, band: int, column: int, block: BlockComponents) -> Components:
    return joiner.add(band, column, block.open, block.sides)


def piece(*rows: str, inner: tuple[bool, bool, bool, bool], row: int, col: int) -> BlockComponents:
    mask = np.array([[character == "#" for character in line] for line in rows])
    return vectorize_block(mask, mask[mask].astype(np.float32), row, col, inner)


def test_components_are_given_out_as_soon_as_they_end() -> None:
    joiner = Joiner(2)
    block = piece("##", ".#", inner=(False, True, False, True), row=0, col=0)
    assert len(add(joiner, 0, 0, block)) == 0
    block = piece("..", "#.", inner=(False, True, True, False), row=0, col=2)
    assert len(add(joiner, 0, 1, block)) == 0
    block = piece("..", ".#", inner=(True, False, False, True), row=2, col=0)
    assert list(add(joiner, 1, 0, block).pixels) == []  # it may go on in the last block
    block = piece("..", "#.", inner=(True, False, True, False), row=2, col=2)
    assert list(add(joiner, 1, 1, block).pixels) == [4, 2]
    assert len(joiner.finish()) == 0


def test_missing_blocks_are_background() -> None:
    joiner = Joiner(3)
    around = (True, True, True, True)
    assert len(add(joiner, 1, 1, piece("#", inner=around, row=1, col=1))) == 0
    # Block (1, 2) was not given, so only (2, 1) can still continue the first one.
    assert len(add(joiner, 2, 0, piece(".", inner=around, row=2, col=0))) == 0
    assert list(add(joiner, 2, 2, piece("#", inner=around, row=2, col=2)).pixels) == [1]
    assert list(add(joiner, 9, 0, piece("#", inner=around, row=9, col=0)).pixels) == [1]
    assert list(joiner.finish().pixels) == [1]
    for band, column in ((9, 0), (8, 1), (10, 3)):
        with pytest.raises(ValueError, match="out of turn"):
            add(joiner, band, column, piece("#", inner=around, row=0, col=0))


def test_components_put_together() -> None:
    block = piece("#.#", inner=(False,) * 4, row=0, col=0)
    both = Components.concatenate([block.whole, Components.empty(), block.whole])
    assert list(both.pixels) == [1] * 4
    assert len(Components.concatenate([])) == 0
