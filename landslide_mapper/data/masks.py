"""Masks as they lie on disk, whatever kind of picture they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio

SOFT = "masks with values between 0 and 1: 0.5 and more is taken as landslide"


@dataclass(frozen=True)
class Mask:
    """A mask file's values uint8 (H, W), and where it says nothing, bool (H, W).

    `said` is what a person should know of how the file was read, "" for nothing.
    """

    values: np.ndarray
    unknown: np.ndarray
    said: str = ""


def mask_of(raster: rasterio.DatasetReader) -> Mask:
    """Several bands (a picture of a mask) give their maximum.

    NaN, negative values and a declared nodata say nothing; but a nodata of 0 is background, as
    masks often declare theirs.
    """
    colours = zip(raster.indexes, raster.colorinterp, strict=True)
    bands = raster.read([index for index, colour in colours if colour.name != "alpha"][:3])
    unknown = np.isnan(bands) | (bands < 0)
    if raster.nodata:
        unknown |= bands == raster.nodata
    values = bands.max(axis=0, where=~unknown, initial=0)
    between = (values > 0) & (values < 1)
    # Shares and probabilities: a faint one must not count as landslide for not being 0.
    values = np.where(between, values >= 0.5, np.clip(values, 0, 255)).astype(np.uint8)
    return Mask(values, unknown.all(axis=0), SOFT if between.any() else "")
