"""Tiles on disk as a torch data set, with flips and turns that depend on nothing but the seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor
from torch.utils.data import Dataset

from landslide_mapper.data.manifest import Tile
from landslide_mapper.errors import LsmapFailure


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks of tiles.

    The index is (epoch, tile): a tile's augmentation follows from seed, epoch and tile alone, so
    it is the same whatever the number of workers, and after a resumed run.
    """

    def __init__(self, tiles: Sequence[Tile], seed: int = 0, augment: bool = False) -> None:
        self.tiles = tiles
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image uint8 (B, H, W) and mask uint8 (H, W) of one tile.

        Raises:
            LsmapFailure: a tile cannot be read.
        """
        epoch, position = index
        tile = self.tiles[position]
        try:
            image, mask = _read(tile.image), _read(tile.mask)[0]
        except rasterio.errors.RasterioIOError as error:
            raise LsmapFailure(f"tile {tile.tile_id} cannot be read: {error}") from error
        if self.augment:
            symmetry = int(np.random.default_rng((self.seed, epoch, position)).integers(8))
            image, mask = apply_symmetry(image, symmetry), apply_symmetry(mask, symmetry)
        return torch.from_numpy(image.copy()), torch.from_numpy(mask.copy())


def _read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():  # tiles of plain images have no place on earth, and need none
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as source:
            return np.asarray(source.read())


def apply_symmetry(array: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the 8 symmetries of the square on the last two axes: quarter turns, then a flip.

    They move pixels without resampling them, so a label stays on its pixel.
    """
    turned = np.rot90(array, symmetry % 4, axes=(-2, -1))
    return turned[..., ::-1] if symmetry >= 4 else turned
