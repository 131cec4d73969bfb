"""The log of a run, which of its epochs is kept, and the learning rates of its steps."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from landslide_mapper.config import (
    TrainConfig,
)
from landslide_mapper.nn.network import Losses, Network
from landslide_mapper.nn.optimiser import learning_rate, make_optimizer
from landslide_mapper.train import _train_epoch
from landslide_mapper.training.history import best_row, improves, plot_curves, read_log, write_log
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.session import Session


def test_the_best_epoch_is_told_before_probabilities_have_their_level() -> None:
    def row(epoch: int, iou: float, tuned: float) -> dict[str, float]:
        return {"epoch": epoch, "landslide_iou": iou, "landslide_iou_at_threshold": tuned}

    rows = [row(1, 0.0, 0.5), row(2, 0.0, 0.6), row(3, 0.0, 0.6)]
    assert best_row(rows)["epoch"] == 2
    assert best_row([*rows, row(4, 0.1, 0.4)])["epoch"] == 4
    assert best_row([{"epoch": 1.0, "landslide_iou": 0.2}])["epoch"] == 1  # of an older log
    assert best_row([{"epoch": 1.0}, {"epoch": 2.0}])["epoch"] == 2  # of an older final fit


def test_a_log_may_gain_columns(tmp_path: Path) -> None:
    write_log(
        [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.123456, "more": 3.0}], tmp_path / "l"
    )
    first, second = read_log(tmp_path / "l")
    assert np.isnan(first.pop("more"))
    assert first == {"epoch": 1.0, "loss": 0.5}
    assert second == {"epoch": 2.0, "loss": 0.123456, "more": 3.0}


def test_learning_rates() -> None:
    poly = TrainConfig(epochs=10, lr=1.0, schedule="poly")
    assert learning_rate(poly, 0) == 1
    assert learning_rate(poly, 5) == pytest.approx(0.5**0.9)
    assert learning_rate(TrainConfig(lr=0.3), 7) == 0.3
    warm = TrainConfig(lr=0.5, warmup=2)
    assert [learning_rate(warm, epoch) for epoch in (0, 1, 2, 3)] == [0, 0.25, 0.5, 0.5]
    both = TrainConfig(epochs=10, lr=1.0, schedule="poly", warmup=2)
    expected = [0, 0.5 * 0.9**0.9, 0.8**0.9, 0.5**0.9]
    assert [learning_rate(both, epoch) for epoch in (0, 1, 2, 5)] == pytest.approx(expected)


class Scale(nn.Linear):
    """As much of a network as an epoch needs."""

    begin_epoch = Network.begin_epoch
    after_step = Network.after_step

    def __init__(self) -> None:
        super().__init__(1, 1)


def test_every_step_has_the_rate_of_its_part_of_the_epoch() -> None:
    config = TrainConfig(epochs=4, lr=0.1, schedule="poly", warmup=1.5)
    process, network, rates = Process(0, 1, torch.device("cpu")), Scale(), []
    steps = make_optimizer(config, network, process.device)  # type: ignore[arg-type]

    def losses(images: Tensor, *_: object) -> Losses:
        rates.append(steps.param_groups[0]["lr"])
        return Losses(network(images.float()).mean(), {})

    batches = [(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))] * 4
    session = Session(network, None, steps, [], "", (), [])  # type: ignore[arg-type]
    _train_epoch(config, 1, losses, session, batches, process)  # type: ignore[arg-type]
    assert rates == [learning_rate(config, epoch) for epoch in (1, 1.25, 1.5, 1.75)]


def test_the_epoch_that_is_kept() -> None:
    def row(iou: float, tuned: float, kept: float) -> dict[str, float]:
        return {"landslide_iou": iou, "landslide_iou_at_threshold": tuned, "kept": kept}

    first = row(0.6, 0.6, 1.0)
    later = row(0.5, 0.7, 0.0)
    assert improves(first, [], "half")
    assert not improves(later, [first], "half")
    assert improves(later, [first], "threshold")
    assert best_row([first, later]) is first
    better = row(0.7, 0.6, 1.0)
    assert best_row([first, better, later]) is better
    assert not improves(first, [first], "half")
    assert improves(better, [first], "threshold")  # as good there, and better at a half
    assert improves(row(0.1, 0.1, 0.0), [row(0.9, 0.9, 0.0)], "half")  # of a network not ready yet
    assert improves({"loss": 1.0}, [{"loss": 2.0}], "half")  # a final fit


def test_epochs_are_whole_numbers_on_the_curves_of_a_run_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = []

    def look(figure: Figure, path: Path, **_: object) -> None:
        axes = figure.axes[0]
        low, high = axes.get_xlim()
        ticks.extend(tick for tick in axes.get_xticks() if low <= tick <= high)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", look)
    row = {"epoch": 1.0, "loss": 1.5, "cross_entropy": 0.6, "samples_per_s": 2.0}
    plot_curves([row], tmp_path / "curves.png")
    assert ticks == [1.0]


def test_losses_that_are_all_0_are_drawn_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = []

    def look(figure: Figure, path: Path, **_: object) -> None:
        scales.append(figure.axes[0].get_yscale())
        path.touch()

    monkeypatch.setattr(Figure, "savefig", look)
    first = {"epoch": 1.0, "loss": 0.0, "contrast": 0.0, "other": np.nan, "samples_per_s": 2.0}
    second = first | {"epoch": 2.0, "loss": 0.6, "other": 0.6}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves([first], tmp_path / "curves.png")
        plot_curves([first, second], tmp_path / "curves.png")
    assert scales == ["linear", "log"]


def test_curves_have_the_names_of_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[float]] = {}

    def look(figure: Figure, path: Path, **_: object) -> None:
        lines = [line for axes in figure.axes for line in axes.get_lines()]
        shown.update((str(line.get_label()), list(line.get_ydata())) for line in lines)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", look)
    names = ("loss", "cross_entropy", "samples_per_s", "landslide_iou", "precision", "recall", "f1")
    rows = [
        {"epoch": epoch, "lr": 0.1} | {name: n + epoch / 9 for n, name in enumerate(names)}
        for epoch in (1.0, 2.0)
    ]
    plot_curves(rows, tmp_path / "curves.png")
    labels = ("total", "cross entropy", None, "landslide IoU", "precision", "recall", "F1")
    for name, label in zip(names, labels, strict=True):
        assert label is None or shown.pop(label) == [row[name] for row in rows]
    assert list(shown) == ["best, epoch 2"]
