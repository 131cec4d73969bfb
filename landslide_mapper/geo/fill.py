"""Pixels that look like nodata which nobody has declared, and so count as ground.

A collar is one value in every band, a number that files are filled with, and reaches a corner.
White is such a number too, but snow and clouds are as white: it has to run along an edge. A white
collar that counts as ground spoils the stretch of all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from landslide_mapper.geo.radiometry import Radiometry, fit, sample, sample_corners
from landslide_mapper.geo.scene import Scene

LEAST = 0.01  # share of the pixels, below which it may be a shadow
EDGE = 4  # a white collar runs along a quarter of an edge or more, also of a picture turned by 45°
LOW, HUGE = -9999.0, 1e20  # numbers from here on stand for nothing in most files


class Fill(NamedTuple):
    """A value, and the share of the valid pixels that have it in every band."""

    value: float
    share: float


def fit_and_look(scene: Scene, rule: str) -> tuple[Radiometry, Fill | None]:
    """The stretch of a scene by `rule`, and what in its sample looks like undeclared nodata.

    Raises `LsmapError` as `fit` does.
    """
    # Without a stretch nobody needs the sample, unless a corner is suspicious.
    if rule == "none" and not list(_in_corners(*sample_corners(scene))):
        return fit(scene, rule), None
    pixels = sample(scene)
    return fit(scene, rule, pixels), undeclared_fill(*pixels)


def undeclared_fill(data: np.ndarray, valid: np.ndarray) -> Fill | None:
    """What looks like nodata among valid pixels; None for nothing.

    Args:
        data: (B, h, w) in the values of the file, read without averaging.
        valid: (h, w) bool.
    """
    for value in _in_corners(data, valid):
        share = float((data == value).all(axis=0)[valid].mean())
        if LEAST <= share < 1:
            return Fill(value, share)
    return None


def _in_corners(data: np.ndarray, valid: np.ndarray) -> Iterator[float]:
    """Numbers that files are filled with, of valid corners that have one in every band."""
    for down, across in product((1, -1), repeat=2):
        turned = data[:, ::down, ::across]  # the corner is its first pixel
        value = float(turned[0, 0, 0])
        alike = (turned == value).all(axis=0) & valid[::down, ::across]
        if alike[0, 0] and (_fills(value, data.dtype) or _is_white_edge(value, data.dtype, alike)):
            yield value


def _fills(value: float, dtype: np.dtype) -> bool:
    """Whether a number is one that files are filled with, and that is rarely ground."""
    lowest = np.issubdtype(dtype, np.integer) and value == np.iinfo(dtype).min
    return value == 0 or value <= LOW or abs(value) >= HUGE or bool(lowest)


def _is_white_edge(value: float, dtype: np.dtype, alike: np.ndarray) -> bool:
    """Whether a number is the largest of its kind and runs along an edge from the first pixel."""
    if not np.issubdtype(dtype, np.integer) or value != np.iinfo(dtype).max:
        return False
    return any(edge[: -(-len(edge) // EDGE)].all() for edge in (alike[0], alike[:, 0]))


def told(found: Sequence[tuple[Scene, Fill]]) -> str:
    """What to say of scenes (at least one) that have such pixels."""
    scene, (value, share) = max(found, key=lambda pair: pair[1].share)
    more = f" (and {len(found) - 1} more scenes like it)" if len(found) > 1 else ""
    return (
        f"{scene.path}{more}: {share:.0%} of its pixels are {value:g} in every band, up to a "
        "corner, and count as ground; if nothing was seen there, declare it: "
        f"gdal_edit.py -a_nodata {value:g} FILE"
    )
