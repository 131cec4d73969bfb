"""Landslides as objects: components over tiles, one-to-one matches, found ones, size classes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.evaluation.objects import (
    Objects,
    ObjectTable,
    Place,
    label_components,
    match_pairs,
    object_rates,
    score,
    source_counts,
)
from landslide_mapper.geo.vectorize import vectorize_block
from landslide_mapper.metrics import ratio

TILE = 16


def objects_of(
    reference: np.ndarray, mapped: np.ndarray, tile: int | None = None, seed: int = 0
) -> Objects:
    """The objects of one image, looked at whole or in tiles of one scene, in any order."""
    table = ObjectTable()
    size = tile or max(reference.shape)
    height, width = reference.shape
    corners = [(row, col) for row in range(0, height, size) for col in range(0, width, size)]
    for row, col in np.random.default_rng(seed).permutation(corners).tolist():
        part = np.s_[row : row + size, col : col + size]
        table.add(reference[part], mapped[part], 1.0, 0, Place(0, row, col))
    return table.finish()


def numbers(objects: Objects) -> tuple[list[float], ...]:
    """What does not depend on the order of objects."""
    reference, mapped = objects.match()
    return (
        sorted(objects.reference.tolist()),
        sorted(objects.mapped.tolist()),
        sorted(objects.shared.tolist()),
        sorted(objects.reference[reference].tolist()),
        sorted(objects.mapped[mapped].tolist()),
        sorted(objects.reference[objects.found()].tolist()),
    )


def test_components_are_those_of_the_polygons() -> None:
    mask = blobs(3, (60, 70))
    labels, count = label_components(mask)
    pixels = vectorize_block(mask, np.ones(mask.sum(), np.float32)).whole.pixels
    assert sorted(np.bincount(labels.ravel())[1:]) == sorted(pixels)
    assert count == len(pixels)
    assert ((labels > 0) == mask).all()
    assert label_components(np.zeros((4, 4), bool))[1] == 0


@given(st.integers(0, 10**6))
def test_tiles_of_a_scene_give_the_objects_of_the_scene(seed: int) -> None:
    shape = (3 * TILE, 4 * TILE)
    reference = blobs(seed, shape, 0.35, smooth=6)
    mapped = blobs(seed, shape, 0.30, smooth=5)
    tiled = objects_of(reference, mapped, TILE, seed)
    assert numbers(tiled) == numbers(objects_of(reference, mapped))


def test_without_a_place_a_tile_is_on_its_own() -> None:
    table = ObjectTable()
    full = np.ones((4, 4), bool)
    for source in (0, 0, 1):
        table.add(full, full, 1.0, source, None)
    objects = table.finish()
    assert objects.reference.tolist() == [16, 16, 16]
    assert source_counts(objects, 2).tolist() == [[2, 2, 2, 2, 2], [1, 1, 1, 1, 1]]


def test_the_same_place_in_another_scene_is_no_neighbour() -> None:
    table = ObjectTable()
    full = np.ones((4, 4), bool)
    table.add(full, ~full, 1.0, 0, Place(0, 0, 0))
    table.add(full, ~full, 1.0, 1, Place(1, 0, 4))
    assert table.finish().reference.tolist() == [16, 16]


def test_matched_and_found_by_hand() -> None:
    reference, mapped = np.zeros((2, 40, 60), bool)
    reference[2:12, 2:12] = True  # 100 px: matched at 80 / 100
    mapped[2:10, 2:12] = True
    reference[2:12, 20:30] = True  # 100 px: found by two pieces of 20 and 10 px, not matched
    mapped[2:4, 20:30] = mapped[8:9, 20:30] = True
    reference[20:30, 2:12] = True  # 100 px: 19 px mapped, missed
    mapped[20, 2:12] = mapped[22, 2:11] = True
    reference[20:30, 20:40] = True  # 200 px
    mapped[20:30, 30:40] = True  # half of it: IoU is exactly 0.5
    mapped[35:37, 50:52] = True  # false alarm
    objects = objects_of(reference, mapped)
    counts = score(
        objects.reference, objects.mapped, objects.match(), objects.found(), "px"
    ).all.to_dict()
    assert counts["reference"] == 4
    assert counts["mapped"] == 7
    assert (counts["matched_reference"], counts["matched_mapped"], counts["found"]) == (2, 2, 3)
    assert counts["recall"] == 0.5
    assert counts["precision"] == pytest.approx(2 / 7)
    assert counts["found_share"] == 0.75


def test_one_fifth_is_found() -> None:
    reference = np.ones((10, 10), bool)
    mapped = np.zeros_like(reference)
    mapped[:2] = True
    assert objects_of(reference, mapped).found().tolist() == [True]
    mapped[0, 0] = False
    assert objects_of(reference, mapped).found().tolist() == [False]


def test_size_classes_add_up_and_have_their_edges_below() -> None:
    sizes = np.array([99.9, 100, 5_000, 100_000])
    everything = np.ones(4, bool)
    found = score(sizes, sizes[:2], (everything, everything[:2]), everything, "m²")
    assert [name for name, _ in found.classes] == [
        "< 100 m²",
        "100 – 1 000 m²",
        "1 000 – 10 000 m²",
        "10 000 – 100 000 m²",
        "≥ 100 000 m²",
    ]
    assert [counts.reference for _, counts in found.classes] == [1, 1, 1, 0, 1]
    assert sum(counts.mapped for _, counts in found.classes) == found.all.mapped == 2
    rows = found.to_dict()["by_size"]
    assert [row["precision"] for row in rows] == [1, 1, None, None, None]
    assert [row["recall"] for row in rows] == [row["found_share"] for row in rows]
    assert [row["recall"] for row in rows] == [1, 1, 1, None, 1]
    assert [row["f1"] for row in rows] == [1, 1, 0, None, 0]


def test_rates_for_bootstraps_are_the_rates_of_the_table() -> None:
    objects = objects_of(blobs(1, (64, 64), smooth=5), blobs(1, (64, 64), 0.25, smooth=4))
    counts = score(
        objects.reference, objects.mapped, objects.match(), objects.found(), "px"
    ).all.to_dict()
    drawn = object_rates(source_counts(objects, 1).sum(axis=0))
    assert {name: float(value) for name, value in drawn.items()} == pytest.approx(
        {name: counts[name] for name in drawn}
    )


def iou_of(objects: Objects) -> np.ndarray:
    """IoU of every pair."""
    a, b = objects.pairs.T
    return ratio(objects.shared, objects.reference[a] + objects.mapped[b] - objects.shared)


@given(st.integers(0, 10**6), st.integers(0, 2))
def test_matching_is_one_to_one_symmetric_and_as_large_as_can_be(seed: int, shift: int) -> None:
    reference = blobs(seed, (24, 24), 0.3, smooth=3)
    mapped = np.roll(blobs(seed, (24, 24), 0.33, smooth=3), shift, axis=1)
    objects, swapped = objects_of(reference, mapped), objects_of(mapped, reference)
    kept = match_pairs(objects.pairs, iou_of(objects))
    pairs = objects.pairs[kept]
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
    assert len(match_pairs(swapped.pairs, iou_of(swapped))) == len(pairs)
    candidates = objects.pairs[iou_of(objects) >= 0.5]
    assert len(pairs) == len(np.unique(candidates[:, 0])) or len(pairs) == len(
        np.unique(candidates[:, 1])
    )
    matched = objects.match()[0]
    assert (objects.found() | ~matched).all()  # what matches is found


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.floats(0, 1), min_size=16, max_size=16))
def test_where_objects_overlap_greedy_takes_at_least_half(
    rows: int, cols: int, values: list[float]
) -> None:
    iou = np.array(values).reshape(4, 4)[:rows, :cols]
    pairs = np.argwhere(np.ones_like(iou, bool))
    found = len(match_pairs(pairs, iou.ravel()))
    small, large = (iou, iou.T)[rows > cols], max(rows, cols)
    best = max(
        sum(small[i, j] >= 0.5 for i, j in enumerate(order[: len(small)]))
        for order in permutations(range(large))
    )
    assert best / 2 <= found <= best


def test_the_best_partner_is_taken_first() -> None:
    pairs = np.array([[0, 0], [0, 1], [1, 1], [2, 2], [3, 2]])
    kept = match_pairs(pairs, np.array([0.6, 0.9, 0.7, 0.8, 0.8]))
    assert sorted(kept.tolist()) == [1, 3]  # of equal ones the earlier


def test_identical_masks_match_wholly() -> None:
    mask = blobs(5, (50, 50))
    objects = objects_of(mask, mask)
    assert objects.match()[0].all()
    assert objects.match()[1].all()


def test_no_objects_at_all() -> None:
    nothing = np.zeros((8, 8), bool)
    objects = objects_of(nothing, nothing)
    assert len(objects.reference) == len(objects.mapped) == len(objects.match()[0]) == 0
    assert source_counts(objects, 1).tolist() == [[0, 0, 0, 0, 0]]


@pytest.mark.parametrize("pixel", np.random.default_rng(0).uniform(0.1, 2, 20).tolist())
def test_exact_halves_and_fifths_do_not_depend_on_the_pixel_size(pixel: float) -> None:
    table = ObjectTable()
    reference, mapped = np.zeros((2, 16, 16), bool)
    reference[2, 2:8], mapped[2, 2:5] = True, True  # IoU 3 / 6
    reference[10, 0:5], mapped[10, 0] = True, True  # 1 / 5 of it
    table.add(reference, mapped, pixel, 0, None)
    objects = table.finish()
    assert objects.match()[0].tolist() == [True, False]
    assert objects.found().tolist() == [True, True]
