"""Rows of windows of a scene, read and stretched by threads ahead of who uses them.

Every thread has one GDAL handle and its own columns of the scene, so that what GDAL keeps
decoded in memory is used again by the next row of windows.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from landslide_mapper.geo.aoi import Aoi
from landslide_mapper.geo.blend import Span, WindowGrid, WindowRow
from landslide_mapper.geo.radiometry import Radiometry
from landslide_mapper.geo.scene import Scene, SceneReader

PIECE = 1024  # columns of a piece that one thread reads; a multiple of usual block sizes
AHEAD = 2  # rows of windows that are being read while one is predicted
MAX_THREADS = 4

# (row, col, height, width) → uint8 (B, height, width) and valid (height, width)
Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]


def scene_rows(
    scene: Scene, radiometry: Radiometry, grid: WindowGrid, span: Span, aoi: Aoi | None = None
) -> Generator[WindowRow, None, None]:
    """The rows of windows of `span`, stretched by `radiometry`; each pixel is read once.

    Pixels outside `aoi` go into the network as they are, but are not valid: no answer is
    wanted there. Close the generator when it is not used up: that ends its threads.
    """
    width = span.width(grid)
    readers = _Readers(scene, radiometry, _threads(scene, width))
    try:
        for row in window_rows(readers.read, grid, span):
            if aoi is not None:
                top, left = grid.rows[row.index], span.left(grid)
                inside = aoi.inside(top, left, grid.tile, width)
                row = WindowRow(row.index, row.data, row.valid & inside)
            yield row
    finally:
        readers.close()


def window_rows(
    read: Callable[[int, int, int, int], Future[tuple[np.ndarray, np.ndarray]]],
    grid: WindowGrid,
    span: Span,
) -> Iterator[WindowRow]:
    """Rows of windows one after the other; pixel rows that two of them share are read once.

    `read` (row, col, height, width) starts reading and returns at once.
    """
    tile, left, width = grid.tile, span.left(grid), span.width(grid)
    starts = [grid.rows[index] for index in span.rows]
    steps = [tile, *(b - a for a, b in itertools.pairwise(starts))]
    waiting: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
    data = valid = None
    for number, index in enumerate(span.rows):
        while len(waiting) <= AHEAD and number + len(waiting) < len(starts):
            step = steps[number + len(waiting)]
            bottom = starts[number + len(waiting)] + tile
            waiting.append(read(bottom - step, left, step, width))
        new, seen = waiting.popleft().result()
        step = steps[number]
        if data is not None and valid is not None and step < tile:
            new = np.concatenate([data[:, step:], new], axis=1)
            seen = np.concatenate([valid[step:], seen], axis=0)
        data, valid = new, seen
        yield WindowRow(index, data, valid)


class _Readers:
    """Threads that read pieces of a scene and one that puts them together."""

    def __init__(self, scene: Scene, radiometry: Radiometry, threads: int) -> None:
        self._scene = scene
        self._radiometry = radiometry
        self._handles: list[SceneReader | None] = [None] * threads
        self._pools = [ThreadPoolExecutor(1, "lsmap-reader") for _ in range(threads)]
        self._joiner = ThreadPoolExecutor(1, "lsmap-reader")

    def read(
        self, row: int, col: int, height: int, width: int
    ) -> Future[tuple[np.ndarray, np.ndarray]]:
        """Start reading a window."""
        data = np.empty((len(self._scene.bands), height, width), dtype=np.uint8)
        valid = np.empty((height, width), dtype=bool)
        count = len(self._pools)
        # Cut at multiples of PIECE of the scene: each thread keeps to its columns.
        cuts = [col, *range((col // PIECE + 1) * PIECE, col + width, PIECE), col + width]
        if count == 1:
            cuts = [col, col + width]
        jobs = []
        for start, stop in itertools.pairwise(cuts):
            part = slice(start - col, stop - col)
            number = start // PIECE % count
            place = (data[:, :, part], valid[:, part])
            jobs.append(self._pools[number].submit(self._piece, number, row, start, *place))

        def together() -> tuple[np.ndarray, np.ndarray]:
            for job in jobs:
                job.result()
            return data, valid

        return self._joiner.submit(together)

    def _piece(self, number: int, row: int, col: int, data: np.ndarray, valid: np.ndarray) -> None:
        reader = self._handles[number]
        if reader is None:
            reader = self._handles[number] = SceneReader(self._scene)
        raw, seen = reader.read(row, col, *valid.shape)
        data[:] = self._radiometry.apply(raw, seen)
        valid[:] = seen

    def close(self) -> None:
        """End the threads, then close their handles."""
        for pool in (*self._pools, self._joiner):
            pool.shutdown(wait=True, cancel_futures=True)
        for handle in self._handles:
            if handle is not None:
                handle.close()


def _threads(scene: Scene, width: int) -> int:
    """One where blocks of the file are as wide as the file: others would decode them again."""
    with SceneReader(scene) as reader:
        if reader.block_width >= min(scene.width, width) and scene.width > PIECE:
            return 1
    return max(1, min(MAX_THREADS, os.cpu_count() or 1, -(-width // PIECE)))
