"""Landslides that reach over the sides of blocks, put together exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from landslide_mapper.geo.rings import unite
from landslide_mapper.geo.vectorize import Components, Sides


@dataclass
class _Open:
    """Pieces of one component that hang together, as far as is known."""

    pieces: list[int]
    polygons: list[shapely.Polygon]
    pixels: int
    total: float
    highest: float
    waits: int = 0  # pieces × sides that the blocks beyond are still to come for

    def take(self, other: _Open) -> None:
        self.pieces += other.pieces
        self.polygons += other.polygons
        self.pixels += other.pixels
        self.total += other.total
        self.highest = max(self.highest, other.highest)
        self.waits += other.waits


class Joiner:
    """Joins what reaches over the sides of blocks that lie in bands (rows) and columns.

    All blocks of a band have the same rows, all of a column the same columns. They are given in
    reading order; where one is missing, nothing is there. Holds the components that may go on,
    and the labels along the frontier.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._turn = -1
        self._next_piece = 0
        self._group: dict[int, _Open] = {}  # of each piece
        # Piece per pixel (-1: none) along sides, by the turn of the block beyond and its side.
        self._frontier: dict[tuple[int, str], np.ndarray] = {}

    def add(self, band: int, column: int, pieces: Components, sides: Sides) -> Components:
        """Add what is open of a block; returns the components that are complete now.

        Args:
            band, column: where the block is.
            pieces, sides: see `BlockComponents.open` and its sides.

        Raises:
            ValueError: the block does not come after those added before.
        """
        turn = band * self._columns + column
        if not self._turn < turn or not 0 <= column < self._columns:
            raise ValueError(f"block ({band}, {column}) is out of turn")
        self._turn = turn
        missed = [key for key in self._frontier if key[0] < turn]
        done = [piece for key in missed for piece in self._release(self._frontier.pop(key))]
        first = self._next_piece
        done += self._open_pieces(pieces)
        if column + 1 < self._columns:
            self._wait((turn + 1, "left"), sides.right, first)
        self._wait((turn + self._columns, "top"), sides.bottom, first)
        for side, labels in (("top", sides.top), ("left", sides.left)):
            beyond = self._frontier.pop((turn, side), None)
            if beyond is not None:
                self._link(beyond, labels, first)
                done += self._release(beyond)
        return self._complete(done)

    def finish(self) -> Components:
        """The components that waited for blocks which never came."""
        done = [piece for beyond in self._frontier.values() for piece in self._release(beyond)]
        self._frontier.clear()
        return self._complete(done)

    def _open_pieces(self, found: Components) -> range:
        pieces = range(self._next_piece, self._next_piece + len(found))
        self._next_piece = pieces.stop
        for piece, *values in zip(
            pieces,
            found.polygons.tolist(),
            found.pixels.tolist(),
            found.total.tolist(),
            found.highest.tolist(),
            strict=True,
        ):
            self._group[piece] = _Open([piece], [values[0]], *values[1:])
        return pieces

    def _wait(self, key: tuple[int, str], labels: np.ndarray, first: int) -> None:
        if not labels.any():
            return
        self._frontier[key] = np.where(labels > 0, labels.astype(np.int64) + (first - 1), -1)
        for piece in _pieces(self._frontier[key]):
            self._group[piece].waits += 1

    def _release(self, beyond: np.ndarray) -> list[int]:
        """Count off the pieces that waited along a side, and return them."""
        pieces = _pieces(beyond)
        for piece in pieces:
            self._group[piece].waits -= 1
        return pieces

    def _link(self, beyond: np.ndarray, labels: np.ndarray, first: int) -> None:
        touching = (beyond >= 0) & (labels > 0)
        pairs = np.stack([beyond[touching], labels[touching] + (first - 1)], axis=1)
        for a, b in np.unique(pairs, axis=0).tolist():
            large, small = self._group[a], self._group[b]
            if large is small:
                continue
            if len(large.pieces) < len(small.pieces):
                large, small = small, large
            large.take(small)
            for piece in small.pieces:
                self._group[piece] = large

    def _complete(self, pieces: list[int]) -> Components:
        """The components of these pieces that wait for nothing more."""
        closed = []
        for piece in pieces:
            group = self._group.get(piece)
            if group is not None and group.waits == 0:
                closed.append(group)
                for member in group.pieces:
                    del self._group[member]
        if not closed:
            return Components.empty()
        owner = np.repeat(np.arange(len(closed)), [len(group.pieces) for group in closed])
        found = Components(
            unite(np.array([p for group in closed for p in group.polygons], object), owner),
            np.array([group.pixels for group in closed], np.int64),
            np.array([group.total for group in closed], np.float64),
            np.array([group.highest for group in closed], np.float32),
        )
        return found.where(found.reading_order())


def _pieces(beyond: np.ndarray) -> list[int]:
    pieces: list[int] = np.unique(beyond[beyond >= 0]).tolist()
    return pieces
