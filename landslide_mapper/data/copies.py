"""Images that are there several times: data sets ship copies, also turned and mirrored ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import product

import numpy as np


def fingerprint(strips: Iterable[np.ndarray]) -> str:
    """The same for an image and its seven turned and mirrored copies, and for no other photograph.

    It is made of the sums along rows and columns, which such a copy has too, in another order.

    Args:
        strips: the image from top to bottom, (bands, rows, columns) of any kind of numbers.
    """
    rows, columns = [], np.zeros((1, 1), np.uint64)
    for strip in strips:
        # As whole numbers, so that a sum does not depend on the order (nor on NaN).
        bits = np.ascontiguousarray(strip).view(f"u{strip.itemsize}")
        rows.append(bits.sum(axis=2, dtype=np.uint64))
        columns = columns + bits.sum(axis=1, dtype=np.uint64)
    sums = [np.concatenate(rows, axis=1), columns]
    views = [
        repr(one.shape).encode() + one[:, ::there].tobytes() + other[:, ::back].tobytes()
        for (one, other), there, back in product((sums, sums[::-1]), (1, -1), (1, -1))
    ]
    return hashlib.sha256(min(views)).hexdigest()
