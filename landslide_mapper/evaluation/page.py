"""The report of an evaluation as one HTML page that needs no other file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

import numpy as np

from landslide_mapper import __version__
from landslide_mapper.evaluation.bootstrap import DRAWS
from landslide_mapper.evaluation.boundary import boundary_rates
from landslide_mapper.evaluation.pictures import MAPPED, REFERENCE
from landslide_mapper.evaluation.result import (
    OVERLAPPING,
    UNDRAWN,
    AtThreshold,
    Evaluation,
    in_brackets,
    object_cells,
)
from landslide_mapper.metrics import METRICS

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } .note { color: #555; max-width: 50em; }
.key { display: inline-block; width: 1.6em; height: .5em; margin: 0 .3em; border: 1px solid #000; }
"""

NAMES = {
    "accuracy": "pixel accuracy (eq. 9)",
    "precision": "precision (eq. 10)",
    "recall": "recall (eq. 11)",
    "f1": "F1 (eq. 14)",
    "landslide_iou": "landslide IoU (eq. 12)",
    "mean_iou": "mean IoU (eq. 13)",
}


def render(evaluation: Evaluation, curves: bytes, worst: bytes | None, best: bytes | None) -> str:
    """The page; `worst` and `best` are PNGs of tiles, None for none."""
    first = evaluation.at[0]
    title = f"{evaluation.model}{evaluation.how} on {evaluation.dataset} ({evaluation.split})"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(evaluation.tiles)} tiles of {len(evaluation.sources)} scenes or images; "
        f"{int(first.counts.sum()):,} valid pixels. lsmap {escape(__version__)}.</p>",
        "<h2>Pixels</h2>",
        _pixel_table(evaluation),
        f'<p class="note">Counted over all valid pixels of the split, never averaged over tiles. '
        f"{_caveat(evaluation)}{_counted(evaluation)}</p>",
        "<h2>Landslides as objects</h2>",
        _object_table(first),
        '<p class="note">An object is a component of pixels that hang together by their edges, '
        "also over tiles that lie side by side in a scene. Matched: one to one at an IoU of at "
        "least 0.5. Found: at least 20 % of it is mapped. Reference objects are sorted by their "
        "own size, mapped ones by theirs.</p>",
        "<h2>Boundaries and calibration</h2>",
        _boundary_table(evaluation, first),
        '<p class="note">Boundary pixels within so many pixels of the other boundary. '
        f"{_probabilities(evaluation)}</p>",
        _image(curves, "curves"),
    ]
    for heading, picture in (("Tiles that cost most", worst), ("Best tiles", best)):
        if picture is not None:
            parts += [f"<h2>{heading}</h2>", _key(), _image(picture, heading)]
    parts.append(_tile_table(evaluation, first))
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _caveat(evaluation: Evaluation) -> str:
    """What stands in brackets, and how far it is to be trusted."""
    if not evaluation.drawable:
        return "There is one tile only, and nothing to draw bootstrap intervals from."
    if evaluation.unit == "source":
        return f"In brackets: 95 % bootstrap interval, {DRAWS} draws of scenes or images."
    count = len(evaluation.sources)
    scenes = "is only 1 scene" if count == 1 else f"are only {count} scenes"
    return (
        f"In brackets: 95 % bootstrap interval, {DRAWS} draws of tiles. There {scenes}, too few "
        "to draw; tiles of one scene are alike, so these intervals are too narrow."
    )


def _counted(evaluation: Evaluation) -> str:
    """What counts again and what does not count, where there is such ground."""
    said = f" {OVERLAPPING.capitalize()}." if evaluation.overlapping else ""
    return said + (f" {evaluation.undrawn} {UNDRAWN}." if evaluation.undrawn else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(c)}</{kind}>" for c in cells) + "</tr>"

    return "\n".join(["<table>", line(head, "th"), *(line(row, "td") for row in rows), "</table>"])


def _threshold(at: AtThreshold) -> str:
    origin = {"model": "the model's", "given": "given", "validation": "best on validation"}
    return f"p ≥ {at.threshold:.3g} ({origin[at.origin]})"


def _pixel_table(evaluation: Evaluation) -> str:
    ends = [evaluation.intervals(at) for at in evaluation.at]
    rows = [
        [NAMES[name]]
        + [
            f"{at.metrics[name]:.4f}" + in_brackets(found[name] if found else None)
            for at, found in zip(evaluation.at, ends, strict=True)
        ]
        for name in METRICS
    ]
    return _table(["", *(_threshold(at) for at in evaluation.at)], rows)


def _object_table(at: AtThreshold) -> str:
    head = ["size", "reference", "found", "matched", "recall", "mapped", "matched", "precision"]
    rows = [
        [name, *object_cells(counts)]
        for name, counts in (("all", at.objects.all), *at.objects.classes)
        if counts.reference or counts.mapped
    ]
    return _table(head, rows)


def _boundary_table(evaluation: Evaluation, at: AtThreshold) -> str:
    ends = evaluation.boundary_intervals(at)
    rows = [
        [radius.replace("px", " pixels")]
        + [
            f"{float(value):.4f}" + in_brackets(ends[radius][name] if ends else None)
            for name, value in found.items()
        ]
        for radius, found in boundary_rates(at.boundary.sum(axis=0)).items()
    ]
    return _table(["within", "precision", "recall", "boundary F1"], rows)


def _probabilities(evaluation: Evaluation) -> str:
    """Expected calibration error and average precision in words."""
    return (
        "Expected calibration error of the landslide probability: "
        f"{evaluation.ece:.4f}. Average precision: "
        f"{evaluation.average_precision:.4f}{in_brackets(evaluation.precision_interval)}."
    )


def _tile_table(evaluation: Evaluation, at: AtThreshold) -> str:
    iou = evaluation.tile_iou(at)
    rows = [
        [
            evaluation.tiles[number],
            evaluation.sources[evaluation.source[number]],
            *(f"{count:,}" for count in at.counts[number, :3]),
            "–" if np.isnan(iou[number]) else f"{iou[number]:.4f}",
        ]
        for number in range(len(evaluation.tiles))
    ]
    head = ["tile", "scene or image", "right (tp)", "too much (fp)", "missed (fn)", "landslide IoU"]
    return f"<details><summary>All tiles</summary>\n{_table(head, rows)}\n</details>"


def _key() -> str:
    return (
        f'<p><span class="key" style="background:{REFERENCE}"></span>reference'
        f'<span class="key" style="background:{MAPPED}"></span>mapped; grey: not counted</p>'
    )


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{b64encode(png).decode()}">'
