"""Blocks: the parts of a scene that are worked on, kept and handed out on their own.

A scene is cut into columns and bands, at window starts, so that a block is a whole number of
strips. Its columns are at most `MAX_WIDTH` pixels wide: that bounds the memory of the work,
whatever the scene. The cuts depend on the grid and the frame alone.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from landslide_mapper.geo.blend import WindowGrid
from landslide_mapper.geo.grid import Frame

MAX_WIDTH = 5632  # pixels; windows that reach over a cut are predicted on both sides of it
MAX_PIXELS = 5 * 2**20
SHARES = 4  # several bands are a multiple of it, so that two or four workers get as many


@dataclass(frozen=True)
class Block:
    """One block: its place in the layout and the pixels of the scene that it covers."""

    band: int
    column: int
    frame: Frame
    inner: tuple[bool, bool, bool, bool]  # does the layout go on above, below, left, right


@dataclass(frozen=True)
class Layout:
    """The blocks of `frame`, in bands (from top to bottom) and columns (from left to right)."""

    grid: WindowGrid
    frame: Frame
    max_width: int = MAX_WIDTH
    max_pixels: int = MAX_PIXELS

    @cached_property
    def cols(self) -> list[int]:
        """Pixel columns at which columns of blocks begin, and where the last one ends."""
        return _cuts(self.grid.cols, self.frame.col, self.frame.right, self.max_width)

    @cached_property
    def rows(self) -> list[int]:
        """Pixel rows at which bands begin, and where the last one ends."""
        widest = max(b - a for a, b in zip(self.cols, self.cols[1:], strict=False))
        height = max(1, self.max_pixels // widest)
        return _cuts(self.grid.rows, self.frame.row, self.frame.bottom, height, SHARES)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.rows) - 1

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.cols) - 1

    def block(self, band: int, column: int) -> Block:
        """The block at this place."""
        top, bottom = self.rows[band : band + 2]
        left, right = self.cols[column : column + 2]
        inner = (band > 0, band < self.bands - 1, column > 0, column < self.columns - 1)
        return Block(band, column, Frame(top, left, bottom - top, right - left), inner)

    def __iter__(self) -> Iterator[Block]:
        """All blocks, row by row."""
        for band in range(self.bands):
            for column in range(self.columns):
                yield self.block(band, column)

    def __len__(self) -> int:
        return self.bands * self.columns


def stacks(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks below each other, which are worked on together, as lists from top to bottom."""
    found: list[list[Block]] = []
    for block in sorted(blocks, key=lambda block: (block.column, block.band)):
        last = found[-1] if found else []
        follows = last and (last[-1].column, last[-1].band + 1) == (block.column, block.band)
        if follows:
            last.append(block)
        else:
            found.append([block])
    return found


def _cuts(
    starts: Sequence[int], begin: int, end: int, longest: int, multiple: int = 1
) -> list[int]:
    """Cuts of an axis at window starts into nearly equal pieces of at most `longest` pixels.

    A piece is longer than that only where it is a single step from window to window. Where one
    piece is not enough, a multiple of `multiple` is aimed at.
    """
    inner = [start for start in starts if begin < start < end]
    every = [begin, *inner, end]
    step = max(b - a for a, b in itertools.pairwise(every))
    if step >= longest:
        return every
    count = -(-(end - begin) // longest)
    if count > 1:
        count = -(-count // multiple) * multiple
    while True:
        wanted = [begin + (end - begin) * number / count for number in range(1, count)]
        cuts = [begin, *sorted({_nearest(inner, place) for place in wanted}), end]
        if max(b - a for a, b in itertools.pairwise(cuts)) <= longest:
            return cuts
        count += multiple


def _nearest(places: Sequence[int], wanted: float) -> int:
    index = bisect(places, wanted)
    return min(places[max(0, index - 1) : index + 1], key=lambda place: abs(place - wanted))
