"""Pixel metrics, curves, calibration, boundaries, intervals: against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from landslide_mapper.evaluation import bootstrap
from landslide_mapper.evaluation.boundary import boundary, boundary_counts, boundary_rates, near
from landslide_mapper.metrics import (
    BINS,
    EDGES,
    METRICS,
    Curve,
    average_precision,
    calibration_dict,
    calibration_error,
    confusion,
    histogram,
    rates,
    reliability,
)


def random_pixels(seed: int, shape: tuple[int, int] = (96, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 and labels 0, 1, 255 that have something to do with each other."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 255], size=shape, p=[0.7, 0.2, 0.1]).astype(np.uint8)
    probability = rng.beta(2, 3, shape) * 0.8 + 0.2 * (labels == 1) * rng.random(shape)
    return probability.astype(np.float32), labels


@pytest.mark.parametrize("threshold", [0.1, 0.461, 0.5, 0.9])
def test_metrics_are_those_of_scikit_learn(threshold: float) -> None:
    probability, labels = random_pixels(1)
    found = rates(confusion(probability >= threshold, labels))
    seen = labels != 255
    truth, said = labels[seen] == 1, probability[seen] >= threshold
    wanted = {
        "accuracy": sk.accuracy_score(truth, said),
        "precision": sk.precision_score(truth, said),
        "recall": sk.recall_score(truth, said),
        "f1": sk.f1_score(truth, said),
        "landslide_iou": sk.jaccard_score(truth, said),
        "mean_iou": sk.jaccard_score(truth, said, average="macro"),
    }
    for name in METRICS:
        assert found[name] == pytest.approx(wanted[name], abs=1e-9)


def test_metrics_follow_the_equations() -> None:
    found = rates(np.array([30, 20, 10, 40]))  # tp, fp, fn, tn
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["precision"] == pytest.approx(0.6)
    assert found["recall"] == pytest.approx(0.75)
    assert found["f1"] == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert found["landslide_iou"] == pytest.approx(0.5)
    assert found["mean_iou"] == pytest.approx((0.5 + 40 / 70) / 2)


def test_the_papers_table_has_a_slip() -> None:
    """Precision 0.5347 and recall 0.5981 give a landslide IoU of 0.393, not 0.3975."""
    precision, recall = 0.5347, 0.5981
    tp = 1_000_000
    found = rates(np.array([tp, round(tp / precision - tp), round(tp / recall - tp), 0]))
    assert found["f1"] == pytest.approx(0.5646, abs=1e-4)
    assert found["landslide_iou"] == pytest.approx(0.3934, abs=1e-4)


def test_nothing_seen_gives_zeros() -> None:
    assert {float(value) for value in rates(np.zeros(4)).values()} == {0.0}


def test_the_best_threshold_stays_near_a_half_when_all_are_equal() -> None:
    counted = histogram(np.float32([0.0, 0.999]), np.uint8([0, 1]))
    assert Curve.of(counted).best_threshold() == 0.5


def test_the_curve_holds_the_counts_of_every_threshold() -> None:
    probability, labels = random_pixels(2)
    curve = Curve.of(histogram(probability, labels))
    for index in (0, 10, 471, 1000, BINS - 2):
        exact = confusion(probability >= curve.thresholds[index], labels)
        assert curve.counts[index].tolist() == exact.tolist()
        assert curve.at(curve.thresholds[index]).tolist() == exact.tolist()
    iou = rates(curve.counts)["landslide_iou"]
    best = np.flatnonzero(curve.thresholds == curve.best_threshold())
    assert iou[best[0]] == iou.max()


def test_average_precision_is_that_of_scikit_learn() -> None:
    probability, labels = random_pixels(3)
    stepped = EDGES[np.searchsorted(EDGES, probability, side="right").clip(1) - 1]
    seen = labels != 255
    wanted = sk.average_precision_score(labels[seen] == 1, stepped[seen])
    found = float(average_precision(histogram(stepped, labels)))
    assert found == pytest.approx(wanted, abs=1e-9)
    low = np.where(labels == 1, stepped * (stepped > 0.5), stepped).astype(np.float32)  # missed
    wanted = sk.average_precision_score(labels[seen] == 1, low[seen])
    assert float(average_precision(histogram(low, labels))) == pytest.approx(wanted, abs=1e-9)
    nothing = histogram(np.zeros_like(stepped), labels)
    assert float(average_precision(nothing)) == pytest.approx((labels[seen] == 1).mean(), abs=1e-9)


@pytest.mark.parametrize("share", [0.2, 0.001])
def test_average_precision_of_a_network_that_is_sure_of_itself(share: float) -> None:
    """Most of its probabilities lie within 1/1024 of 0 or 1."""
    rng = np.random.default_rng(5)
    labels = (rng.random(300_000) < share).astype(np.uint8)
    logits = rng.normal(np.where(labels == 1, 3, -8), 4)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    exact = sk.average_precision_score(labels, probability)
    counted = histogram(probability, labels)
    assert float(average_precision(counted)) == pytest.approx(exact, abs=5e-3)
    iou = rates(Curve.of(counted).counts)["landslide_iou"].max()
    order = np.argsort(-logits)
    tp = labels[order].cumsum()
    best = (tp / (np.arange(1, len(tp) + 1) + labels.sum() - tp)).max()
    assert iou == pytest.approx(best, abs=5e-3)


def test_edges_are_exact_and_alike_from_both_ends() -> None:
    assert (np.diff(EDGES) > 0).all()
    assert (1 - EDGES[::-1] == EDGES).all()
    assert (EDGES.astype(np.float64) == 1 - EDGES[::-1].astype(np.float64)).all()
    assert 0 < EDGES[0] < 1e-6


def test_histograms_of_many_draws_have_the_figures_of_each() -> None:
    draws = [histogram(*random_pixels(seed)) for seed in range(3)]
    found = average_precision(np.stack(draws))
    assert found.tolist() == [float(average_precision(one)) for one in draws]
    counted = [reliability(*random_pixels(seed)) for seed in range(3)]
    errors = calibration_error(np.stack(counted))
    assert errors.tolist() == [float(calibration_error(one)) for one in counted]
    assert len({*found.tolist(), *errors.tolist()}) == 6


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    counted = histogram(np.ones((2, 2), np.float32), np.array([[1, 1], [0, 255]], np.uint8))
    assert counted[:, -1].tolist() == [1, 2]
    assert counted.sum() == 3


def test_calibration_by_hand() -> None:
    probability = np.array([0.05, 0.05, 0.05, 0.05, 0.9, 0.9, 0.9], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 255], np.uint8)
    found = reliability(probability, labels, bins=10)
    # A quarter instead of 0.05 on four pixels, all instead of 0.9 on two.
    assert float(calibration_error(found)) == pytest.approx((4 * 0.2 + 2 * 0.1) / 6, abs=1e-7)
    shown = calibration_dict(found)
    assert sum(shown["pixels"]) == 6
    assert shown["pixels"][0] == 4
    assert shown["mean_probability"][3] is None
    assert shown["landslide_share"][0] == pytest.approx(0.25)


def test_a_calibrated_forecast_has_almost_no_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((700, 700)).astype(np.float32)
    labels = (rng.random((700, 700)) < probability).astype(np.uint8)
    assert calibration_error(reliability(probability, labels)) < 0.005
    assert calibration_error(reliability(probability**3, labels)) > 0.1


def test_calibration_adds_up() -> None:
    probability, labels = random_pixels(4)
    halves = [reliability(probability[s], labels[s]) for s in (slice(40), slice(40, None))]
    whole = reliability(probability, labels)
    assert halves[0] + halves[1] == pytest.approx(whole, abs=1e-9)


def test_what_is_near_is_a_disc() -> None:
    mask = np.zeros((21, 31), bool)
    mask[10, 12] = mask[2, 30] = True
    rows, cols = np.indices(mask.shape)
    for radius in (1, 2, 5):
        wanted = ((rows - 10) ** 2 + (cols - 12) ** 2 <= radius**2) | (
            (rows - 2) ** 2 + (cols - 30) ** 2 <= radius**2
        )
        assert (near(mask, radius) == wanted).all()


def test_the_end_of_what_was_seen_is_no_boundary() -> None:
    mask = np.zeros((10, 12), bool)
    mask[:, :6] = True
    valid = np.ones_like(mask)
    assert np.flatnonzero(boundary(mask, valid).any(axis=0)).tolist() == [5]
    valid[:, 6:] = False
    assert not boundary(mask, valid).any()


@pytest.mark.parametrize(("shift", "within_2", "within_5"), [(0, 1, 1), (2, 1, 1), (4, 0, 1)])
def test_boundary_f1_of_a_shifted_edge(shift: int, within_2: int, within_5: int) -> None:
    columns = np.broadcast_to(np.arange(40), (30, 40))
    counts = boundary_counts(columns < 20 + shift, columns < 20, np.ones((30, 40), bool))
    found = boundary_rates(counts)
    assert (found["2px"]["f1"], found["5px"]["f1"]) == (within_2, within_5)


def test_the_boundary_is_what_has_ground_outside_on_any_side() -> None:
    mask, seen = np.zeros((2, 7, 9), bool)
    mask[2:5, 2:7] = True
    seen[:] = True
    ring = mask.copy()
    ring[3, 3:6] = False
    assert (boundary(mask, seen) == ring).all()
    seen[3:5, 2:7] = False  # what was not seen of a landslide has no boundary
    assert (boundary(mask, seen) == (ring & seen)).all()


def test_boundaries_are_counted_of_each_and_near_the_other() -> None:
    drawn, true = np.zeros((2, 20, 40), bool)
    drawn[5, 5] = drawn[5, 9] = True
    true[5, 6] = true[5, 30] = true[15, 30] = True
    counts = boundary_counts(drawn, true, np.ones(drawn.shape, bool))
    assert counts.tolist() == [[2, 1, 2], [3, 1, 1]]
    found = boundary_rates(counts)
    assert found["2px"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5})
    assert found["5px"] == pytest.approx({"precision": 1, "recall": 1 / 3, "f1": 1 / 2})


def test_boundary_f1_of_nothing_is_zero() -> None:
    nothing = np.zeros((8, 8), bool)
    found = boundary_rates(boundary_counts(nothing, nothing, ~nothing))
    assert found["2px"] == {"precision": 0, "recall": 0, "f1": 0}


def simulated(rng: np.random.Generator, units: int) -> np.ndarray:
    """Counts of units that differ in size and quality; precision and recall follow from sums."""
    size = rng.lognormal(6, 0.7, units).astype(int) + 1
    tp = rng.binomial(size, rng.beta(8, 3, units))
    fp = rng.poisson(0.3 * size)
    return np.stack([tp, fp, size - tp, 10 * size], axis=1)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    truth = {name: float(v) for name, v in rates(simulated(rng, 400_000).sum(axis=0)).items()}
    inside = dict.fromkeys(METRICS, 0)
    trials = 200
    for trial in range(trials):
        found = bootstrap.intervals(simulated(rng, 80), draws=400, seed=trial)
        for name, (low, high) in found.items():
            inside[name] += low <= truth[name] <= high
    for name in METRICS:
        assert 0.88 <= inside[name] / trials <= 0.99, name


def test_intervals_are_repeatable_and_hold_the_value() -> None:
    counts = simulated(np.random.default_rng(1), 50)
    found = bootstrap.intervals(counts)
    assert found == bootstrap.intervals(counts)
    assert found != bootstrap.intervals(counts, seed=1)
    value = rates(counts.sum(axis=0))["landslide_iou"]
    assert found["landslide_iou"][0] < value < found["landslide_iou"][1]


def test_counts_of_a_group_are_summed() -> None:
    counts = np.array([[1, 2], [10, 20], [100, 200]])
    sums = bootstrap.group_sums(counts, np.array([1, 0, 1]))
    assert sums.tolist() == [[10, 20], [101, 202]]


def test_draws_in_parts_are_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = simulated(np.random.default_rng(1), 30)
    whole = bootstrap.intervals(counts)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 1000)
    assert bootstrap.intervals(counts) == whole
