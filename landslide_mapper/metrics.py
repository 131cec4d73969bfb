"""Metrics of pixels: eq. 9–14 of the paper on arrays of counts, curves, and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from landslide_mapper.mask_values import IGNORE, LANDSLIDE

# Where the bins of probabilities begin, after the first: every 1/1024 and, below and above these,
# where networks that are sure of themselves put most pixels, four in each halving of the distance
# to 0 and 1. All are exact in float32, as probabilities are, so the counts behind every edge are
# those of "landslide where p >= edge", not nearly so.
_NEAR_END = np.outer(2.0 ** -np.arange(10, 21), np.arange(4, 8) / 8).ravel()
EDGES = np.sort(np.concatenate([_NEAR_END, np.arange(1, 1024) / 1024, 1 - _NEAR_END]))
EDGES = EDGES.astype(np.float32)
BINS = len(EDGES) + 1
CALIBRATION_BINS = 15
METRICS = ("accuracy", "precision", "recall", "f1", "landslide_iou", "mean_iou")


def confusion(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts tp, fp, fn, tn (int64) of a bool prediction; labels 0, 1 or 255 = not counted."""
    seen, landslide = labels != IGNORE, labels == LANDSLIDE
    tp = np.count_nonzero(predicted & landslide)
    fp = np.count_nonzero(predicted & seen) - tp
    fn = np.count_nonzero(landslide) - tp
    return np.array([tp, fp, fn, np.count_nonzero(seen) - tp - fp - fn], dtype=np.int64)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> np.ndarray:
    """`part` / `whole` as float64, 0 where `whole` is 0."""
    over, under = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(over, under, out=np.zeros(over.shape), where=under > 0)


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The six metrics of eq. 9–14 for counts (..., 4) of tp, fp, fn, tn; 0 for 0/0.

    F1 (eq. 14) is written with counts, so that it holds where precision and recall are 0.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts), -1, 0)
    iou = ratio(tp, tp + fp + fn)
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "landslide_iou": iou,
        "mean_iou": (iou + ratio(tn, tn + fp + fn)) / 2,
    }


def histogram(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Valid pixels by label and bin of probability, int64 (2, BINS): background, landslide."""
    seen = labels != IGNORE
    bins = np.searchsorted(EDGES, probability[seen], side="right")
    index = bins + BINS * (labels[seen] == LANDSLIDE)
    return np.bincount(index, minlength=2 * BINS).reshape(2, BINS)


@dataclass(frozen=True)
class Curve:
    """Counts of "landslide where p >= threshold" for the thresholds in `EDGES`."""

    thresholds: np.ndarray  # (BINS - 1,), ascending
    counts: np.ndarray  # (BINS - 1, 4) of tp, fp, fn, tn

    @classmethod
    def of(cls, counted: np.ndarray) -> Curve:
        """From a `histogram`. Threshold 0 is left out: it calls everything a landslide."""
        above = counted[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        total = counted.sum(axis=1, keepdims=True)
        (fp, tp), (tn, fn) = above, total - above
        return cls(EDGES.astype(np.float64), np.stack([tp, fp, fn, tn], axis=1))

    def at(self, threshold: float) -> np.ndarray:
        """Counts (4,) at a threshold, which is rounded to the nearest one of the curve."""
        nearest: np.ndarray = self.counts[np.abs(self.thresholds - threshold).argmin()]
        return nearest

    def best_threshold(self) -> float:
        """The threshold with the highest landslide IoU (the one nearest 0.5 among equals)."""
        iou = rates(self.counts)["landslide_iou"]
        best = np.flatnonzero(iou == iou.max())
        return float(self.thresholds[best[np.abs(self.thresholds[best] - 0.5).argmin()]])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the rates rounded to six digits."""
        found = rates(self.counts)
        columns = {name: np.round(found[name], 6).tolist() for name in METRICS[1:5]}
        return {"threshold": self.thresholds.tolist(), **columns}


def average_precision(counted: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve, Σ (R_k − R_k+1) · P_k, for histograms (..., 2, BINS).

    Threshold 0 is one of them here: what is found nowhere else is found there. The other thresholds
    are `EDGES`, so where most probabilities lie in one bin it is a little low.
    """
    above = np.asarray(counted)[..., ::-1].cumsum(axis=-1)[..., ::-1]
    background, landslide = above[..., 0, :], above[..., 1, :]
    recall = ratio(landslide, landslide[..., :1])
    steps = recall - np.concatenate([recall[..., 1:], np.zeros_like(recall[..., :1])], axis=-1)
    area: np.ndarray = (steps * ratio(landslide, landslide + background)).sum(axis=-1)
    return area


def reliability(
    probability: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> np.ndarray:
    """Whether a pixel with landslide probability p is a landslide in p of the cases.

    Returns:
        (3, bins) float64, by bins of equal width in p: valid pixels, those that are labelled
        landslide, and the sum of the pixels' probabilities.
    """
    seen = labels != IGNORE
    p = probability[seen].astype(np.float64)
    index = (p * bins).astype(np.int64).clip(0, bins - 1)
    weights = (None, (labels[seen] == LANDSLIDE).astype(np.float64), p)
    return np.stack([np.bincount(index, weight, minlength=bins) for weight in weights])


def calibration_error(counted: np.ndarray) -> np.ndarray:
    """ECE for `reliability` counts (..., 3, bins).

    The mean over pixels of |share of landslides − mean probability| of their bin: Guo et al. 2017,
    eq. 3, on the probability of the class landslide.
    """
    pixels, landslides, total = np.moveaxis(np.asarray(counted), -2, 0)
    return ratio(np.abs(landslides - total).sum(axis=-1), pixels.sum(axis=-1))


def calibration_dict(counted: np.ndarray) -> dict[str, Any]:
    """`reliability` counts (3, bins) as JSON values; in empty bins mean and share are None."""
    pixels, landslides, total = counted
    shown = {
        name: [None if none else float(v) for v, none in zip(values, pixels == 0, strict=True)]
        for name, values in (
            ("mean_probability", ratio(total, pixels)),
            ("landslide_share", ratio(landslides, pixels)),
        )
    }
    head = {"ece": float(calibration_error(counted)), "bins": len(pixels)}
    return head | {"pixels": pixels.astype(int).tolist()} | shown
