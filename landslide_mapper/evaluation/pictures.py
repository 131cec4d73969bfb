"""Pictures of an evaluation: curves, and tiles with both outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import shapely

from landslide_mapper.data.manifest import Tile
from landslide_mapper.evaluation.result import AtThreshold, Evaluation
from landslide_mapper.evaluation.tiles import answers
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.geo.picture import as_rgb, draw_outlines
from landslide_mapper.geo.vectorize import vectorize_block
from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.metrics import rates, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6  # tiles of each kind
DPI = 110
TITLE = 46  # letters that fit over a tile
# Told apart by people with any colour vision, and from vegetation, soil and shadow.
REFERENCE, MAPPED = "#00e5ff", "#ff2fb3"
UNSEEN = (0.35, 0.35, 0.35)


@dataclass(frozen=True)
class Gallery:
    """Numbers of the tiles that are shown: most wrong pixels, and highest landslide IoU."""

    worst: tuple[int, ...]
    best: tuple[int, ...]


def choose_tiles(at: AtThreshold) -> Gallery:
    """The tiles that cost most (fp + fn), and of the others those with the highest IoU."""
    wrong = at.counts[:, 1] + at.counts[:, 2]
    worst = [int(n) for n in np.argsort(-wrong, kind="stable")[:SHOWN] if wrong[n] > 0]
    has_landslide = at.counts[:, 0] + at.counts[:, 2] > 0
    iou = np.where(has_landslide, rates(at.counts)["landslide_iou"], -1.0)
    best = [int(n) for n in np.argsort(-iou, kind="stable") if iou[n] > 0 and int(n) not in worst]
    return Gallery(tuple(worst), tuple(best[:SHOWN]))


def curves(evaluation: Evaluation) -> bytes:
    """Precision–recall, metrics over the threshold, reliability, objects by size; a PNG."""
    figure = _figure((11, 8))
    axes = figure.subplots(2, 2)
    _precision_recall(axes[0, 0], evaluation)
    _over_threshold(axes[0, 1], evaluation)
    _reliability(axes[1, 0], evaluation)
    _by_size(axes[1, 1], evaluation.at[0])
    return _png(figure)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    return Figure(figsize=size, layout="constrained", dpi=DPI)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    # Without the version of matplotlib in it, so that equal pictures are equal bytes.
    # Tight: the layout does not make room for titles over pictures without axes.
    figure.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches="tight")
    return buffer.getvalue()


def _precision_recall(axes: Axes, evaluation: Evaluation) -> None:
    found = rates(evaluation.curve.counts)
    drawn = evaluation.curve.counts[:, :2].any(axis=1)  # nothing mapped has no precision
    axes.plot(found["recall"][drawn], found["precision"][drawn], color="C0")
    for at, marker in zip(evaluation.at, ("o", "s"), strict=False):
        metrics = at.metrics
        axes.plot(metrics["recall"], metrics["precision"], marker, label=at.label)
    share = evaluation.curve.counts[0, [0, 2]].sum() / evaluation.curve.counts[0].sum()
    axes.axhline(share, color="grey", linestyle=":", label=f"landslide share {share:.3f}")
    title = f"precision and recall, average precision {evaluation.average_precision:.3f}"
    axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()


def _over_threshold(axes: Axes, evaluation: Evaluation) -> None:
    found = rates(evaluation.curve.counts)
    mapped = evaluation.curve.counts[:, :2].any(axis=1)  # beyond, nothing is
    for name in ("landslide_iou", "f1", "precision", "recall"):
        label = {"landslide_iou": "landslide IoU", "f1": "F1"}.get(name, name)
        axes.plot(evaluation.curve.thresholds[mapped], found[name][mapped], label=label)
    for at, style in zip(evaluation.at, ("--", ":"), strict=False):
        axes.axvline(at.threshold, color="grey", linestyle=style, label=at.label)
    axes.set(xlabel="threshold", title="metrics over the threshold", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()


def _reliability(axes: Axes, evaluation: Evaluation) -> None:
    pixels, landslides, total = evaluation.calibration
    used = pixels > 0
    mean = ratio(total, pixels)[used]
    share = ratio(landslides, pixels)[used]
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    axes.plot(mean, share, marker="o", color="C0", label="model")
    title = f"reliability, ECE {evaluation.ece:.4f}"
    axes.set(xlabel="probability of landslide (bin's mean)", ylabel="share that is landslide")
    axes.set(title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    counts = axes.twinx()
    bins = len(pixels)
    centres = (np.arange(bins) + 0.5) / bins
    counts.bar(centres, pixels, width=0.9 / bins, color="C0", alpha=0.15)
    counts.set(yscale="log", ylabel="pixels (bars)")


def _by_size(axes: Axes, at: AtThreshold) -> None:
    rows = [(name, c) for name, c in at.objects.classes if c.reference or c.mapped]
    places = np.arange(len(rows))
    bars = (
        ("found (≥ 20 % mapped)", "found_share"),
        ("matched (recall)", "recall"),
        ("right (precision)", "precision"),
    )
    for index, (label, rate) in enumerate(bars):
        values = [counts.to_dict()[rate] or 0 for _, counts in rows]
        axes.bar(places + 0.27 * (index - 1), values, width=0.25, label=label)
    ticks = [f"{name}\n{c.reference} reference\n{c.mapped} mapped" for name, c in rows]
    axes.set_xticks(places, ticks, fontsize=7)
    axes.set(ylim=(0, 1.2), title="landslides as objects, by size")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(loc="upper center", ncols=3, fontsize=8)


def gallery(
    predict: Predictor, evaluation: Evaluation, tiles: Sequence[Tile], columns: int
) -> bytes:
    """Tiles with both outlines, mapped at the threshold in use; a PNG.

    Their numbers in `evaluation` follow from their ids.
    """
    at = evaluation.at[0]
    rows = -(-len(tiles) // columns)
    figure = _figure((3.6 * columns, 3.9 * rows))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    numbers = {tile_id: number for number, tile_id in enumerate(evaluation.tiles)}
    iou = evaluation.tile_iou(at)
    for panel in panels:
        panel.set_axis_off()
    for answer, panel in zip(answers(predict, tiles, "pictures"), panels, strict=False):
        tile = tiles[answer.number]
        number = numbers[tile.tile_id]
        tp, fp, fn, _ = at.counts[number]
        valid = answer.labels != IGNORE
        panel.imshow(_picture(answer.image, valid), interpolation="nearest")
        _outline(panel, answer.labels == LANDSLIDE, REFERENCE)
        _outline(panel, (answer.probability >= at.threshold) & valid, MAPPED)
        said = f"IoU {iou[number]:.3f}" if tp + fp + fn else "nothing there or mapped"
        name = _fitted(tile.tile_id)
        panel.set_title(f"{name}\n{said}, {fp:,} px too much, {fn:,} missed", fontsize=8)
    return _png(figure)


def _fitted(name: str) -> str:
    """A name that fits over a tile: of a long one, both ends, as the place is at its end."""
    half = (TITLE - 1) // 2
    return name if len(name) <= TITLE else f"{name[:half]}…{name[-half:]}"


def _picture(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) in 0..1 of a tile (B, H, W); grey where it does not count."""
    shown = np.moveaxis(as_rgb(image), 0, -1) / 255
    shown[~valid] = 0.5 * shown[~valid] + 0.5 * np.array(UNSEEN)
    return np.asarray(shown)


def _outline(panel: Axes, mask: np.ndarray, colour: str) -> None:
    """Draw the exact outlines of a mask's components."""
    values = np.ones(np.count_nonzero(mask), np.float32)
    polygons = vectorize_block(mask, values).whole.polygons
    # A pixel's centre is at whole numbers in matplotlib, its corner in ours.
    shown = np.asarray(shapely.transform(polygons, lambda points: points - 0.5))
    draw_outlines(panel, shown, colour, 1.2)
