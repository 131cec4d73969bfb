"""Turned, zoomed and recoloured tiles: labels stay on their pixels, and the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.data.augment import Augmentation, apply_symmetry, move, recolour, shift, zoom

SIDE = 48
places = st.tuples(st.floats(0, 1), st.floats(0, 1))
factors = st.floats(0.5, 2)


def tile(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A landslide of one colour on ground of another, a corner of the tile not seen."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    top, left = rng.integers(0, SIDE - 20, 2)
    mask[top : top + 20, left : left + 14] = 1
    mask[: SIDE // 3, : SIDE // 4] = 255
    image = np.where(mask == 1, 200, 40).astype(np.uint8) * np.ones((3, 1, 1), dtype=np.uint8)
    image[:, mask == 255] = 0
    return image, mask


def test_symmetries_are_the_eight_of_the_square() -> None:
    array = np.arange(9).reshape(1, 3, 3)
    images = {apply_symmetry(array, k).tobytes() for k in range(8)}
    assert len(images) == 8


def test_labels_are_turned_with_their_image_in_all_eight_ways() -> None:
    image, mask = tile(3)
    turned = [Augmentation(0).apply(image, mask, 0, position) for position in range(60)]
    assert len({pixels.tobytes() for pixels, _ in turned}) == 8
    for pixels, labels in turned:
        for label, colour in ((0, 40), (1, 200), (255, 0)):
            assert np.array_equal(labels == label, pixels[0] == colour)


@given(top=st.integers(0, 20), left=st.integers(0, 20), size=st.integers(1, 28), place=places)
def test_what_was_seen_moves_within_its_frame_and_loses_nothing(
    top: int, left: int, size: int, place: tuple[float, float]
) -> None:
    rng = np.random.default_rng(size)
    part = (slice(top, top + size), slice(left, left + size))
    image, mask = np.zeros((3, SIDE, SIDE), np.uint8), np.full((SIDE, SIDE), 255, np.uint8)
    image[:, *part] = rng.integers(1, 255, (3, size, size))
    mask[part] = rng.integers(0, 2, (size, size))
    moved, labels = move(image, mask, place)
    row, col = (round(at * (SIDE - size)) for at in place)
    there = (slice(row, row + size), slice(col, col + size))
    assert np.array_equal(moved[:, *there], image[:, *part])
    assert np.array_equal(labels[there], mask[part])
    assert np.count_nonzero(moved) == np.count_nonzero(image)
    assert np.count_nonzero(labels != 255) == size**2


def test_a_tile_without_a_frame_stays_and_so_does_an_empty_one() -> None:
    rng = np.random.default_rng(0)
    for image in (rng.integers(1, 255, (3, 8, 8), dtype=np.uint8), np.zeros((3, 8, 8), np.uint8)):
        mask = rng.integers(0, 2, (8, 8), dtype=np.uint8)
        moved, labels = move(image, mask, (1.0, 1.0))
        assert np.array_equal(moved, image)
        assert np.array_equal(labels, mask)


@given(down=st.integers(-47, 47), across=st.integers(-47, 47))
def test_shifted_pixels_keep_their_labels(down: int, across: int) -> None:
    rows, cols = np.indices((SIDE, SIDE), dtype=np.uint8)
    image, mask = np.stack([rows + 1, cols, cols]), rows + cols
    moved, labels = shift(image, mask, down, across)
    rows, cols = np.indices((SIDE, SIDE))
    inside = (rows >= down) & (rows < SIDE + down) & (cols >= across) & (cols < SIDE + across)
    assert np.array_equal(moved.any(axis=0), inside)
    assert np.array_equal(moved[0][inside], (rows - down + 1)[inside])
    assert np.array_equal(moved[1][inside], (cols - across)[inside])
    assert np.array_equal(labels[inside], (rows + cols - down - across)[inside])
    assert (labels[~inside] == 255).all()


def test_a_thing_in_the_middle_is_shifted_anywhere() -> None:
    image, mask = np.full((3, SIDE, SIDE), 9, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    mask[SIDE // 2, SIDE // 2] = 1
    places = [
        np.argwhere(Augmentation(0, shift=0.5).apply(image, mask, 0, position)[1] == 1)
        for position in range(400)
    ]
    found = np.concatenate(places)
    assert len(found) > 380
    assert (found.min(axis=0) <= 1).all()
    assert (found.max(axis=0) >= SIDE - 2).all()
    assert found.mean(axis=0) == pytest.approx([SIDE / 2] * 2, abs=3)


def test_tiles_become_smaller_and_larger() -> None:
    image, mask = np.full((3, SIDE, SIDE), 90, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    zoomed = [Augmentation(0, 1.5).apply(image, mask, 0, position)[1] for position in range(60)]
    framed = sum((labels == 255).any() for labels in zoomed)
    assert 15 < framed < 45


@given(seed=st.integers(0, 99), place=places)
def test_a_factor_of_one_changes_nothing(seed: int, place: tuple[float, float]) -> None:
    image, mask = tile(seed)
    zoomed, labels = zoom(image, mask, 1.0, place)
    assert np.array_equal(zoomed, image)
    assert np.array_equal(labels, mask)


@given(seed=st.integers(0, 99), factor=factors, place=places)
def test_labels_stay_on_their_pixels(seed: int, factor: float, place: tuple[float, float]) -> None:
    """Colours differ from the label's own only where two of them are blended, at an outline."""
    image, mask = tile(seed)
    zoomed, labels = zoom(image, mask, factor, place)
    assert zoomed.shape == image.shape
    assert set(np.unique(labels)) <= {0, 1, 255}
    assert np.array_equal(labels == 255, (zoomed == 0).all(axis=0))
    for label, colour in ((0, 40), (1, 200)):
        colours = zoomed[0][labels == label].astype(int)
        # The nearest pixel has more than half of the weight along each axis, so over a quarter.
        assert (np.abs(colours - colour) <= 0.75 * 160 + 1).all()
    plain = np.isin(zoomed[0], (0, 40, 200))
    assert plain.mean() > 0.6


@given(seed=st.integers(0, 99), factor=factors)
def test_areas_grow_with_the_square_of_the_factor(seed: int, factor: float) -> None:
    image, mask = tile(seed)
    mask[:] = 0
    image[:] = 40
    mask[SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8] = 1
    _, labels = zoom(image, mask, factor, (0.5, 0.5))
    side = 16 * factor
    assert (side - 1) ** 2 <= (labels == 1).sum() <= (side + 1) ** 2


def test_a_smaller_tile_has_a_frame_that_was_not_seen() -> None:
    image = np.full((3, SIDE, SIDE), 90, dtype=np.uint8)
    mask = np.ones((SIDE, SIDE), dtype=np.uint8)
    zoomed, labels = zoom(image, mask, 0.5, (0.0, 1.0))
    half = SIDE // 2
    seen = np.zeros((SIDE, SIDE), dtype=bool)
    seen[:half, half:] = True
    assert np.array_equal(labels, np.where(seen, 1, 255))
    assert np.array_equal(zoomed[0], np.where(seen, 90, 0))


@given(factor=factors, place=places)
def test_what_was_not_seen_darkens_nothing_beside_it(
    factor: float, place: tuple[float, float]
) -> None:
    image = np.full((3, SIDE, SIDE), 200, dtype=np.uint8)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    image[:, 12:36, 10:30], mask[12:36, 10:30] = 0, 255
    zoomed, _ = zoom(image, mask, factor, place)
    assert set(np.unique(zoomed)) <= {0, 200}


def test_seed_epoch_and_tile_decide_and_zoom_is_off_unless_asked_for() -> None:
    image, mask = tile(3)
    drawn = {
        Augmentation(seed, 1.5).apply(image, mask, epoch, position)[0].tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
        for position in range(4)
    }
    assert len(drawn) == 16
    for epoch in range(4):
        first, again = (Augmentation(0, 1.5).apply(image, mask, epoch, 2) for _ in range(2))
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])
        turned, labels = Augmentation(0).apply(image, mask, epoch, 2)
        assert sorted(turned.ravel()) == sorted(image.ravel())
        assert sorted(labels.ravel()) == sorted(mask.ravel())


@given(
    seed=st.integers(0, 99),
    exponents=st.lists(st.floats(0.25, 4), min_size=3, max_size=3),
)
def test_recolouring_keeps_order_extremes_and_the_unseen(seed: int, exponents: list[float]) -> None:
    image = np.random.default_rng(seed).integers(1, 256, (3, SIDE, SIDE)).astype(np.uint8)
    image[:, :4] = 0
    image[:, 4], image[:, 5] = 1, 255
    recoloured = recolour(image, np.array(exponents))
    assert np.array_equal(recoloured == 0, image == 0)
    assert (recoloured[:, 5] == 255).all()
    for before, after, exponent in zip(image, recoloured, exponents, strict=True):
        ranked = after.ravel()[np.argsort(before, axis=None)].astype(int)
        assert (np.diff(ranked) >= 0).all()
        expected = 255 * (before / 255) ** exponent
        assert np.abs(after - np.where(before > 0, np.maximum(expected, 1), 0)).max() <= 0.5


def test_jitter_moves_colours_by_no_more_than_it_says_and_leaves_labels() -> None:
    image, mask = tile(3)
    darkest, brightest = (recolour(image, np.full(3, power)) for power in (1.5, 1 / 1.5))
    turned = {apply_symmetry(mask, symmetry).tobytes() for symmetry in range(8)}
    tints = set()
    for epoch in range(8):
        recoloured, labels = Augmentation(0, jitter=1.5).apply(image, mask, epoch, 2)
        assert labels.tobytes() in turned
        for band in range(3):
            assert darkest.max() <= recoloured[band].max() <= brightest.max()
        tints.add(tuple(recoloured.max(axis=(1, 2))))
    assert len(tints) == 8
    assert any(len(set(tint)) > 1 for tint in tints)
