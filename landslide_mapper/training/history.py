"""The record of a training run: ``log.csv`` and ``curves.png``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from landslide_mapper.errors import LsmapFailure
from landslide_mapper.staging import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float]
LogRow = TypeVar("LogRow", bound=Row)


def write_log(rows: Sequence[Row], path: Path) -> None:
    """Write one line per epoch; the file is replaced whole, so it never holds an epoch twice.

    What is not a number, the loss of a part that rested in an epoch, is left blank, and so is what
    an earlier version, whose run is resumed, did not measure.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=names, restval="")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)


def read_log(path: Path) -> list[dict[str, float]]:
    """Read ``log.csv``; blanks become NaN.

    Raises:
        LsmapFailure: the file is missing or is no such log.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: float(value) if value else math.nan for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise LsmapFailure(f"cannot read the training log {path}: {error}") from error


RANKED = {
    "half": ("landslide_iou", "landslide_iou_at_threshold"),
    "threshold": ("landslide_iou_at_threshold", "landslide_iou"),
}


def improves(row: Row, rows: Sequence[Row], best_at: str) -> bool:
    """Whether the weights of the newest epoch are to be kept, given the epochs before.

    They are where nothing is measured, in a final fit. Equal landslide IoU (0 in the first epochs,
    before probabilities have their level) is settled by that at the other threshold.
    """
    if not measured([row]) or not rows:
        return True
    before = best_row(rows)
    one, other = ([each.get(name, 0.0) for name in RANKED[best_at]] for each in (row, before))
    return one > other or not before.get("kept", True)


def best_row(rows: Sequence[LogRow]) -> LogRow:
    """The epoch whose weights were kept last.

    Logs of earlier versions do not say: there it is the best at 0.5, or the last of a final fit.
    """
    kept = [row for row in rows if row.get("kept")]
    if kept:
        return kept[-1]
    if not measured(rows):
        return rows[-1]
    return max(rows, key=lambda row: [row.get(name, 0.0) for name in RANKED["half"]])


def measured(rows: Sequence[Row]) -> bool:
    """Whether the epochs were measured on validation."""
    return all("landslide_iou" in row for row in rows)


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def loss_columns(row: Row) -> list[str]:
    """The total loss and its terms: they stand from ``loss`` to the speed."""
    names = list(row)
    return names[names.index("loss") : names.index("samples_per_s")]


def plot_curves(rows: Sequence[Row], path: Path) -> None:
    """Draw the loss terms and, where there are any, the validation metrics over the epochs."""
    from matplotlib.figure import Figure  # without pyplot: no window, no state
    from matplotlib.ticker import MaxNLocator

    drawn = [_draw_losses, _draw_metrics] if measured(rows) else [_draw_losses]
    figure = Figure(figsize=(5.5 * len(drawn), 4), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw(axes, rows)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _draw_losses(axes: Axes, rows: Sequence[Row]) -> None:
    epochs = [row["epoch"] for row in rows]
    names = loss_columns(rows[0])
    for name in names:
        label = "total" if name == "loss" else name.replace("_", " ")
        axes.plot(epochs, [row[name] for row in rows], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss", title="training")
    if any(row[name] > 0 for row in rows for name in names):  # 0 has no place on such a scale
        axes.set_yscale("log")


def _draw_metrics(axes: Axes, rows: Sequence[Row]) -> None:
    epochs = [row["epoch"] for row in rows]
    for name, label in (
        ("landslide_iou", "landslide IoU"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1", "F1"),
    ):
        axes.plot(epochs, [row[name] for row in rows], marker=".", label=label)
    best = best_row(rows)["epoch"]
    axes.axvline(best, color="grey", linestyle=":", label=f"best, epoch {best:.0f}")
    axes.set(xlabel="epoch", title="validation, p ≥ 0.5", ylim=(0, 1))
