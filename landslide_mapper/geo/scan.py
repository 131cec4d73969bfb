"""Runs of set pixels along the rows of a mask, which of them hang together, and the corners.

A place is row * stride + column with stride = width + 1, so that pixel corners have one too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CHUNK = 1 << 20  # pixels that are scanned at a time


@dataclass(frozen=True)
class Scan:
    """Runs and corners of a mask."""

    stride: int  # width + 1
    starts: np.ndarray  # int, place of each run's first pixel; runs in reading order
    ends: np.ndarray  # int, place after each run's last pixel
    total: np.ndarray  # float64, sum of each run's probabilities
    highest: np.ndarray  # float32
    corners: np.ndarray  # int, place of each corner, once
    pinch: np.ndarray  # bool, two diagonal pixels of the four around the corner are set
    inside: np.ndarray  # bool, the pixel to the lower right of the corner is set

    @classmethod
    def of(cls, mask: np.ndarray, values: np.ndarray) -> Scan:
        """Scan a mask (h, w), a few rows at a time; `values` are those of its set pixels."""
        height, width = mask.shape
        stride = width + 1
        place = np.int32 if (height + 1) * stride < 2**31 else np.int64
        rows = max(1, _CHUNK // stride)
        parts, done = [], 0
        for top, chunk in _row_chunks(mask, rows):
            upto = done + int(np.count_nonzero(chunk[1:]))
            runs = _scan_runs(chunk, values[done:upto], top, place)
            parts.append((*runs, *_scan_corners(chunk, top, place)))
            done = upto
        if done != len(values):
            raise ValueError(f"{len(values)} values for {done} set pixels")
        return cls(stride, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def _row_chunks(mask: np.ndarray, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row of each chunk and its pixels, with the row above and an empty frame around all.

    The chunks end with the empty row under the mask.
    """
    height, width = mask.shape
    for top in range(0, height + 1, rows):
        bottom = min(top + rows, height + 1)
        chunk = np.zeros((bottom - top + 1, width + 2), bool)
        first, last = max(top - 1, 0), min(bottom, height)
        chunk[first - top + 1 : last - top + 1, 1:-1] = mask[first:last]
        yield top, chunk


def _scan_runs(
    chunk: np.ndarray, values: np.ndarray, top: int, place: type
) -> tuple[np.ndarray, ...]:
    """Starts, ends, sums and highest values of a chunk's runs."""
    pixels = chunk[1:]
    bounds = np.flatnonzero(pixels[:, 1:] != pixels[:, :-1])
    if len(bounds) == 0:
        nothing: np.ndarray = np.empty(0, place)
        return nothing, nothing, np.empty(0), np.empty(0, np.float32)
    bounds += top * (chunk.shape[1] - 1)
    starts, ends = bounds[0::2], bounds[1::2]
    length = ends - starts
    first = np.cumsum(length) - length
    total = np.add.reduceat(values, first, dtype=np.float64)
    return starts.astype(place), ends.astype(place), total, np.maximum.reduceat(values, first)


def _scan_corners(chunk: np.ndarray, top: int, place: type) -> tuple[np.ndarray, ...]:
    """Corners of a chunk: where they are, which are pinches, which have the lower right set."""
    changes = chunk[:, 1:] != chunk[:, :-1]
    corner = changes[1:] != changes[:-1]
    pinch = changes[1:] & changes[:-1]
    pinch &= chunk[1:, 1:] != chunk[:-1, 1:]
    corner |= pinch
    found = np.flatnonzero(corner)
    inside = chunk[1:, 1:].ravel()[found]
    return (found + top * corner.shape[1]).astype(place), pinch.ravel()[found], inside


def label_runs(scan: Scan) -> np.ndarray:
    """Component of every run, numbered in the order of their first runs."""
    first = np.searchsorted(scan.ends, scan.starts - scan.stride, side="right").astype(np.int32)
    last = np.searchsorted(scan.starts, scan.ends - scan.stride, side="left").astype(np.int32)
    above = last - first  # runs in the row above that share a pixel edge
    parent = np.where(above > 0, first, np.arange(len(first), dtype=np.int32))
    parent = _roots(parent)
    several = np.flatnonzero(above > 1)
    more = above[several] - 1
    step = np.arange(1, more.sum() + 1) - np.repeat(np.cumsum(more) - more, more)
    beside = np.repeat(first[several], more)
    link(parent, parent[beside], parent[beside + step])
    parent = _roots(parent)
    number = np.cumsum(parent == np.arange(len(parent)), dtype=np.int32) - 1
    return np.asarray(number[parent])


def _roots(parent: np.ndarray) -> np.ndarray:
    """Follow the parents of all nodes up to those that are their own."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            return parent
        parent = further


def link(parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Make one tree, under its least root, of the roots that the pairs (a, b) link, in place.

    These roots have that one as their parent then, whatever chains the pairs make.
    """
    nodes, ends = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = ends[: len(a)], ends[len(a) :]
    root = np.arange(len(nodes))
    while True:
        apart = np.flatnonzero(root[a] != root[b])
        if len(apart) == 0:
            break
        a, b = root[a[apart]], root[b[apart]]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        root = _roots(root)
    parent[nodes] = nodes[root]


def component_at(scan: Scan, label: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Component of set pixels, given by their places."""
    return np.asarray(label[np.searchsorted(scan.starts, pixels, side="right") - 1])
