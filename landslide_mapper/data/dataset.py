"""Tiles on disk as a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import Tensor
from torch.utils.data import Dataset

from landslide_mapper.data.augment import Augmentation, QuartersOfTiles
from landslide_mapper.data.manifest import Tile
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.nn.mirror import shown


class TileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and masks of tiles.

    The index is (epoch, tile), from which `augmentation` follows, or (quarter, tile) with
    `QuartersOfTiles`; None leaves tiles as they are.
    What was not seen is 0 in every band, or with ``unseen="mirror"`` mirrored ground.
    """

    def __init__(
        self,
        tiles: Sequence[Tile],
        augmentation: Augmentation | QuartersOfTiles | None = None,
        unseen: str = "mean",
    ) -> None:
        self.tiles = tiles
        self.augmentation = augmentation
        self.unseen = unseen

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __getitem__(self, index: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image uint8 (B, H, W) and mask uint8 (H, W) of one tile.

        Raises:
            LsmapFailure: a tile cannot be read.
        """
        number, position = index
        tile = self.tiles[position]
        try:
            image, mask = _read(tile.image), _read(tile.mask)[0]
        except rasterio.errors.RasterioIOError as error:
            raise LsmapFailure(f"tile {tile.tile_id} cannot be read: {error}") from error
        if image.shape[1:] != mask.shape:
            raise LsmapFailure(
                f"tile {tile.tile_id}: its image has {image.shape[2]} x {image.shape[1]} pixels, "
                f"its mask {mask.shape[1]} x {mask.shape[0]}; run lsmap prepare again"
            )
        if self.augmentation is not None:
            image, mask = self.augmentation.apply(image, mask, number, position)
        image = shown(image, self.unseen)
        return torch.from_numpy(image.copy()), torch.from_numpy(mask.copy())


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return np.asarray(source.read())
