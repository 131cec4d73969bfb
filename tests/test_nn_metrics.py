"""Metrics against their definitions on plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landslide_mapper.nn.metrics import (
    BINS,
    Confusion,
    best_threshold,
    confusion_at,
    probability_histogram,
)


def test_metrics_follow_the_equations() -> None:
    counts = Confusion(tp=30, fp=20, fn=10, tn=40)
    assert counts.accuracy == pytest.approx(0.7)
    assert counts.precision == pytest.approx(0.6)
    assert counts.recall == pytest.approx(0.75)
    assert counts.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert counts.landslide_iou == pytest.approx(0.5)
    assert counts.mean_iou == pytest.approx((0.5 + 40 / 70) / 2)


def test_the_papers_table_has_a_slip() -> None:
    """Precision 0.5347 and recall 0.5981 give a landslide IoU of 0.393, not 0.3975."""
    precision, recall = 0.5347, 0.5981
    tp = 1_000_000
    counts = Confusion(tp, round(tp / precision - tp), round(tp / recall - tp), 0)
    assert counts.f1 == pytest.approx(0.5646, abs=1e-4)
    assert counts.landslide_iou == pytest.approx(0.3934, abs=1e-4)


def test_nothing_seen_gives_zeros() -> None:
    assert set(Confusion().to_dict().values()) == {0.0}


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_histogram_gives_the_confusion_of_the_pixels(threshold: float) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((2, 50, 40), dtype=np.float32)
    labels = rng.choice([0, 1, 255], size=probabilities.shape).astype(np.uint8)
    histogram = probability_histogram(torch.from_numpy(probabilities), torch.from_numpy(labels))
    found, real, seen = probabilities >= threshold, labels == 1, labels != 255
    assert confusion_at(histogram, threshold) == Confusion(
        int((found & real & seen).sum()),
        int((found & ~real & seen).sum()),
        int((~found & real & seen).sum()),
        int((~found & ~real & seen).sum()),
    )


def test_probability_one_is_counted() -> None:
    histogram = probability_histogram(torch.ones(3), torch.ones(3, dtype=torch.uint8))
    assert histogram[1, BINS - 1] == 3


def test_best_threshold_is_the_best_of_all() -> None:
    torch.manual_seed(1)
    labels = (torch.rand(5000) < 0.2).to(torch.uint8)
    probabilities = (0.3 * labels + 0.5 * torch.rand(5000)).clamp(0, 1)
    histogram = probability_histogram(probabilities, labels)
    ious = [confusion_at(histogram, edge / BINS).landslide_iou for edge in range(1, BINS)]
    assert confusion_at(histogram, best_threshold(histogram)).landslide_iou == max(ious)


def test_best_threshold_stays_near_a_half_when_all_are_equal() -> None:
    histogram = probability_histogram(
        torch.tensor([0.0, 0.999]), torch.tensor([0, 1], dtype=torch.uint8)
    )
    assert best_threshold(histogram) == 0.5
