"""Predictors that show a window in several ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fakes import Ahead, brightness
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.data.augment import QuartersOfTiles
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.geo.views import Quarters, SymmetryAverage
from landslide_mapper.mask_values import IGNORE

View = Callable[[Predictor], SymmetryAverage | Quarters]


def test_symmetries_are_undone_before_the_mean() -> None:
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    np.testing.assert_allclose(SymmetryAverage(brightness)(windows), brightness(windows), 1e-6)

    def left_half(batch: np.ndarray) -> np.ndarray:
        answer = np.zeros((len(batch), 16, 16), np.float32)
        answer[:, :, :8] = 1
        return answer

    np.testing.assert_allclose(SymmetryAverage(left_half)(windows), 0.5)


@pytest.mark.parametrize("view", [SymmetryAverage, Quarters])
def test_views_work_ahead_and_keep_the_order(view: View) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.integers(1, 256, (n, 3, 16, 16)).astype(np.uint8) for n in (2, 0, 3, 1)]
    seen = view(Ahead())
    assert seen.batch_size == 3
    found = list(seen.stream(iter(batches)))
    assert [len(answer) for answer in found] == [2, 0, 3, 1]
    for windows, answer in zip(batches, found, strict=True):
        assert np.array_equal(answer, view(brightness)(windows))


@given(height=st.integers(1, 19), width=st.integers(1, 19), seed=st.integers(0, 99))
def test_quarters_are_put_together_as_they_were(height: int, width: int, seed: int) -> None:
    """What looks at one pixel only says the same, wherever that lies."""
    windows = np.random.default_rng(seed).integers(0, 256, (2, 3, height, width), np.uint8)
    assert np.array_equal(Quarters(brightness)(windows), brightness(windows))


def test_every_quarter_is_predicted_in_the_middle() -> None:
    asked = []

    def middle(windows: np.ndarray) -> np.ndarray:
        asked.append(windows)
        answer = np.zeros(windows.shape[:1] + windows.shape[2:], np.float32)
        answer[:, 4:12, 4:12] = 1
        return answer

    windows = np.arange(1, 257, dtype=np.uint16).reshape(1, 1, 16, 16).clip(1, 255).astype(np.uint8)
    assert Quarters(middle)(windows).all()
    for shown, quarter in zip(asked, ([0, 0], [0, 8], [8, 0], [8, 8]), strict=True):
        row, col = quarter
        part = windows[0, 0, row : row + 8, col : col + 8]
        assert np.array_equal(shown[0, 0, 4:12, 4:12], part)
        assert np.count_nonzero(shown) == 12 * 12  # nothing of the tile beside it is held back


@given(side=st.integers(2, 19), seed=st.integers(0, 99))
def test_quarters_of_tiles_have_every_label_once(side: int, seed: int) -> None:
    """On its own pixel; what counts in training's validation is what `Quarters` predicts."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (3, side, side), np.uint8)
    mask = rng.choice(np.array([0, 1, IGNORE], np.uint8), (side, side))
    views, found = QuartersOfTiles(), []
    for quarter in range(4):
        shown, labels = views.apply(image, mask, quarter, 0)
        known = labels != IGNORE
        found += list(zip(*(band[known] for band in shown), labels[known], strict=True))
        rows, cols = known.nonzero()
        assert (np.abs(np.append(rows, cols) - (side - 1) / 2) <= side / 4 + 1).all()
    known = mask != IGNORE
    assert sorted(found) == sorted(zip(*(band[known] for band in image), mask[known], strict=True))
