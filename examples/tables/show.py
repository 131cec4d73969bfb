"""Print Tables III–VI from a file of results, the paper's figures beside them, as Markdown.

python examples/tables/show.py [examples/tables/results.jsonl]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from grid import DATA, HEADINGS, SCALES, TABLES, Row, Table
from results import Result, read_results

from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluation.bootstrap import DRAWS, LEVEL, SEED
from landslide_mapper.metrics import rates

RESULTS = Path(__file__).with_name("results.jsonl")
THRESHOLDS = ("0.5", "validation")
METRIC = "landslide_iou"
VALIDATION = {"0.5": METRIC, "validation": "landslide_iou_at_threshold"}
HEAD = (
    "Ours, mean ± standard deviation over the seeds, and in brackets the paper's figures, which "
    "are on data of its own that is not public: compare the differences, not the levels."
)


def report(results: Sequence[Result], tables: Sequence[Table], at: str) -> Iterator[str]:
    """Lines of Markdown: all tables for each data set, scale and common settings in `results`.

    Args:
        results: see `results.read_results`; of a key that is there twice the last counts.
        tables: to print.
        at: which threshold, "0.5" (the paper's) or "validation" (best landslide IoU there).
    """
    groups: dict[str, list[Result]] = {}
    for result in {result["key"]: result for result in results}.values():
        same = [result[name] for name in ("data", "digest", "scale", "common")]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(result)
    if not groups:
        yield "No experiment has finished yet: examples/tables/README.md says how to run them."
        return
    chosen = "0.5" if at == "0.5" else "the one with the highest landslide IoU on validation"
    yield f"{HEAD} Landslide where the probability is at least a threshold: {chosen}."
    for group in groups.values():
        yield from _heading(group)
        for table in tables:
            yield from table_lines(table, group, at)


def _heading(group: Sequence[Result]) -> Iterator[str]:
    first = group[0]
    devices = ", ".join(sorted({result["device"] for result in group}))
    units = first["units"]
    minutes = sum(result["seconds"] for result in group) / 60
    said = ", ".join(f"{name} {value}" for name, value in first["common"].items())
    yield ""
    yield f"## {DATA.get(first['data'], first['data'])} (device: {devices}, {first['scale']})"
    yield ""
    yield (
        f"{len(group)} runs in {minutes:.0f} minutes of training; test split of "
        f"{len(units['names'])} {units['unit']}s, data {first['digest']}; {said}."
    )


def table_lines(table: Table, group: Sequence[Result], at: str) -> Iterator[str]:
    """One table: figures, then paired differences of the landslide IoU."""
    yield ""
    yield (
        f"### Table {table.name}: {table.title}"
        if table.name.isupper()
        else f"### Not in a table: {table.title}"
    )
    yield ""
    headings = [HEADINGS[metric] for metric in table.metrics]
    yield _line("method", "seeds", *headings, f"{HEADINGS[METRIC]} on validation")
    yield _line(*["---"] * (3 + len(headings)))
    for row in table.rows:
        counts = seed_counts(group, row, at)
        tested = [rates(found.sum(axis=0)) for found in counts.values()]
        figures = [
            _cell([float(values[metric]) for values in tested], row.paper.get(metric))
            for metric in table.metrics
        ]
        seen = _cell([result["validation"][VALIDATION[at]] for result in runs_of(group, row)])
        yield _line(row.label, str(len(counts) or "–"), *figures, seen)
    lines = [_difference_line(table, group, pair, at) for pair in table.differences]
    yield ""
    yield _line(
        f"difference in {HEADINGS[METRIC]}",
        "seeds",
        f"ours [{LEVEL:.0%} interval]".replace("%", " %"),
        "above 0 in",
        "the paper's",
    )
    yield _line(*["---"] * 5)
    yield from lines
    if table.note:
        yield ""
        yield table.note


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def runs_of(group: Sequence[Result], row: Row) -> list[Result]:
    """The results of that row, one for each seed."""
    return [
        result for result in group if result["settings"] == SCALES[result["scale"]].settings_of(row)
    ]


def seed_counts(group: Sequence[Result], row: Row, at: str) -> dict[int, np.ndarray]:
    """Counts (units, 4) of tp, fp, fn, tn by seed, of the runs of that row."""
    return {
        result["seed"]: np.array(result["units"]["at"][at], dtype=np.int64)
        for result in runs_of(group, row)
    }


def _cell(values: Sequence[float], paper: float | None = None) -> str:
    said = f" ({paper:.4f})" if paper is not None else ""
    if not values:
        return f"–{said}"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}{said}"


def _difference_line(table: Table, group: Sequence[Result], pair: tuple[str, str], at: str) -> str:
    rows = [table.row(label) for label in pair]
    one, other = (seed_counts(group, row, at) for row in rows)
    seeds = sorted(set(one) & set(other))
    ours, above, count = "–", "–", "–"
    if seeds:
        found = difference(
            np.stack([one[seed] for seed in seeds]), np.stack([other[seed] for seed in seeds])
        )
        ours = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        count = str(len(seeds))
        if len(seeds) > 1:  # one says nothing of what another start would give
            above = f"{found.above_zero:.1%}".replace("%", " %")
    known = all(METRIC in row.paper for row in rows)
    paper = f"{rows[0].paper[METRIC] - rows[1].paper[METRIC]:+.4f}" if known else "–"
    return _line(" − ".join(pair), count, ours.replace("-", "−"), above, paper.replace("-", "−"))


@dataclass(frozen=True)
class Difference:
    """One model's metric less another's on the same units, with its interval.

    Attributes:
        value: the difference on all units.
        low, high: ends of the interval.
        above_zero: share of the draws in which it is above 0.
    """

    value: float
    low: float
    high: float
    above_zero: float


def difference(
    one: np.ndarray,
    other: np.ndarray,
    metric: str = METRIC,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> Difference:
    """How much better `one` is than `other` in the mean over seeds, with a bootstrap interval.

    Each draw takes units (images, tiles) and seeds with replacement, the same ones for both, so
    that the interval has the chance of the test images and of the training in it.

    Args:
        one, other: counts (seeds, units, 4) of tp, fp, fn, tn, seeds and units in the same order.
        metric: see `landslide_mapper.metrics.rates`.
        draws: number of draws.
        seed: of the draws.
        level: share of the draws that lies inside the interval.

    Raises:
        ValueError: the shapes differ.
    """
    if one.shape != other.shape:
        raise ValueError(f"counts of shapes {one.shape} and {other.shape} cannot be paired")
    trained, units, _ = one.shape
    rng = np.random.default_rng(seed)
    images = rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(float)
    runs = rng.multinomial(trained, np.full(trained, 1 / trained), size=draws) / trained

    def metric_of(counts: np.ndarray) -> np.ndarray:
        return rates(np.einsum("du,suc->dsc", images, counts.astype(float)))[metric]

    drawn = ((metric_of(one) - metric_of(other)) * runs).sum(axis=1)
    low, high = np.percentile(drawn, (50 * (1 - level), 50 * (1 + level)))
    value = (rates(one.sum(axis=1))[metric] - rates(other.sum(axis=1))[metric]).mean()
    return Difference(float(value), float(low), float(high), float((drawn > 0).mean()))


@click.command()
@click.argument("results", type=click.Path(path_type=Path), default=RESULTS)
@click.option(
    "--at", type=click.Choice(THRESHOLDS), default="0.5", show_default=True, help="Threshold."
)
def main(results: Path, at: str) -> None:
    """Print the tables that RESULTS holds."""
    try:
        click.echo("\n".join(report(read_results(results), TABLES, at)))
    except LsmapError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
