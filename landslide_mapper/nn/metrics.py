"""Pixel metrics of the paper, eq. 9–14, accumulated over all valid pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landslide_mapper.nn.masking import IGNORE

BINS = 256


@dataclass(frozen=True)
class Confusion:
    """Counts of pixels; `+` accumulates them."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        """Counts of both."""
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def accuracy(self) -> float:
        """PA, eq. 9."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def precision(self) -> float:
        """Eq. 10."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Eq. 11."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def landslide_iou(self) -> float:
        """Eq. 12."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Eq. 13."""
        return (self.landslide_iou + _ratio(self.tn, self.tn + self.fn + self.fp)) / 2

    @property
    def f1(self) -> float:
        """Eq. 14, written with counts so that it holds where precision and recall are 0."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def to_dict(self) -> dict[str, float]:
        """All six metrics under their short names."""
        return {
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "landslide_iou": self.landslide_iou,
            "mean_iou": self.mean_iou,
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def probability_histogram(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Count pixels by label and probability, enough for the metrics at any of the bins' edges.

    Args:
        probabilities: any shape, 0..1.
        labels: the same shape: 0, 1 or 255 = ignored.

    Returns:
        (2, BINS) int64: background and landslide pixels with floor(p · BINS) = bin.
    """
    seen = labels != IGNORE
    bins = (probabilities[seen].float() * BINS).long().clamp(0, BINS - 1)
    index = bins + BINS * (labels[seen] == 1).long()
    return torch.bincount(index, minlength=2 * BINS).reshape(2, BINS)


def confusion_at(histogram: Tensor, threshold: float) -> Confusion:
    """Confusion of "landslide where p ≥ threshold"; the threshold is rounded to a bin's edge."""
    edge = round(threshold * BINS)
    background, landslide = histogram[0], histogram[1]
    return Confusion(
        tp=int(landslide[edge:].sum()),
        fp=int(background[edge:].sum()),
        fn=int(landslide[:edge].sum()),
        tn=int(background[:edge].sum()),
    )


def best_threshold(histogram: Tensor) -> float:
    """The threshold with the highest landslide IoU (the one nearest 0.5 among equals)."""
    above = histogram.flip(1).cumsum(1).flip(1)
    total = histogram[1].sum()
    iou = above[1].double() / (total + above[0]).clamp(min=1)
    edges = torch.arange(BINS, dtype=torch.float64) / BINS
    iou, edges = iou[1:], edges[1:]  # threshold 0 would call everything a landslide
    ties = (edges - 0.5).abs().masked_fill(iou < iou.max(), float("inf"))
    return float(edges[ties.argmin()])
