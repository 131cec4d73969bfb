"""Rows of windows of a scene, read and stretched by threads ahead of who uses them.

Every thread has one GDAL handle and its own columns of the scene, so that what GDAL keeps
decoded in memory is used again by the next row of windows.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise

import numpy as np

from landslide_mapper.geo.aoi import Aoi
from landslide_mapper.geo.blend import Span, WindowRow
from landslide_mapper.geo.radiometry import Radiometry
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_reader import SceneReader

PIECE = 1024  # columns of a piece that one thread reads; a multiple of usual block sizes
AHEAD = 1  # rows of windows that are being read while one is predicted
MAX_THREADS = 4

# (row, col, uint8 (B, h, w) and bool (h, w) to be filled)
Read = Callable[[int, int, np.ndarray, np.ndarray], "Sequence[Future[None]]"]


def scene_rows(
    scene: Scene, radiometry: Radiometry, span: Span, aoi: Aoi | None = None
) -> Generator[WindowRow, None, None]:
    """The rows of windows of `span`, stretched by `radiometry`; each pixel is read once.

    Pixels outside `aoi` go into the network as they are, but are not valid: no answer is
    wanted there. Close the generator when it is not used up: that ends its threads.
    """
    grid = span.grid
    readers = _Readers(scene, radiometry, _threads(scene, span.width))
    try:
        for row in window_rows(readers.read, len(scene.bands), span):
            if aoi is not None:
                inside = aoi.inside(grid.rows[row.index], span.left, grid.tile, span.width)
                row = WindowRow(row.index, row.data, row.valid & inside)
            yield row
    finally:
        readers.close()


def window_rows(read: Read, bands: int, span: Span) -> Iterator[WindowRow]:
    """Rows of windows one after the other; pixel rows that two of them share are read once.

    `read` (row, col, data, valid) starts to fill the arrays with the pixels from there on, and
    returns at once what is to be waited for.
    """
    grid, tile, width = span.grid, span.grid.tile, span.width
    waiting: deque[tuple[WindowRow, Sequence[Future[None]]]] = deque()

    def start(index: int) -> None:
        data = np.empty((bands, tile, width), dtype=np.uint8)
        row = WindowRow(index, data, np.empty((tile, width), dtype=bool))
        first = index == span.rows.start
        known = 0 if first else max(0, grid.rows[index - 1] + tile - grid.rows[index])
        new = read(grid.rows[index] + known, span.left, data[:, known:], row.valid[known:])
        waiting.append((row, new))

    ahead = iter(span.rows)
    for index in islice(ahead, AHEAD):
        start(index)
    while waiting:
        for index in islice(ahead, 1):
            start(index)
        row, new = waiting.popleft()
        for piece in new:
            piece.result()
        if waiting:
            following = waiting[0][0]
            known = max(0, grid.rows[row.index] + tile - grid.rows[following.index])
            following.data[:, :known] = row.data[:, tile - known :]
            following.valid[:known] = row.valid[tile - known :]
        yield row
        del row  # while the next one is waited for, nobody needs it


class _Readers:
    """Threads that read pieces of a scene."""

    def __init__(self, scene: Scene, radiometry: Radiometry, threads: int) -> None:
        self._scene = scene
        self._radiometry = radiometry
        self._handles: list[SceneReader | None] = [None] * threads
        self._pools = [ThreadPoolExecutor(1, "lsmap-reader") for _ in range(threads)]

    def read(self, row: int, col: int, data: np.ndarray, valid: np.ndarray) -> list[Future[None]]:
        """Start to fill `data` (B, h, w) and `valid` (h, w) with the pixels from there on."""
        count, right = len(self._pools), col + valid.shape[1]
        # Cut at multiples of PIECE of the scene: each thread keeps to its columns.
        cuts = [col, *range((col // PIECE + 1) * PIECE, right, PIECE), right]
        if count == 1:
            cuts = [col, right]
        jobs = []
        for start, stop in pairwise(cuts):
            part = slice(start - col, stop - col)
            number = start // PIECE % count
            place = (data[:, :, part], valid[:, part])
            jobs.append(self._pools[number].submit(self._piece, number, row, start, *place))
        return jobs

    def _piece(self, number: int, row: int, col: int, data: np.ndarray, valid: np.ndarray) -> None:
        reader = self._handles[number]
        if reader is None:
            reader = self._handles[number] = SceneReader(self._scene)
        raw, seen = reader.read(row, col, *valid.shape)
        data[:] = self._radiometry.apply(raw, seen)
        valid[:] = seen

    def close(self) -> None:
        """End the threads, then close their handles."""
        for pool in self._pools:
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
