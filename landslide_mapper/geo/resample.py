"""A scene at another pixel size: which source pixels make a working pixel, with which weights.

Working pixels are means of the source area that they cover where they are larger than source
pixels, and bilinear between the centres of source pixels where they are smaller; each axis on
its own. Every working pixel depends on its place alone, never on the window that it is read
through, and weights are whole numbers, so that sums of integer pixels are exact in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

UNIT = 256  # the sum of the weights of a working pixel's source pixels, on each axis
HALF = 0.5  # share of a working pixel's source that has to be valid


@dataclass(frozen=True)
class Taps:
    """Per working pixel of one axis, its source pixels and their weights, both (n, k) int.

    Source pixels count from `first`, the first one that is needed; `count` of them are.
    """

    first: int
    count: int
    index: np.ndarray
    weight: np.ndarray


def axis_taps(edges: np.ndarray, size: int, scale: float, nearest: bool = False) -> Taps:
    """Taps for working pixels between `edges` (n + 1, in source pixels) of an axis of `size`.

    Args:
        edges: rising; every pixel between them must touch the axis.
        size: source pixels of the axis.
        scale: source pixels per working pixel, which decides between mean and bilinear.
        nearest: take the single source pixel under the centre instead.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    if nearest:
        index = np.floor(centres).astype(np.int64)[:, None]
        weight = np.full(index.shape, UNIT, dtype=np.int64)
    elif scale >= 1:
        index, weight = _means(edges, size)
    else:
        index, weight = _bilinear(centres)
    index = np.clip(index, 0, size - 1)
    first, last = int(index.min()), int(index.max())
    return Taps(first, last - first + 1, index - first, weight)


def _means(edges: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The source pixels between each pair of edges, by the length that lies between them."""
    low, high = np.clip(edges[:-1], 0, size), np.clip(edges[1:], 0, size)
    begin = np.floor(low).astype(np.int64)
    taps = int((np.ceil(high) - begin).max())
    index = begin[:, None] + np.arange(max(1, taps))
    length = np.maximum(high - low, 1e-9)[:, None]
    # Rounded as running totals, so that they end at UNIT however many pixels there are.
    total = np.rint(np.clip((index + 1 - low[:, None]) / length, 0, 1) * UNIT).astype(np.int64)
    return index, np.diff(total, axis=1, prepend=0)


def _bilinear(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two source pixels whose centres are beside each centre."""
    place = centres - 0.5
    begin = np.floor(place).astype(np.int64)
    right = np.rint((place - begin) * UNIT).astype(np.int64)
    return np.stack([begin, begin + 1], axis=1), np.stack([UNIT - right, right], axis=1)


def resample(
    data: np.ndarray, valid: np.ndarray | None, rows: Taps, cols: Taps
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of the valid source pixels.

    Args:
        data: (B, rows.count, cols.count), any integer or float type, finite.
        valid: (rows.count, cols.count) bool, None where all is valid.

    Returns:
        `(data, valid)`: (B, h, w) in the type of `data` (integers rounded half up) and (h, w)
        bool, true where at least half of the source is valid by weight. Data is 0 elsewhere.
    """
    shape = (len(rows.index), len(cols.index))
    out = np.zeros((len(data), *shape), dtype=data.dtype)
    if valid is None:
        for band, target in zip(data, out, strict=True):
            target[:] = _rounded(_sums(band, rows, cols), UNIT**2, data.dtype)
        return out, np.ones(shape, dtype=bool)
    weight = _sums(valid.view(np.uint8), rows, cols)
    seen = weight >= HALF * UNIT**2
    below = np.where(seen, weight, 1)
    for band, target in zip(data, out, strict=True):
        known = np.where(valid, band, band.dtype.type(0))
        target[:] = np.where(seen, _rounded(_sums(known, rows, cols), below, data.dtype), 0)
    return out, seen


def _rounded(total: np.ndarray, weight: np.ndarray | int, dtype: np.dtype) -> np.ndarray:
    """`total` / `weight`, for integer types rounded to the next whole number."""
    if total.dtype.kind == "u":
        return (total + weight // 2) // weight
    mean = total / weight
    return mean if dtype.kind == "f" else np.floor(mean + 0.5)


def _sums(values: np.ndarray, rows: Taps, cols: Taps) -> np.ndarray:
    """Weighted sums (h, w) of `values` down the rows, then across the columns."""
    # 255 · UNIT is the largest sum of the one, 255 · UNIT² of the other: both fit.
    kinds = (np.uint16, np.uint32) if values.dtype == np.uint8 else (np.float64, np.float64)
    return _along(1, _along(0, values, rows, kinds[0]), cols, kinds[1])


def _along(axis: int, values: np.ndarray, taps: Taps, kind: type) -> np.ndarray:
    total: np.ndarray | None = None
    for index, weight in zip(taps.index.T, taps.weight.T.astype(kind), strict=True):
        weight = weight[:, None] if axis == 0 else weight
        term = np.multiply(np.take(values, index, axis=axis), weight, dtype=kind)
        total = term if total is None else np.add(total, term, out=total)
    assert total is not None
    return total


def touched(start: float, length: float, out: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one source pixel that each of `out` cells along an axis touches."""
    edges = start + np.arange(out + 1) * (length / out)
    first = np.floor(edges[:-1] + 1e-6).astype(int)
    last = np.ceil(edges[1:] - 1e-6).astype(int)
    return np.clip(first, 0, size - 1), np.clip(last, 1, size)


def cells_inside(start: int, length: int, out: int, size: int) -> tuple[slice, slice]:
    """Output cells of one axis that lie wholly inside the scene, and the source they cover."""
    scale = length / out
    first = max(0, math.ceil(-start / scale - 1e-9))
    last = min(out, math.floor((size - start) / scale + 1e-9))
    low, high = start + first * scale, start + last * scale
    if length == out:
        return slice(first, last), slice(round(low), round(high))
    return slice(first, last), slice(max(0.0, low), min(float(size), high))
