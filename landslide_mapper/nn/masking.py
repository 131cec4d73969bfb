"""Mask module of MRIFE (section III-C-1): which blocks of the image the student does not see."""

from __future__ import annotations

import torch
from torch import Tensor

from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.nn.encoder import STRIDE

UNUSABLE = -1
BACKGROUND = 0
EDGE = 1
INTERIOR = 2


def edge_limits(block_size: int) -> tuple[int, int]:
    """Fewest and most landslide pixels of an edge block.

    10 % and 90 % of the block's pixels (section V-C-2), which is 7 and 57 for 8×8 pixels
    (section III-C-1).
    """
    fewest = -(-block_size * block_size // 10)
    return fewest, block_size * block_size - fewest


def classify_blocks(labels: Tensor, block_size: int) -> Tensor:
    """Sort blocks by their number of landslide pixels.

    Args:
        labels: (N, H, W) integer, 0 background, 1 landslide, 255 ignored; H and W are multiples
            of `block_size`.
        block_size: side of a block in pixels.

    Returns:
        (N, H / block_size, W / block_size) int64: `BACKGROUND`, `EDGE`, `INTERIOR`, or
        `UNUSABLE` where the block touches an ignored pixel.
    """
    count, height, width = labels.shape
    shape = (count, height // block_size, block_size, width // block_size, block_size)
    blocks = labels.reshape(shape)
    landslide = (blocks == LANDSLIDE).sum(dim=(2, 4))
    ignored = (blocks == IGNORE).any(dim=4).any(dim=2)
    low, high = edge_limits(block_size)
    classes = (landslide >= low).long() + (landslide > high).long()
    return classes.masked_fill(ignored, UNUSABLE)


def draw_blocks(
    classes: Tensor,
    ratio: float,
    strategy: str = "edge",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the blocks to be masked, as many of landslide as of background in each image.

    Args:
        classes: (N, h, w) from `classify_blocks`.
        ratio: share of the landslide blocks that is drawn (at least one where there is one).
        strategy: blocks that stand for landslide: ``edge``, ``interior``, or ``all`` (both).
        generator: random numbers, on the device of `classes`.

    Returns:
        Two boolean (N, h, w): drawn landslide blocks (class 1 of the paper) and drawn background
        blocks (class 0). Both are empty in an image without landslide blocks, and where there is
        too little background both shrink to it.
    """
    if strategy == "edge":
        landslide = classes == EDGE
    elif strategy == "interior":
        landslide = classes == INTERIOR
    else:
        landslide = (classes == EDGE) | (classes == INTERIOR)
    background = classes == BACKGROUND
    available = landslide.flatten(1).sum(1)
    wanted = (available * ratio).round().clamp(min=1).minimum(available)
    wanted = wanted.minimum(background.flatten(1).sum(1)) * (ratio > 0)
    return (
        _draw(landslide, wanted, generator),
        _draw(background, wanted, generator),
    )


def most_drawn(blocks: int, ratio: float, block_size: int) -> int:
    """Most feature points of one class that `draw_blocks` can draw in an image of so many blocks.

    With L landslide blocks it draws one, or at most ratio·L + ½ of them, and no more than there
    are of background, which are at most blocks − L; both are largest where they meet. Each block
    has (block_size / STRIDE)² points (`to_feature_points`).
    """
    return (int((ratio * blocks + 0.5) / (1 + ratio)) + 1) * (block_size // STRIDE) ** 2


def _draw(candidates: Tensor, wanted: Tensor, generator: torch.Generator | None) -> Tensor:
    """Keep `wanted[n]` random ones of the true entries of `candidates[n]`, without a host sync."""
    flat = candidates.flatten(1)
    scores = torch.rand(flat.shape, generator=generator, device=flat.device)
    scores = scores.masked_fill(~flat, 2.0)
    ranks = scores.argsort(dim=1).argsort(dim=1)
    return (flat & (ranks < wanted[:, None])).reshape(candidates.shape)


def mask_images(images: Tensor, drawn: Tensor, block_size: int) -> Tensor:
    """Fill the drawn blocks of normalised images with 0, the mean colour.

    Args:
        images: (N, B, H, W) normalised.
        drawn: boolean (N, H / block_size, W / block_size).
        block_size: side of a block in pixels.
    """
    pixels = drawn.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2)
    return images.masked_fill(pixels[:, None], 0.0)


def to_feature_points(drawn: Tensor, block_size: int) -> Tensor:
    """Blocks (N, h, w) on the grid of feature points (N, H / STRIDE, W / STRIDE)."""
    repeat = block_size // STRIDE
    return drawn.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)
