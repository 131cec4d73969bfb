"""Predictors that show a window in several ways and put the answers together.

Each is a predictor itself, made from another one, and works ahead where that one does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain, islice, product
from types import EllipsisType

import numpy as np

from landslide_mapper.geo.blend import Predictor, answers

SYMMETRIES = tuple(product(range(4), (False, True)))  # quarter turns, after a mirror or not
QUARTERS = tuple(product((1, -1), repeat=2))  # down and across, where to each is moved


class _Views(ABC):
    """A predictor that asks another one about some views of every window."""

    count: int

    def __init__(self, predict: Predictor) -> None:
        self._predict = predict
        self.batch_size: int = getattr(predict, "batch_size", 1)

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Predict one batch."""
        return next(self.stream(iter([windows])))

    def stream(self, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Answers to all batches, in order."""
        seen = (self._view(windows, n) for windows in batches for n in range(self.count))
        answered = answers(self._predict, seen)
        for first in answered:
            yield self._joined(first, islice(answered, self.count - 1))

    @abstractmethod
    def _view(self, windows: np.ndarray, number: int) -> np.ndarray:
        """View 0 to `count` - 1 of windows."""

    @abstractmethod
    def _joined(self, first: np.ndarray, others: Iterator[np.ndarray]) -> np.ndarray:
        """The answer that the answers for all views make, which come in order."""


class SymmetryAverage(_Views):
    """Test-time augmentation: the mean of a predictor over the 8 symmetries of a square window."""

    count = len(SYMMETRIES)

    def _view(self, windows: np.ndarray, number: int) -> np.ndarray:
        turns, mirrored = SYMMETRIES[number]
        seen = windows[..., ::-1] if mirrored else windows
        return np.ascontiguousarray(np.rot90(seen, turns, (2, 3)))

    def _joined(self, first: np.ndarray, others: Iterator[np.ndarray]) -> np.ndarray:
        total = np.zeros_like(first)
        for (turns, mirrored), answer in zip(SYMMETRIES, chain([first], others), strict=True):
            back = np.rot90(answer, -turns, (1, 2))
            total += back[..., ::-1] if mirrored else back
        return total / np.float32(self.count)


class Quarters(_Views):
    """Each quarter of a window, from a window of its own in whose middle it lies.

    What lies in the middle of the one so lies off the middle of the others, as it may in the
    windows of a scene. Of each of these 9/16 are seen; the rest is 0, which was not seen.
    """

    count = len(QUARTERS)

    def _view(self, windows: np.ndarray, number: int) -> np.ndarray:
        return quarter_in_the_middle(windows, number)

    def _joined(self, first: np.ndarray, others: Iterator[np.ndarray]) -> np.ndarray:
        whole = np.empty_like(first)
        for quarter, answer in enumerate(chain([first], others)):
            down, across = _steps(whole.shape, quarter)
            there = quarter_of(whole.shape, quarter)
            whole[there] = shifted(answer, -down, -across)[there]
        return whole


def quarter_in_the_middle(windows: np.ndarray, quarter: int, unseen: int = 0) -> np.ndarray:
    """Windows (..., H, W) moved so that a quarter, 0 to 3 by rows, lies in the middle."""
    return shifted(windows, *_steps(windows.shape, quarter), unseen)


def quarter_of(shape: tuple[int, ...], quarter: int) -> tuple[EllipsisType, slice, slice]:
    """Where a quarter, 0 to 3 by rows, lies in an array (..., H, W)."""
    rows, cols = (
        slice(None, side // 2) if step > 0 else slice(side // 2, None)
        for side, step in zip(shape[-2:], QUARTERS[quarter], strict=True)
    )
    return ..., rows, cols


def shifted(array: np.ndarray, down: int, across: int, unseen: int = 0) -> np.ndarray:
    """An array (..., H, W) moved by less than H and W; what comes in is `unseen`."""
    moved = np.full_like(array, unseen)
    (from_rows, to_rows), (from_cols, to_cols) = _moved(down), _moved(across)
    moved[..., to_rows, to_cols] = array[..., from_rows, from_cols]
    return moved


def _steps(shape: tuple[int, ...], quarter: int) -> tuple[int, int]:
    """Pixels down and across that bring a quarter to the middle."""
    down, across = QUARTERS[quarter]
    return down * (shape[-2] // 4), across * (shape[-1] // 4)


def _moved(step: int) -> tuple[slice, slice]:
    """What stays of an axis that is moved by `step`: where it was, and where it comes to lie."""
    first, last = slice(None, -abs(step) or None), slice(abs(step), None)
    return (first, last) if step >= 0 else (last, first)
