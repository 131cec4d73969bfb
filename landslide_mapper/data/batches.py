"""Batches in which landslide tiles come in pairs, as the contrast between samples wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from landslide_mapper.errors import LsmapError


class PairBatches(Sampler[list[tuple[int, int]]]):
    """Draws an epoch's batches of (epoch, tile) from seed and epoch alone.

    Tiles with landslide are shuffled into pairs, tiles without into pairs of their own, and the
    pairs into batches, so each batch holds an even number of landslide tiles. An odd tile left
    over is paired with another one drawn at random; pairs that fill no whole batch wait for the
    next epoch's shuffle. With several processes each takes every `world`-th batch.

    Args:
        positive: for each tile, whether it has landslide.
        batch_size: tiles per batch, even.
        seed: of the run.
        rank: this process.
        world: number of processes.

    Raises:
        LsmapError: fewer than two tiles with landslide, or too few tiles for one batch each.
    """

    def __init__(
        self,
        positive: Sequence[bool],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        flags = np.asarray(positive, dtype=bool)
        self.positives = np.flatnonzero(flags)
        self.negatives = np.flatnonzero(~flags)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        if len(self.positives) < 2:
            raise LsmapError(
                "tiles with landslide come in pairs, and the training split has "
                f"{len(self.positives) or 'none'}: label more landslides or prepare smaller tiles"
            )
        if len(self) == 0:
            raise LsmapError(
                f"the training split has {len(flags)} tiles, too few for a batch of {batch_size} "
                f"in each of {world} processes: give a smaller --batch-size"
            )

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        pairs = (len(self.positives) + 1) // 2 + (len(self.negatives) + 1) // 2
        return pairs // (self.batch_size // 2) // self.world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of the epoch in `self.epoch`."""
        rng = np.random.default_rng((self.seed, self.epoch))
        pairs = np.concatenate([_pairs(self.positives, rng), _pairs(self.negatives, rng)])
        rng.shuffle(pairs)
        per_batch = self.batch_size // 2
        for number in range(len(self)):
            start = (number * self.world + self.rank) * per_batch
            chosen = pairs[start : start + per_batch].reshape(-1)
            yield [(self.epoch, int(tile)) for tile in chosen]


def _pairs(tiles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle into pairs (n, 2); an odd one out is paired with another tile drawn at random."""
    shuffled = rng.permutation(tiles)
    if len(shuffled) % 2:
        partner = shuffled[rng.integers(max(len(shuffled) - 1, 1))]
        shuffled = np.append(shuffled, partner)
    return shuffled.reshape(-1, 2)
