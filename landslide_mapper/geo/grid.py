"""Where windows start along one axis, and rectangles of a scene. Pure arithmetic in pixels."""

from __future__ import annotations

from dataclasses import dataclass

from affine import Affine


@dataclass(frozen=True)
class Frame:
    """A rectangle of whole pixels of a scene."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Frame:
        """All of a scene of this size."""
        return cls(0, 0, height, width)

    @property
    def bottom(self) -> int:
        """First pixel row below."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """First pixel column to the right."""
        return self.col + self.width

    def common(self, other: Frame) -> Frame | None:
        """The pixels that are in both; None where there is none."""
        top, left = max(self.row, other.row), max(self.col, other.col)
        height = min(self.bottom, other.bottom) - top
        width = min(self.right, other.right) - left
        return Frame(top, left, height, width) if height > 0 and width > 0 else None

    def transform(self, scene: Affine) -> Affine:
        """The affine transform of a raster of just this rectangle; `scene` is the scene's."""
        return scene * Affine.translation(self.col, self.row)


def default_overlap(tile: int) -> int:
    """Pixels that windows of `tile` pixels share: a quarter, where seams are gone (README)."""
    return tile // 4


def axis_starts(size: int, tile: int, stride: int) -> list[int]:
    """Starts of windows of `tile` that cover `size`; the last may reach over the end."""
    _check(size, tile)
    if not 0 < stride <= tile:
        raise ValueError(f"stride {stride} must be 1 to the tile size {tile}")
    starts = [0]
    while starts[-1] + tile < size:
        starts.append(starts[-1] + stride)
    return starts


def shifted_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Starts of windows that overlap by at least `overlap`; the last ends at `size`.

    When `size <= tile` a single one, with the axis in its middle: there images that are smaller
    than a tile lie when a network is measured.
    """
    _check(size, tile)
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap {overlap} must be 0 to the tile size {tile} less 1")
    if size <= tile:
        return [-((tile - size) // 2)]
    return [*range(0, size - tile, tile - overlap), size - tile]


def block_starts(begin: int, end: int, size: int, tile: int, stride: int) -> list[int]:
    """Starts of windows inside the block [begin, end) of an axis of `size` pixels.

    Windows never leave the block, except over the end of the axis itself, where there is
    nothing but padding.
    """
    starts = axis_starts(end - begin, tile, stride)
    if end < size:
        starts = [min(start, max(0, end - begin - tile)) for start in starts]
    return [begin + start for start in dict.fromkeys(starts)]


def _check(size: int, tile: int) -> None:
    if size < 1 or tile < 1:
        raise ValueError(f"size {size} and tile {tile} must be positive")
