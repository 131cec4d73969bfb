"""Probabilities that mean what they say: logits scaled and shifted to what validation shows.

Training shows a network as many tiles with landslide as without, and so it says "landslide" too
often. The order of pixels, and with it every map at its best threshold, stays the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.metrics import BINS, EDGES


class Calibration(NamedTuple):
    """logit → scale · logit + shift (J. Platt, 1999, Probabilistic outputs for SVMs)."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: float) -> float:
        """What becomes of a probability, which is above 0 and below 1."""
        logit = self.scale * math.log(probability / (1 - probability)) + self.shift
        return 1 / (1 + math.exp(-max(-FURTHEST, min(logit, FURTHEST))))


UNCHANGED = Calibration()
# A network whose answers hardly differ gets a large scale, and with that a threshold off them lies
# thousands of logits away. A float32 does not tell probabilities apart out there.
FURTHEST = 15.0
CENTRES = np.convolve([0.0, *EDGES.astype(np.float64), 1.0], [0.5, 0.5], "valid")  # of the bins


def probability_histogram(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Count pixels by label and probability, on their device: `landslide_mapper.metrics.histogram`.

    Args:
        probabilities: any shape, 0..1.
        labels: the same shape: 0, 1 or 255 = ignored.

    Returns:
        (2, BINS) int64: background and landslide pixels in each bin.
    """
    seen = labels != IGNORE
    edges = torch.from_numpy(EDGES).to(probabilities.device)
    bins = torch.bucketize(probabilities[seen].float(), edges, right=True)
    index = bins + BINS * (labels[seen] == LANDSLIDE).long()
    return torch.bincount(index, minlength=2 * BINS).reshape(2, BINS)


def fit_calibration(histogram: Tensor) -> Calibration:
    """The most likely calibration, given pixels by label and probability.

    Args:
        histogram: (2, BINS), see `probability_histogram`.

    Returns:
        No change where low probabilities go with landslide: that is no matter of calibration.
    """
    background, landslide = histogram.double().cpu()
    logits = torch.logit(torch.from_numpy(CENTRES))
    # Platt's targets: never quite 0 or 1, so that the fit is finite where classes do not overlap.
    low, high = 1 / (background.sum() + 2), 1 - 1 / (landslide.sum() + 2)
    counts = background + landslide
    target = (low * background + high * landslide) / counts.clamp(min=1)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [line], max_iter=200, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = F.binary_cross_entropy_with_logits(
            line[0] * logits + line[1], target, counts / counts.sum(), reduction="sum"
        )
        entropy.backward()
        return entropy

    optimizer.step(loss)
    scale, shift = line.tolist()
    usable = math.isfinite(scale) and math.isfinite(shift) and scale > 0
    return Calibration(scale, shift) if usable else UNCHANGED
