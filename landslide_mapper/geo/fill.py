"""Pixels that look like nodata which nobody has declared, or has blurred, and so count as ground.

A collar is one value in every band, a number that files are filled with, and reaches a corner.
White is such a number too, but snow and clouds are as white: it has to run along an edge. A white
collar that counts as ground spoils the stretch of all the rest.

A nodata value is blurred by compression that is not lossless: near what was seen pixels are nearly
nodata, not nodata, and a network takes them for an outline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from landslide_mapper.geo.radiometry import Radiometry, fit, sample, sample_corners
from landslide_mapper.geo.scene import Scene, open_raster

LEAST = 0.01  # share of the pixels, below which it may be a shadow
EDGE = 4  # a white collar runs along a quarter of an edge or more, also of a picture turned by 45°
BLURRED = 0.002  # share of the pixels that are nearly nodata, from which it is told
NEARLY = 15  # grey values from nodata, as GDAL's nearblack has it
NEARBLACK = (0, 255)  # the values that it can make a mask of
REVERSIBLE = "COMPRESSION_REVERSIBILITY"  # what GDAL calls it
LOW, HUGE = -9999.0, 1e20  # numbers from here on stand for nothing in most files


class Fill(NamedTuple):
    """A value, and the share of the valid pixels that have it in every band.

    Of one that is `declared` as nodata, the share of those that nearly have it.
    """

    value: float
    share: float
    declared: bool = False


def fit_and_look(scene: Scene, rule: str) -> tuple[Radiometry, Fill | None]:
    """The stretch of a scene by `rule`, and what in its sample looks like nodata but counts.

    Raises `LsmapError` as `fit` does.
    """
    blurred = _blurred_value(scene)
    # Without a stretch nobody needs the sample, unless something is suspicious.
    if rule == "none" and blurred is None and not list(_in_corners(*sample_corners(scene))):
        return fit(scene, rule), None
    pixels = sample(scene)
    fill = undeclared_fill(*pixels)
    if fill is None and blurred is not None:
        fill = blurred_fill(*pixels, blurred)
    return fit(scene, rule, pixels), fill


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


def blurred_fill(data: np.ndarray, valid: np.ndarray, nodata: float) -> Fill | None:
    """The pixels that are nearly nodata, beside some that are; None for hardly any.

    Args:
        data, valid: as in `undeclared_fill`.
        nodata: the value that is declared.
    """
    if valid.all() or not valid.any():
        return None
    apart = np.abs(data.astype(np.float64) - nodata).max(axis=0)
    share = float((apart[valid] <= NEARLY).mean())
    return Fill(nodata, share, declared=True) if share >= BLURRED else None


def _blurred_value(scene: Scene) -> float | None:
    """The nodata value of a file whose compression changes values; None where it has no such."""
    with open_raster(scene) as raster:
        by_value = all(MaskFlags.nodata in flags for flags in raster.mask_flag_enums)
        return (
            raster.nodata if by_value and raster.nodata in NEARBLACK and is_lossy(raster) else None
        )


def is_lossy(raster: rasterio.DatasetReader) -> bool:
    """Whether the file says that its pixels are not exactly what was written."""
    said = raster.tags(ns="IMAGE_STRUCTURE")
    jpeg = raster.driver == "JPEG" or said.get("COMPRESSION", "").endswith("JPEG")
    return jpeg or said.get(REVERSIBLE) == "LOSSY"


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


def told(found: Sequence[tuple[Scene, Fill]]) -> list[str]:
    """What to say of scenes that have such pixels: a line for each kind."""
    lines = []
    for declared in (False, True):
        alike = [(scene, fill) for scene, fill in found if fill.declared == declared]
        if alike:
            scene, fill = max(alike, key=lambda pair: pair[1].share)
            more = f" (and {len(alike) - 1} more scenes like it)" if len(alike) > 1 else ""
            lines.append(f"{scene.path}{more}: {_advice(scene, fill)}")
    return lines


def _advice(scene: Scene, fill: Fill) -> str:
    mask = f"nearblack{' -white' * (fill.value > 0)} -setmask -o NEW.tif FILE"
    if fill.declared:
        return (
            f"{fill.share:.1%} of its pixels are nearly {fill.value:g}, its nodata, which the "
            "compression has blurred, and count as ground; landslides beside them may be missed: "
            f"give it a mask, {mask}"
        )
    # Of a blurred collar a value would take a part only.
    with open_raster(scene) as raster:
        lossy = is_lossy(raster)
    declared = mask if lossy else f"gdal_edit.py -a_nodata {fill.value:g} FILE"
    return (
        f"{fill.share:.0%} of its pixels are {fill.value:g} in every band, up to a corner, and "
        f"count as ground; if nothing was seen there, declare it: {declared}"
    )
