"""Masks as they lie on disk, whatever kind of picture they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.fill import is_lossy

SOFT = "masks with values between 0 and 1: 0.5 and more is taken as landslide"
PALETTE = "masks whose palette does not begin with black: black is taken as background"
COLOURS = "masks in several colours: all but black is taken as landslide"
BLACK = (0, 0, 0)
TRACES, MANY = 0.002, 64  # a share of the pixels, and how many values a photograph has more of
FEW = 0.01  # share of the coloured pixels that may be traces of compression


@dataclass(frozen=True)
class Mask:
    """A mask file's values uint8 (H, W), and where it says nothing, bool (H, W).

    `said` is what a person should know of how the file was read, "" for nothing; `lossy` whether
    its compression has changed the values.
    """

    values: np.ndarray
    unknown: np.ndarray
    said: str = ""
    lossy: bool = False


def mask_of(raster: rasterio.DatasetReader) -> Mask:
    """Several bands (a picture of a mask) give their maximum.

    NaN, negative values and a declared nodata say nothing; but a nodata of 0 is background, as
    masks often declare theirs. The entries of a palette are numbers like any others, unless the
    first is a colour and black comes later.

    Raises `LsmapError` for a photograph.
    """
    palette = _odd_palette(raster)
    if palette is not None:
        return _by_colour(raster, palette)
    colours = zip(raster.indexes, raster.colorinterp, strict=True)
    bands = raster.read([index for index, colour in colours if colour.name != "alpha"][:3])
    unknown = np.isnan(bands) | (bands < 0)
    if raster.nodata:
        unknown |= bands == raster.nodata
    values = bands.max(axis=0, where=~unknown, initial=0)
    between = (values > 0) & (values < 1)
    # Shares and probabilities: a faint one must not count as landslide for not being 0.
    values = np.where(between, values >= 0.5, np.clip(values, 0, 255)).astype(np.uint8)
    if _is_photograph(values):
        raise LsmapError(
            f"{raster.name}: this looks like a photograph, not like a mask; the order is --pairs "
            "IMAGES MASKS"
        )
    said = SOFT if between.any() else COLOURS if _several_colours(bands) else ""
    return Mask(values, unknown.all(axis=0), said, is_lossy(raster))


def _is_photograph(values: np.ndarray) -> bool:
    """Whether many values are frequent; masks have few, and traces of compression or soft edges."""
    shares = np.bincount(values.ravel(), minlength=256) / values.size
    return bool((shares > TRACES).sum() >= MANY)


def _several_colours(bands: np.ndarray) -> bool:
    """Whether there are colours beside black that are no shades of each other: classes, likely."""
    if len(bands) == 1 or bands.dtype != np.uint8:
        return False
    strongest = bands.max(axis=0)
    bright = (strongest > 0) & (strongest >= strongest.max() / 2)
    lit = bands[:, bright] > strongest[bright] / 2
    kinds = np.bincount((2 ** np.arange(len(bands))) @ lit)
    return int((kinds > FEW * kinds.sum()).sum()) > 1


def _odd_palette(raster: rasterio.DatasetReader) -> dict[int, tuple[int, ...]] | None:
    """The colours of a palette whose entry 0 is not the background although black is used."""
    if [colour.name for colour in raster.colorinterp] != ["palette"]:
        return None
    palette: dict[int, tuple[int, ...]] = raster.colormap(1)
    *first, opaque = palette[0]
    if tuple(first) == BLACK or not opaque:
        return None
    black = [entry for entry, colour in palette.items() if colour[:3] == BLACK]
    return palette if np.isin(raster.read(1), black).any() else None


def _by_colour(raster: rasterio.DatasetReader, palette: dict[int, tuple[int, ...]]) -> Mask:
    """0 where the colour is black, transparent black as well; the other colours are numbered."""
    entries, place = np.unique(raster.read(1), return_inverse=True)
    used = [palette.get(int(entry), ())[:3] for entry in entries]
    others = sorted(set(used) - {BLACK})
    # Not 255, which may come to mean "ignore".
    numbers = {BLACK: 0} | {colour: min(n, 254) for n, colour in enumerate(others, start=1)}
    silent = [bool(entry) and entry == raster.nodata for entry in entries]
    shape = raster.shape
    values = np.array([numbers[colour] for colour in used], np.uint8)[place].reshape(shape)
    unknown = np.array(silent)[place].reshape(shape) & (values > 0)
    return Mask(values, unknown, PALETTE)
