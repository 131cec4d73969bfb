"""From windows to one seamless probability: overlapping windows, blended strip by strip.

The predictor is any callable (windows in, probabilities out); nothing here knows a network.
Memory depends on the width that is worked on and the window size, never on the height.

What a pixel gets depends on the grid of its scene alone, bit by bit: the same windows are
predicted in the same batches and summed in the same order, whichever part of the scene is
worked on and wherever the work starts. That is why an interrupted run, or one that is spread
over machines, ends with the same result as an uninterrupted one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from landslide_mapper.errors import LsmapFailure
from landslide_mapper.geo.grid import Frame, shifted_starts

# uint8 (N, B, tile, tile) → probabilities (N, tile, tile) in 0..1. It may have a method
# `stream` from an iterator of such batches to one of answers, in order, that works ahead, and
# `batch_size`, the number of windows to give it at once.
Predictor = Callable[[np.ndarray], np.ndarray]

END = -1  # in the place of a column of windows: the row has no more


@dataclass(frozen=True)
class WindowGrid:
    """Square windows of `tile` pixels over a scene of `height` × `width` pixels.

    Neighbours overlap by at least `overlap` pixels. The last window of an axis ends with the
    scene, so a window never looks past the edge unless the scene is smaller than a window: then it
    begins before the scene, which lies in its middle.
    """

    height: int
    width: int
    tile: int
    overlap: int

    @cached_property
    def rows(self) -> list[int]:
        """First pixel row of every row of windows."""
        return shifted_starts(self.height, self.tile, self.overlap)

    @cached_property
    def cols(self) -> list[int]:
        """First pixel column of every column of windows."""
        return shifted_starts(self.width, self.tile, self.overlap)

    @cached_property
    def row_weights(self) -> np.ndarray:
        """Blend weights down each row of windows, float32 (rows, tile)."""
        return axis_weights(self.height, self.tile, self.overlap)

    @cached_property
    def col_weights(self) -> np.ndarray:
        """Blend weights across each column of windows, float32 (columns, tile)."""
        return axis_weights(self.width, self.tile, self.overlap)

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.cols)

    def span(self, frame: Frame) -> Span:
        """The windows that a pixel of `frame` depends on."""
        return Span(
            self,
            _touching(self.rows, self.tile, frame.row, frame.bottom),
            _touching(self.cols, self.tile, frame.col, frame.right),
        )


@dataclass(frozen=True)
class Span:
    """A rectangle of windows: ranges of indices into `WindowGrid.rows` and `WindowGrid.cols`."""

    grid: WindowGrid
    rows: range
    cols: range

    @property
    def left(self) -> int:
        """First pixel column that the windows see."""
        return self.grid.cols[self.cols.start]

    @property
    def width(self) -> int:
        """Pixel columns that the windows see, over the scene's edge as well."""
        return self.grid.cols[self.cols.stop - 1] + self.grid.tile - self.left

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.cols)

    def columns(self, col: int) -> slice:
        """Pixel columns of a column of windows, counted from `left`."""
        start = self.grid.cols[col] - self.left
        return slice(start, start + self.grid.tile)

    def whole_batches(self, batch_size: int) -> Span:
        """The same, with the rows above and below whose windows share batches with these."""
        rows = _rows_per_group(len(self.cols), batch_size)
        start, stop = self.rows.start // rows * rows, -(-self.rows.stop // rows) * rows
        return replace(self, rows=range(start, min(stop, len(self.grid.rows))))


@dataclass(frozen=True)
class Strip:
    """Finished rows of the columns that are worked on."""

    row: int  # first pixel row, before 0 where the window is higher than the scene
    values: np.ndarray  # float32 (*layers, h, w), blended answers; 0 where not valid
    valid: np.ndarray  # bool (h, w)


@dataclass(frozen=True)
class WindowRow:
    """One row of windows: `tile` pixel rows over all columns that are worked on."""

    index: int
    data: np.ndarray  # uint8 (B, tile, w), 0 in all bands where nothing was seen
    valid: np.ndarray  # bool (tile, w), where an answer is wanted


def _touching(starts: list[int], tile: int, begin: int, end: int) -> range:
    found = [index for index, start in enumerate(starts) if start < end and start + tile > begin]
    return range(found[0], found[-1] + 1)


def _rows_per_group(columns: int, batch_size: int) -> int:
    """Rows of windows whose windows share batches: several where a row is less than a batch."""
    return max(1, batch_size // columns)


def axis_weights(size: int, tile: int, overlap: int) -> np.ndarray:
    """Weights of the windows along one axis, (windows, tile), that sum to 1 at every pixel.

    A window's weight falls over `overlap` pixels towards its inner edges, where it is still
    positive; it does not fall towards the scene's own edges. Two-dimensional weights are the
    product of both axes and so sum to 1 as well, without any division afterwards.
    """
    starts = shifted_starts(size, tile, overlap)
    if len(starts) == 1:
        return np.ones((1, tile), dtype=np.float32)
    distance = np.arange(tile) + 0.5
    rise = np.minimum(1.0, distance / overlap) if overlap else np.ones(tile)
    weights = np.ones((len(starts), tile))
    for index, start in enumerate(starts):
        if start > 0:
            weights[index] *= rise
        if start + tile < size:
            weights[index] *= rise[::-1]
    total = np.zeros(size)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + tile]
    return weights.astype(np.float32)


def blend(
    rows: Iterable[WindowRow],
    predict: Predictor,
    span: Span,
    batch_size: int = 1,
    on_windows: Callable[[int], object] | None = None,
    layers: tuple[int, ...] = (),
) -> Iterator[Strip]:
    """Predict the windows of `rows`, which are those of `span`, and yield strips in order.

    An answer has the shape (N, *layers, tile, tile), without layers for a single probability.

    Windows without a valid pixel are never predicted: a valid pixel is valid in every window
    that covers it, so its weights are complete without them. `on_windows` is called with the
    number of windows that are done. The first rows of windows of a span that does not start
    with the scene lack what windows above them would have added: their strips above the
    frame that the span was made for are not complete.
    """
    grid, tile, width = span.grid, span.grid.tile, span.width
    carry = np.zeros((*layers, 0, width), dtype=np.float32)
    total = np.zeros((*layers, tile, width), dtype=np.float32)
    weighted = np.empty((*layers, tile, tile), dtype=np.float32)
    for row, col, answer in _answers(rows, predict, span, batch_size):
        if answer is not None:
            total[..., span.columns(col)] += np.multiply(grid.col_weights[col], answer, weighted)
            continue
        total *= grid.row_weights[row.index][:, None]
        total[..., : carry.shape[-2], :] += carry
        strip, done = _finished(row, total, grid, min(width, grid.width - span.left))
        carry = total[..., done:, :].copy()
        total[:] = 0
        del row, answer  # while the next row is waited for, nobody needs this one
        yield strip
        del strip
        if on_windows:
            on_windows(len(span.cols))


def _finished(row: WindowRow, total: np.ndarray, grid: WindowGrid, width: int) -> tuple[Strip, int]:
    """The rows above the next row of windows, which are final, and their number."""
    start = grid.rows[row.index]
    last = row.index == len(grid.rows) - 1
    end = grid.height if last else grid.rows[row.index + 1]
    valid = row.valid[: end - start, :width]
    values = total[..., : end - start, :width].copy()
    if not valid.all():
        values[..., ~valid] = 0.0
    return Strip(start, values, valid), end - start


def _answers(
    rows: Iterable[WindowRow], predict: Predictor, span: Span, batch_size: int
) -> Iterator[tuple[WindowRow, int, np.ndarray | None]]:
    """Row, column and answers of all windows with valid pixels; None at a row's end."""
    waiting: deque[list[tuple[WindowRow, int]]] = deque()  # per batch, a row's end as column END

    def batches() -> Iterator[np.ndarray]:
        for steps in _steps(rows, span, batch_size):
            waiting.append(steps)
            yield _stack([step for step in steps if step[1] != END], steps[0][0], span)
            del steps

    for batch in answers(predict, batches()):
        answer = iter(batch)
        for row, col in waiting.popleft():
            yield row, col, None if col == END else next(answer)


def _steps(
    rows: Iterable[WindowRow], span: Span, batch_size: int
) -> Iterator[list[tuple[WindowRow, int]]]:
    """Batch by batch, the windows with valid pixels; after the last one of each row, END.

    A batch has windows of several rows where they are few, else a row has several batches of
    nearly equal size.
    """
    size = _rows_per_group(len(span.cols), batch_size)
    steps: list[tuple[WindowRow, int]] = []
    for row in rows:
        wanted = _wanted(row, span)
        *parts, rest = np.array_split(wanted, max(1, -(-len(wanted) // batch_size)))
        for part in parts:
            yield [(row, int(col)) for col in part]
        steps += [(row, int(col)) for col in (*rest, END)]
        index = row.index
        del row
        if index % size == size - 1 or index == span.rows.stop - 1:
            group, steps = steps, []
            yield group
            del group


def _stack(windows: list[tuple[WindowRow, int]], like: WindowRow, span: Span) -> np.ndarray:
    parts = [row.data[:, :, span.columns(col)] for row, col in windows]
    if len(parts) == 1:  # as it lies in the row, not copied
        return parts[0][None]
    tile = span.grid.tile
    batch = np.empty((len(parts), len(like.data), tile, tile), dtype=np.uint8)
    for place, part in zip(batch, parts, strict=True):
        place[:] = part
    return batch


def _wanted(row: WindowRow, span: Span) -> list[int]:
    """Columns of windows with a valid pixel."""
    seen = np.concatenate([[0], np.cumsum(row.valid.any(axis=0))])
    starts = np.array([span.columns(col).start for col in span.cols])
    stops = starts + span.grid.tile
    return (np.flatnonzero(seen[stops] > seen[starts]) + span.cols.start).tolist()


def answers(predict: Predictor, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Answers to all batches, in order, worked ahead where `predict` can; a batch may be empty.

    Raises:
        LsmapFailure: an answer has NaN in it, which would pass for background.
    """
    ahead = getattr(predict, "stream", None)
    for answer in ahead(batches) if ahead is not None else _one_by_one(predict, batches):
        if np.isnan(answer.sum()):
            raise LsmapFailure(
                "the model returns NaN, so it is damaged or its training "
                "diverged: take another, or train again with a lower --lr"
            )
        yield answer


def _one_by_one(predict: Predictor, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield predict(batch) if len(batch) else np.empty((0, *batch.shape[2:]), np.float32)
