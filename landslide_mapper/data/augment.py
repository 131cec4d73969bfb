"""Tiles moved, turned, zoomed and recoloured at random, which follows from the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from landslide_mapper.geo.views import quarter_in_the_middle, quarter_of, shifted
from landslide_mapper.mask_values import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """What happens to a tile follows from seed, epoch and tile alone.

    So it is the same whatever the number of workers, and after a resumed run.

    Attributes:
        seed: of the run.
        zoom: largest factor by which tiles are enlarged or made smaller; 1 for none.
        jitter: largest exponent that darkens or brightens tiles; 1 for none.
        move: whether what was seen moves within the unseen frame around it.
        shift: largest step to each side, as a share of the tile's side; 0 for none.
    """

    seed: int
    zoom: float = 1.0
    jitter: float = 1.0
    move: bool = False
    shift: float = 0.0

    def apply(
        self, image: np.ndarray, mask: np.ndarray, epoch: int, position: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """One of the 8 symmetries of the square, a place, a zoom and other colours, equally likely.

        Args:
            image: uint8 (B, H, W), 0 in every band where nothing was seen.
            mask: uint8 (H, W).
            epoch: counted from 0.
            position: number of the tile.
        """
        rng = np.random.default_rng((self.seed, epoch, position))
        symmetry = int(rng.integers(8))
        image, mask = apply_symmetry(image, symmetry), apply_symmetry(mask, symmetry)
        if self.move:
            image, mask = move(image, mask, tuple(rng.uniform(0, 1, 2)))
        if self.shift:
            steps = np.rint(rng.uniform(-self.shift, self.shift, 2) * image.shape[1]).astype(int)
            image, mask = shift(image, mask, int(steps[0]), int(steps[1]))
        if self.zoom > 1:
            factor = self.zoom ** rng.uniform(-1, 1)
            image, mask = zoom(image, mask, factor, tuple(rng.uniform(0, 1, 2)))
        if self.jitter > 1:
            light = rng.uniform(-1, 1)
            tint = rng.uniform(-1, 1, len(image))
            image = recolour(image, self.jitter ** ((light + tint) / 2))
        return image, mask


class QuartersOfTiles:
    """Not at random: a quarter of a tile in the middle, and only its labels.

    All four together are a tile's pixels, each once, shown as the windows of a scene may show them
    (`landslide_mapper.geo.views.Quarters`).
    """

    def apply(
        self, image: np.ndarray, mask: np.ndarray, quarter: int, position: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """One of the quarters 0 to 3, by rows.

        Args:
            image: uint8 (B, H, W).
            mask: uint8 (H, W).
            quarter: which one.
            position: number of the tile, which changes nothing.
        """
        labels, there = np.full_like(mask, IGNORE), quarter_of(mask.shape, quarter)
        labels[there] = mask[there]
        return (
            quarter_in_the_middle(image, quarter),
            quarter_in_the_middle(labels, quarter, IGNORE),
        )


def apply_symmetry(array: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the 8 symmetries of the square on the last two axes: quarter turns, then a flip.

    They move pixels without resampling them, so a label stays on its pixel.
    """
    turned = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return turned[..., ::-1] if symmetry >= 4 else turned


def move(
    image: np.ndarray, mask: np.ndarray, place: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Put what was seen elsewhere within the unseen frame around it; nothing of it is lost.

    Images smaller than a tile lie in its middle, and most were cut around a landslide: a network
    would learn that landslides lie in the middle.

    Args:
        image: uint8 (B, H, W), 0 in every band where nothing was seen.
        mask: uint8 (H, W).
        place: from 0 (top, left) to 1.
    """
    seen: np.ndarray = np.any(image, axis=0)
    if not seen.any():
        return image, mask
    steps = []
    for side, filled, at in zip(seen.shape, seen.nonzero(), place, strict=True):
        spare = side - (filled.max() + 1 - filled.min())
        steps.append(round(at * spare) - int(filled.min()))
    return np.roll(image, steps, axis=(-2, -1)), np.roll(mask, steps, axis=(-2, -1))


def shift(
    image: np.ndarray, mask: np.ndarray, down: int, across: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move a tile by whole pixels; what leaves it is lost, what comes in was not seen.

    Where all images show their landslide in the middle a network looks nowhere else, and windows
    of a scene show landslides anywhere.

    Args:
        image: uint8 (B, H, W), 0 in every band where nothing was seen.
        mask: uint8 (H, W).
        down, across: pixels, less than H and W.
    """
    return shifted(image, down, across), shifted(mask, down, across, IGNORE)


def zoom(
    image: np.ndarray, mask: np.ndarray, factor: float, place: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge a tile and cut a part out of it, or make it smaller in a frame of unseen pixels.

    Colours are interpolated (the nearest one where a neighbour was not seen), labels never.

    Args:
        image: uint8 (B, H, W), 0 in every band where nothing was seen.
        mask: uint8 (H, W).
        factor: size of a thing afterwards over its size before.
        place: where the part, or the smaller tile in its frame, lies: from 0 (top, left) to 1.
    """
    rows, cols = (
        (np.arange(side) + 0.5) / factor + at * (side - side / factor)
        for side, at in zip(mask.shape, place, strict=True)
    )
    inside = _within(rows, mask.shape[0])[:, None] & _within(cols, mask.shape[1])
    row, col = (
        np.clip(centres.astype(int), 0, side - 1)
        for centres, side in ((rows, mask.shape[0]), (cols, mask.shape[1]))
    )
    nearest = np.ix_(row, col)
    labels = np.where(inside, mask[nearest], IGNORE).astype(np.uint8)
    blended, whole = _bilinear(image, rows, cols)
    colours = np.where(whole, blended, image[:, row[:, None], col])
    return np.where(inside, colours, 0).astype(np.uint8), labels


def recolour(image: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Raise every band to a power of its own: darker above 1, brighter below, black and white stay.

    Light, haze and season change so from scene to scene, also after the stretch.

    Args:
        image: uint8 (B, H, W), 0 in every band where nothing was seen.
        exponents: (B,).
    """
    levels = np.arange(256) / 255
    curves = np.rint(255 * levels ** np.asarray(exponents)[:, None])
    curves[:, 1:] = np.maximum(curves[:, 1:], 1)  # what was seen stays apart from what was not
    return np.stack(
        [curve[band] for curve, band in zip(curves.astype(np.uint8), image, strict=True)]
    )


def _within(centres: np.ndarray, side: int) -> np.ndarray:
    return (centres >= 0) & (centres < side)


def _bilinear(
    image: np.ndarray, rows: np.ndarray, cols: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours between pixel centres, and where all pixels they come from were seen."""
    height, width = image.shape[1:]
    # grid_sample has its axes from -1 to 1, corner to corner.
    y, x = np.meshgrid(rows / height * 2 - 1, cols / width * 2 - 1, indexing="ij")
    grid = torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))[None]
    layers = np.concatenate([image, 255 * (image != 0).any(axis=0, keepdims=True)])
    sampled = F.grid_sample(
        torch.from_numpy(layers.astype(np.float32))[None],
        grid,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0].numpy()
    return np.clip(np.rint(sampled[:-1]), 1, 255), sampled[-1] > 254.5
