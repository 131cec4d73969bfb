"""What an evaluation found, as values, as JSON and as a short table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from landslide_mapper.evaluation.bootstrap import DRAWS, LEVEL, SEED, group_sums, intervals
from landslide_mapper.evaluation.boundary import boundary_rates
from landslide_mapper.evaluation.objects import ObjectCounts, ObjectScores, object_rates
from landslide_mapper.metrics import (
    BINS,
    METRICS,
    Curve,
    average_precision,
    calibration_dict,
    calibration_error,
    rates,
)

UNDRAWN = (
    "windows without landslide are not in it, nor are the false alarms there, so precision and "
    "calibration are not those of a map"
)
OVERLAPPING = "tiles overlap, so pixels and landslides count as often as tiles show them"

# With fewer scenes than this, drawing them again says little: tiles are drawn instead.
FEWEST_SOURCES = 8

Interval = tuple[float, float]
Intervals = dict[str, Interval]


def bootstrap_units(sources: int, source: np.ndarray) -> np.ndarray:
    """Number of the unit that the bootstrap draws each tile with, (tiles,).

    Args:
        sources: how many scenes or images there are.
        source: (tiles,) number of each tile's.
    """
    return source if sources >= FEWEST_SOURCES else np.arange(len(source))


@dataclass(frozen=True)
class AtThreshold:
    """The metrics of "landslide where p >= threshold".

    Attributes:
        threshold: probability.
        origin: "model", "given", or "validation" (best landslide IoU there).
        counts: (tiles, 4) int64 of tp, fp, fn, tn.
        boundary: (tiles, 2, 3) int64, see `boundary_counts`.
        objects: of the whole split.
        source_objects: (sources, 5) int64, see `source_counts`.
    """

    threshold: float
    origin: str
    counts: np.ndarray
    boundary: np.ndarray
    objects: ObjectScores
    source_objects: np.ndarray

    @property
    def label(self) -> str:
        """The threshold and its origin in words."""
        return f"p ≥ {self.threshold:.3g} ({self.origin})"

    @property
    def metrics(self) -> dict[str, float]:
        """Eq. 9–14 over all valid pixels of the split."""
        return {name: float(value) for name, value in rates(self.counts.sum(axis=0)).items()}


@dataclass(frozen=True)
class Evaluation:
    """A model on one split of a data set.

    Attributes:
        model: name of the model.
        dataset: the folder.
        split: "train", "val" or "test".
        tiles: ids, in the order of all arrays over tiles.
        sources: names of the scenes or images.
        source: (tiles,) number of each tile's source.
        at: metrics at the threshold in use, then, if validation has tiles, at that one's best.
        unit_counted: (units, 2, BINS) int64, `histogram` of the bootstrap's units.
        calibration: (3, CALIBRATION_BINS) float64, `reliability` of the split.
        moved: whether each quarter of a tile was predicted from a window about it.
        tta: whether answers are means over the 8 symmetries of a tile.
        overlapping: whether tiles show the same ground, which then counts again.
        undrawn: windows without landslide that the split lacks, so that their false alarms do.
    """

    model: str
    dataset: str
    split: str
    tiles: tuple[str, ...]
    sources: tuple[str, ...]
    source: np.ndarray
    at: tuple[AtThreshold, ...]
    unit_counted: np.ndarray
    calibration: np.ndarray
    moved: bool = False
    tta: bool = False
    overlapping: bool = False
    undrawn: int = 0

    @cached_property
    def curve(self) -> Curve:
        """Counts at all thresholds."""
        return Curve.of(self.unit_counted.sum(axis=0))

    @property
    def how(self) -> str:
        """How tiles were shown, to follow the model's name; nothing where they were as they are."""
        return ", tiles moved" * self.moved + ", mean over 8 flips and turns" * self.tta

    @property
    def average_precision(self) -> float:
        """Area under the precision-recall curve."""
        return float(average_precision(self.unit_counted.sum(axis=0)))

    @property
    def ece(self) -> float:
        """Expected calibration error."""
        return float(calibration_error(self.calibration))

    @property
    def unit(self) -> str:
        """What the bootstrap draws: "source" (scenes, images), or "tile" with few of those."""
        return "source" if len(self.sources) >= FEWEST_SOURCES else "tile"

    @property
    def drawable(self) -> bool:
        """Whether there are units to draw from: more than one."""
        return len(self.tiles) > 1  # and many more where the units are sources

    def units(self, at: AtThreshold) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the bootstrap's units and their counts (units, 4) of tp, fp, fn, tn."""
        names = self.tiles if self.unit == "tile" else self.sources
        return names, self._by_unit(at.counts)

    def _by_unit(self, counts: np.ndarray) -> np.ndarray:
        """Sum counts (tiles, ...) over the bootstrap's units."""
        return group_sums(counts, bootstrap_units(len(self.sources), self.source))

    def intervals(self, at: AtThreshold) -> Intervals | None:
        """95 % bootstrap intervals of the pixel metrics; None where there is but one unit."""
        return intervals(self.units(at)[1]) if self.drawable else None

    def boundary_intervals(self, at: AtThreshold) -> dict[str, Intervals] | None:
        """The same of the boundary metrics, by radius."""
        if not self.drawable:
            return None
        counts = self._by_unit(at.boundary)
        shape = counts.shape[1:]

        def of(radius: str) -> Intervals:
            return intervals(
                counts.reshape(len(counts), -1),
                lambda sums: boundary_rates(sums.reshape(*sums.shape[:-1], *shape))[radius],
            )

        return {radius: of(radius) for radius in boundary_rates(counts[0])}

    @cached_property
    def precision_interval(self) -> Interval | None:
        """The same of the average precision.

        The calibration error has none: it is a sum of absolute values, which drawing again makes
        larger, so that its interval need not hold it.
        """
        if not self.drawable:
            return None
        counts = self.unit_counted.reshape(len(self.unit_counted), -1)
        return intervals(counts, lambda sums: {"": average_precision(sums.reshape(-1, 2, BINS))})[
            ""
        ]

    def object_intervals(self, at: AtThreshold) -> Intervals | None:
        """The same of the object metrics; None where objects may reach over several units."""
        return intervals(at.source_objects, object_rates) if self.unit == "source" else None

    def tile_iou(self, at: AtThreshold) -> np.ndarray:
        """Landslide IoU of each tile; NaN where there is neither a landslide nor a mapped one."""
        iou = rates(at.counts)["landslide_iou"]
        return np.where(at.counts[:, :3].any(axis=1), iou, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; columns run over `tiles` or `sources`."""
        return {
            "kind": "model",
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "moved": self.moved,
            "tta": self.tta,
            "overlapping": self.overlapping,
            "undrawn_negatives": self.undrawn,
            "bootstrap": {"unit": self.unit, "draws": DRAWS, "seed": SEED, "level": LEVEL},
            "at": [self._threshold_dict(at) for at in self.at],
            "average_precision": self.average_precision,
            "calibration": calibration_dict(self.calibration),
            "average_precision_interval": self.precision_interval and list(self.precision_interval),
            "curve": self.curve.to_dict(),
            "sources": list(self.sources),
            "tiles": {
                "tile": list(self.tiles),
                "source": [self.sources[number] for number in self.source],
            },
        }

    def _threshold_dict(self, at: AtThreshold) -> dict[str, Any]:
        edges = boundary_rates(at.boundary.sum(axis=0))
        ends = self.boundary_intervals(at)
        objects = at.objects.to_dict()
        names = ("tp", "fp", "fn", "tn")
        return {
            "threshold": at.threshold,
            "origin": at.origin,
            "pixels": at.metrics,
            "intervals": _lists(self.intervals(at)),
            "objects": objects | {"intervals": _lists(self.object_intervals(at))},
            "boundary": {
                radius: {name: float(value) for name, value in found.items()}
                | {"intervals": _lists(ends[radius] if ends else None)}
                for radius, found in edges.items()
            },
            "confusion": dict(zip(names, at.counts.sum(axis=0).tolist(), strict=True)),
            "tiles": {
                **dict(zip(names, at.counts.T.tolist(), strict=True)),
                "landslide_iou": [None if np.isnan(v) else float(v) for v in self.tile_iou(at)],
            },
        }

    def lines(self) -> list[str]:
        """A short table for the terminal."""
        first = self.at[0]
        head = [at.label for at in self.at]
        ends = self.intervals(first)
        head[0] += ", 95 % interval" if ends else ""
        out = [
            f"{self.model}{self.how} on {self.split} of {self.dataset}: {len(self.tiles)} tiles of "
            f"{len(self.sources)} scenes or images",
            f"{'pixels':<18}" + "".join(f"{text:<36}" for text in head).rstrip(),
        ]
        for name in METRICS:
            cells = [f"{at.metrics[name]:.4f}" for at in self.at]
            cells[0] += in_brackets(ends[name] if ends else None)
            label = "  " + name.replace("_", " ").replace("iou", "IoU")
            out.append(f"{label:<18}" + "".join(f"{cell:<36}" for cell in cells).rstrip())
        out += object_lines(first.objects)
        out += self._further_lines()
        if ends is None:
            out.append("no intervals: there is one tile only, and nothing to draw from")
        elif self.unit == "tile":
            out.append(
                f"the intervals draw tiles, for want of scenes ({len(self.sources)}); tiles of one "
                "scene are alike, so they are too narrow"
            )
        return out

    def _further_lines(self) -> list[str]:
        """Boundaries and probabilities."""
        first = self.at[0]
        rows = {"average precision": self.average_precision, "ECE": self.ece}
        ends = {"average precision": self.precision_interval}
        edges = self.boundary_intervals(first) or {}
        for radius, found in boundary_rates(first.boundary.sum(axis=0)).items():
            label = f"boundary F1, {radius}"
            rows[label] = float(found["f1"])
            if radius in edges:
                ends[label] = edges[radius]["f1"]
        return [
            f"{label:<18}{value:.4f}{in_brackets(ends.get(label))}" for label, value in rows.items()
        ]


def in_brackets(ends: Interval | None) -> str:
    """An interval as text that follows a number; nothing for None."""
    return "" if ends is None else f"  [{ends[0]:.4f}, {ends[1]:.4f}]"


def _lists(found: Intervals | None) -> dict[str, list[float]] | None:
    return None if found is None else {name: list(ends) for name, ends in found.items()}


def object_lines(objects: ObjectScores) -> list[str]:
    """Objects by size class as an aligned table; classes without objects are left out."""
    names = ("reference", "found", "matched", "recall", "mapped", "matched", "precision")
    out = [f"{'objects (IoU ≥ 0.5)':<22}" + "".join(f"{name:>11}" for name in names)]
    for label, counts in (("all", objects.all), *objects.classes):
        if counts.reference or counts.mapped:
            cells = "".join(f"{cell:>11}" for cell in object_cells(counts))
            out.append(f"  {label:<20}{cells}")
    return out


def object_cells(counts: ObjectCounts) -> list[str]:
    """Reference objects, found, matched, recall; mapped objects, matched, precision."""
    rates = (counts.to_dict()[name] for name in ("recall", "precision"))
    recall, precision = ("–" if rate is None else f"{rate:.3f}" for rate in rates)
    shown = (counts.reference, counts.found, counts.matched_reference, recall)
    return [str(cell) for cell in (*shown, counts.mapped, counts.matched_mapped, precision)]
