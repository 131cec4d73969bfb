"""From windows to one seamless probability: overlapping windows, blended strip by strip.

The predictor is any callable (windows in, probabilities out); nothing here knows a network.
Memory depends on the scene's width and the window size, never on the scene's height.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from landslide_mapper.geo.grid import shifted_starts
from landslide_mapper.geo.radiometry import Radiometry
from landslide_mapper.geo.scene import Scene, SceneReader

READ_COLUMNS = 4096  # pixels of a row of windows that are read and stretched at a time

T = TypeVar("T")

# uint8 (N, B, tile, tile) → probabilities (N, tile, tile) in 0..1
Predictor = Callable[[np.ndarray], np.ndarray]
# (first row, height, width) → uint8 (B, height, width) and valid (height, width)
RowReader = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class WindowGrid:
    """Square windows of `tile` pixels over a scene of `height` × `width` pixels.

    Neighbours overlap by at least `overlap` pixels. The last window of an axis ends with the
    scene, so a window never looks past the edge unless the scene is smaller than a window.
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


@dataclass(frozen=True)
class Strip:
    """Finished rows of the scene, over its full width."""

    row: int  # first pixel row
    probability: np.ndarray  # float32 (h, width), 0 where not valid
    valid: np.ndarray  # bool (h, width)


@dataclass(frozen=True)
class WindowRow:
    """One row of windows: `tile` pixel rows over the full width (at least one window wide)."""

    index: int
    data: np.ndarray
    valid: np.ndarray


def axis_weights(size: int, tile: int, overlap: int) -> np.ndarray:
    """Weights of the windows along one axis, (windows, tile), that sum to 1 at every pixel.

    A window's weight falls over `overlap` pixels towards its inner edges, where it is still
    positive; it does not fall towards the scene's own edges. Two-dimensional weights are the
    product of both axes and so sum to 1 as well, without any division afterwards.
    """
    starts = shifted_starts(size, tile, overlap)
    distance = np.arange(tile) + 0.5
    rise = np.minimum(1.0, distance / overlap) if overlap else np.ones(tile)
    weights = np.ones((len(starts), tile))
    for index, start in enumerate(starts):
        if start > 0:
            weights[index] *= rise
        if start + tile < size:
            weights[index] *= rise[::-1]
    total = np.zeros(max(size, tile))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start : start + tile]
    return weights.astype(np.float32)


def scene_rows(scene: Scene, radiometry: Radiometry, grid: WindowGrid) -> Iterator[WindowRow]:
    """Every row of windows of `scene`, stretched by `radiometry`; each pixel is read once.

    Opens a GDAL handle of its own in the thread that iterates.
    """
    with SceneReader(scene) as reader:

        def read(row: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
            data = np.empty((len(scene.bands), height, width), dtype=np.uint8)
            valid = np.empty((height, width), dtype=bool)
            for col in range(0, width, READ_COLUMNS):
                part = slice(col, min(col + READ_COLUMNS, width))
                raw, seen = reader.read(row, col, height, part.stop - part.start)
                data[:, :, part] = radiometry.apply(raw, seen)
                valid[:, part] = seen
            return data, valid

        yield from window_rows(read, grid)


def window_rows(read: RowReader, grid: WindowGrid) -> Iterator[WindowRow]:
    """Rows of windows one after the other; rows shared by two of them are read only once."""
    width = max(grid.width, grid.tile)
    data, valid = read(0, grid.tile, width)
    yield WindowRow(0, data, valid)
    for index in range(1, len(grid.rows)):
        step = grid.rows[index] - grid.rows[index - 1]
        new, seen = read(grid.rows[index] + grid.tile - step, step, width)
        data = np.concatenate([data[:, step:], new], axis=1)
        valid = np.concatenate([valid[step:], seen], axis=0)
        yield WindowRow(index, data, valid)


def blend(
    rows: Iterable[WindowRow],
    predict: Predictor,
    grid: WindowGrid,
    batch_size: int = 1,
    on_window: Callable[[], object] | None = None,
) -> Iterator[Strip]:
    """Predict the windows of all `rows` in batches and yield the finished strips in order.

    Windows without a valid pixel are never predicted: a valid pixel is valid in every window
    that covers it, so its weights are complete without them. `on_window` is called once for
    every window that is done.
    """
    total = np.zeros((grid.tile, max(grid.width, grid.tile)), dtype=np.float32)
    for row, col, answer in _answers(rows, predict, grid, batch_size):
        if answer is not None:
            start = grid.cols[col]
            weight = grid.row_weights[row.index][:, None] * grid.col_weights[col]
            total[:, start : start + grid.tile] += weight * answer
        if on_window:
            on_window()
        if col == len(grid.cols) - 1:
            strip, total = _close(row, total, grid)
            yield strip


def _answers(
    rows: Iterable[WindowRow], predict: Predictor, grid: WindowGrid, batch_size: int
) -> Iterator[tuple[WindowRow, int, np.ndarray | None]]:
    """`(row, column of windows, probabilities)` in order; None for windows without valid pixels."""
    # Batches may reach over rows of windows, but the rows that wait must not pile up where
    # there is nothing to predict.
    limit = max(batch_size, 2 * len(grid.cols))
    waiting: list[tuple[WindowRow, int, np.ndarray | None]] = []
    seen = 0
    for row in rows:
        for col, start in enumerate(grid.cols):
            part = slice(start, start + grid.tile)
            window = row.data[:, :, part] if row.valid[:, part].any() else None
            waiting.append((row, col, window))
            seen += window is not None
            if seen == batch_size or seen == 0 or len(waiting) == limit:
                yield from _predict(waiting, predict)
                waiting, seen = [], 0
    yield from _predict(waiting, predict)


def _predict(
    waiting: list[tuple[WindowRow, int, np.ndarray | None]], predict: Predictor
) -> Iterator[tuple[WindowRow, int, np.ndarray | None]]:
    windows = [window for _, _, window in waiting if window is not None]
    answers = iter(predict(np.stack(windows)) if windows else ())
    for row, col, window in waiting:
        yield row, col, None if window is None else next(answers)


def _close(row: WindowRow, total: np.ndarray, grid: WindowGrid) -> tuple[Strip, np.ndarray]:
    """The rows above the next row of windows are final; the rest moves up."""
    start = grid.rows[row.index]
    last = row.index == len(grid.rows) - 1
    end = grid.height if last else grid.rows[row.index + 1]
    done = end - start
    valid = row.valid[:done, : grid.width]
    # Each pixel's weights sum to 1 within float rounding; the answer is a probability.
    probability = np.clip(total[:done, : grid.width], 0.0, 1.0)
    probability[~valid] = 0.0
    moved = np.zeros_like(total)
    moved[: grid.tile - done] = total[done:]
    return Strip(start, probability, valid), moved


def average_symmetries(predict: Predictor) -> Predictor:
    """Test-time augmentation: the mean of `predict` over the 8 symmetries of a square window."""

    def averaged(windows: np.ndarray) -> np.ndarray:
        total = np.zeros((len(windows), *windows.shape[2:]), dtype=np.float32)
        for turns in range(4):
            for mirrored in (False, True):
                seen = windows[..., ::-1] if mirrored else windows
                answer = predict(np.ascontiguousarray(np.rot90(seen, turns, (2, 3))))
                answer = np.rot90(answer, -turns, (1, 2))
                total += answer[..., ::-1] if mirrored else answer
        return total / np.float32(8)

    return averaged


def prefetch(items: Callable[[], Iterator[T]], depth: int = 1) -> Generator[T, None, None]:
    """Iterate `items()` in a thread, up to `depth` items ahead; its errors are raised here.

    Closing the generator (or an error while it is consumed) ends the thread.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((item, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items():
                put(item, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # handed to the consumer, who raises it
            put(None, error)

    thread = threading.Thread(target=work, name="lsmap-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
