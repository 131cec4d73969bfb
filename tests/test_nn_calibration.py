"""Calibration: probabilities become the shares of landslide that were seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.checkpoint import ModelInfo, load_model, save_model
from landslide_mapper.config import ARCHITECTURES, ModelConfig
from landslide_mapper.metrics import BINS, Curve, histogram, rates
from landslide_mapper.nn.build import build
from landslide_mapper.nn.calibration import (
    CENTRES,
    UNCHANGED,
    Calibration,
    fit_calibration,
    probability_histogram,
)
from landslide_mapper.training.validation import validation_figures

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))


def pixels(scale: float, shift: float, seed: int = 0) -> torch.Tensor:
    """Histogram of logits that are right after this calibration."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, 400_000)
    labels = rng.random(len(logits)) < 1 / (1 + np.exp(-scale * logits - shift))
    probabilities = torch.from_numpy(1 / (1 + np.exp(-logits)))
    return probability_histogram(probabilities, torch.from_numpy(labels.astype(np.uint8)))


def test_pixels_are_counted_as_evaluate_counts_them() -> None:
    rng = np.random.default_rng(0)
    probabilities = np.append(rng.random(4000, dtype=np.float32), np.float32([0, 1, 0.5]))
    labels = rng.choice([0, 1, 255], size=probabilities.shape).astype(np.uint8)
    found = probability_histogram(torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert np.array_equal(found.numpy(), histogram(probabilities, labels))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.5, -1.0), (0.5, 0.7)])
def test_the_calibration_that_pixels_were_drawn_with_is_found(scale: float, shift: float) -> None:
    found = fit_calibration(pixels(scale, shift))
    assert found.scale == pytest.approx(scale, abs=0.05)
    assert found.shift == pytest.approx(shift, abs=0.05)


@given(
    seed=st.integers(0, 10**6),
    density=st.floats(0.02, 1),
    skew=st.floats(0.1, 8),
    total=st.integers(10_000, 10**8),
)
def test_expected_and_seen_landslide_are_as_many(
    seed: int, density: float, skew: float, total: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.random((2, BINS)) ** skew * (rng.random((2, BINS)) < density)
    counts[:, seed % BINS] += 0.01  # both classes are there
    histogram = torch.from_numpy((counts * total / counts.sum()).astype(np.int64) + 1)
    found = fit_calibration(histogram)
    assert found.scale > 0
    if found != UNCHANGED:
        said = np.array([found(centre) for centre in CENTRES])
        expected = (histogram.sum(0).numpy() * said).sum()
        seen = histogram.sum().item()
        assert expected / seen == pytest.approx(histogram[1].sum().item() / seen, abs=2e-3)


def test_classes_that_do_not_overlap_give_a_finite_calibration() -> None:
    histogram = torch.zeros(2, BINS, dtype=torch.int64)
    histogram[0, 10], histogram[1, 200] = 1000, 500
    found = fit_calibration(histogram)
    # Of one bin each, a line meets Platt's targets as they are.
    assert found(CENTRES[10]) == pytest.approx(1 / 1002, rel=0.02)
    assert 1 - found(CENTRES[200]) == pytest.approx(1 / 502, rel=0.02)


def test_a_network_that_is_too_sure_of_itself_is_calibrated() -> None:
    """Of its pixels, most have a probability within 1/1024 of 0 or 1."""
    rng = np.random.default_rng(1)
    logits = rng.normal(-6, 6, 400_000)
    labels = rng.random(len(logits)) < 1 / (1 + np.exp(-0.4 * logits - 0.3))
    probabilities = torch.from_numpy(1 / (1 + np.exp(-logits)))
    counted = probability_histogram(probabilities, torch.from_numpy(labels.astype(np.uint8)))
    found = fit_calibration(counted)
    assert found.scale == pytest.approx(0.4, abs=0.02)
    assert found.shift == pytest.approx(0.3, abs=0.05)


def test_the_threshold_of_a_model_is_one_of_calibrated_probabilities() -> None:
    counted = pixels(1.5, -1.0)
    found, curve = validation_figures(counted), Curve.of(counted.numpy())
    best, half = curve.best_threshold(), rates(curve.at(0.5))
    calibration = Calibration(found["calibration_scale"], found["calibration_shift"])
    assert calibration == fit_calibration(counted)
    assert found["threshold"] == calibration(best) != pytest.approx(best, abs=0.05)
    assert found["landslide_iou_at_threshold"] == rates(curve.at(best))["landslide_iou"]
    assert {name: found[name] for name in half} == half
    assert found["landslide_iou"] < found["landslide_iou_at_threshold"]


def test_a_threshold_far_off_the_answers_is_one_of_a_model() -> None:
    """A network that hardly tells pixels apart, where nearly all of them are landslide."""
    histogram = torch.zeros(2, BINS, dtype=torch.int64)
    answers = int(np.searchsorted(CENTRES, 0.8))
    histogram[0, answers] = 40
    histogram[1, answers : answers + 2] = torch.tensor([60, 9900])
    found = validation_figures(histogram)
    assert found["landslide_iou_at_threshold"] == pytest.approx(9960 / 10_000)  # all is mapped
    assert 0 < found["threshold"] < fit_calibration(histogram)(CENTRES[answers])


def test_a_network_that_is_wrong_is_left_alone() -> None:
    assert fit_calibration(pixels(1.0, 0.0).flip(0)) == UNCHANGED


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_weights_of_a_model_file_have_the_calibration_in_them(
    arch: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(SMALL, arch=arch)
    torch.manual_seed(0)
    network = build(config).eval()
    calibration = Calibration(1.7, -0.6)
    info = ModelInfo(
        "test", config, (1, 2, 3), "none", 64, 0.5, 0.4, calibration=tuple(calibration)
    )
    save_model(network, info, tmp_path / "a.safetensors", calibration=calibration)
    images = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        raw = network(images)
        loaded, said = load_model(tmp_path / "a.safetensors")
        torch.testing.assert_close(loaded(images), 1.7 * raw - 0.6, rtol=1e-4, atol=1e-4)
    assert Calibration(*said.calibration) == calibration
    # Saved once more, as when a model is bundled, it is not calibrated twice.
    save_model(loaded, said, tmp_path / "b.safetensors")
    again, copied = load_model(tmp_path / "b.safetensors")
    assert copied == said
    with torch.inference_mode():
        torch.testing.assert_close(again(images), loaded(images), rtol=0, atol=0)
