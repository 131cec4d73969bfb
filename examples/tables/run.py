"""Run or resume the experiments behind Tables III–VI, and print the tables.

    python examples/tables/run.py --data DATA                  # all; full with CUDA, else reduced
    python examples/tables/run.py --data DATA --only III --set bijie --seeds 0
    python examples/tables/run.py --print                      # only print what is there

Each finished experiment is a line of results.jsonl and is not run again; one that was interrupted
goes on after its last finished epoch. Several processes (one per GPU, say) may share the work.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout
from grid import DATA, SCALES, TABLES, Scale, Table, prepare_config
from results import (
    Experiment,
    Result,
    append_result,
    common_settings,
    options,
    plan,
    read_results,
    tiles_name,
)
from show import RESULTS, THRESHOLDS, report

from landslide_mapper import __version__
from landslide_mapper.checkpoint import BEST, LOG
from landslide_mapper.cli import train_command
from landslide_mapper.config import to_dict
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.device import choose_device
from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.evaluation.result import Evaluation
from landslide_mapper.geo.views import Quarters
from landslide_mapper.nn.calibration import Calibration
from landslide_mapper.predictors import load_predictor
from landslide_mapper.prepare import prepare
from landslide_mapper.training.history import best_row, read_log
from landslide_mapper.training.runs import STATE, settings_of

Runner = Callable[[Experiment], Result]

ROOT = Path(__file__).resolve().parents[2]
PAPER_THRESHOLD = 0.5  # two classes and the likelier one; of the network as it was trained


def run_grid(experiments: Sequence[Experiment], runner: Runner, results: Path, work: Path) -> int:
    """Run what `results` lacks, one after the other.

    Args:
        experiments: in the order in which they are wanted.
        runner: trains and evaluates one; `LsmapError` from it leaves that one out.
        results: file that finished ones are appended to.
        work: folder for the locks that keep several processes from doing the same one.

    Returns:
        How many failed.
    """
    failed = 0
    (work / "locks").mkdir(parents=True, exist_ok=True)
    for number, experiment in enumerate(experiments, start=1):
        said = f"[{number}/{len(experiments)}] {experiment.key} {experiment.command}"
        try:
            with FileLock(work / "locks" / experiment.key, timeout=0):
                if any(result["key"] == experiment.key for result in read_results(results)):
                    click.echo(f"{said}\n  is in {results.name}", err=True)
                    continue
                click.echo(said, err=True)
                result = runner(experiment)
                # Before another process may take the experiment, it must see that it is there.
                with FileLock(work / "locks" / "results"):
                    append_result(results, result)
        except Timeout:
            click.echo(f"{said}\n  is being run by another process", err=True)
        except LsmapError as error:
            click.echo(f"{said}\n  failed: {error}", err=True)
            failed += 1
    return failed


def run_experiment(
    experiment: Experiment, dataset: Path, run: Path, weights: str, machine: dict[str, str]
) -> Result:
    """Train, or go on training, then evaluate on the test split; off the middle of tiles where
    training has moved them (``lsmap evaluate --moved``).

    Args:
        experiment: what to run.
        dataset: the prepared data set.
        run: folder of the run.
        weights: as ``lsmap train --weights`` takes it.
        machine: ``device`` and ``workers`` of ``lsmap train``.

    Raises:
        LsmapError: see `landslide_mapper.train.train` and `evaluate_dataset`.
    """
    train(experiment, dataset, run, weights, machine)
    predict, info = load_predictor(run / BEST, machine["device"])
    if settings_of(run).shift:
        predict = Quarters(predict)
    threshold = Calibration(*info.calibration)(PAPER_THRESHOLD)
    found = evaluate_dataset(predict, info, load_dataset(dataset), "test", threshold)
    return describe(experiment, run, found, machine["device"])


def train(
    experiment: Experiment, dataset: Path, run: Path, weights: str, machine: dict[str, str]
) -> None:
    """``lsmap train`` with the experiment's options, resumed where there is a saved state."""
    arguments = ["--output", str(run), *options(machine)]
    if (run / STATE).is_file():
        arguments.append("--resume")
    else:
        # Killed in the first epoch: weights without a state cannot be resumed.
        (run / BEST).unlink(missing_ok=True)
        arguments = [str(dataset), *experiment.options, "--weights", weights, *arguments]
    train_command.main(arguments, standalone_mode=False)


def describe(experiment: Experiment, run: Path, found: Evaluation, device: str) -> Result:
    """A line of the results: nothing in it depends on where files lie."""
    log = read_log(run / LOG)
    best = best_row(log)
    config = to_dict(settings_of(run))
    config |= {"datasets": [experiment.data], "weights": experiment.common["weights"]}
    values = found.to_dict()
    kept = ("split", "bootstrap", "average_precision", "calibration")
    at = [{k: v for k, v in entry.items() if k != "tiles"} for entry in values["at"]]
    return {
        "key": experiment.key,
        "data": experiment.data,
        "digest": experiment.digest,
        "scale": experiment.scale,
        "device": device_name(device),
        "seed": experiment.seed,
        "settings": dict(experiment.settings),
        "common": dict(experiment.common),
        "command": experiment.command,
        "config": config,
        "revision": revision(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "epochs": len(log),
        "seconds": round(sum(row["seconds"] for row in log), 1),
        "validation": {name: value for name, value in best.items() if not math.isnan(value)},
        "test": {name: values[name] for name in kept} | {"at": at},
        "units": unit_counts(found),
    }


def unit_counts(found: Evaluation) -> dict[str, Any]:
    """Counts of tp, fp, fn, tn of each image or tile: what a paired bootstrap needs."""
    names, _ = found.units(found.at[0])
    counts = [found.units(at)[1].tolist() for at in found.at]
    return {
        "unit": found.unit,
        "names": list(names),
        "at": dict(zip(THRESHOLDS, counts, strict=True)),
    }


def device_name(device: str) -> str:
    """``cpu``, or what the GPU is called."""
    import torch

    chosen = choose_device(device)
    return "cpu" if chosen.type == "cpu" else torch.cuda.get_device_name(chosen)


def versions() -> dict[str, str]:
    """What the result was made with."""
    import torch

    return {"lsmap": __version__, "torch": torch.__version__}


def revision() -> str | None:
    """The commit that is checked out, with "+" when the package differs from it; None outside."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "landslide_mapper")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def choose_scale(name: str, device: str) -> Scale:
    """The scale of that name; ``auto`` is full with CUDA, else reduced.

    Raises:
        LsmapError: the full scale was asked for without CUDA, where it would take weeks.
    """
    cuda = choose_device(device).type == "cuda"
    if name == "full" and not cuda:
        raise LsmapError("--scale full needs a CUDA GPU; on a CPU use --scale reduced")
    return SCALES[("full" if cuda else "reduced") if name == "auto" else name]


def prepared(name: str, raw: Path, work: Path, tile_size: int, stretch: str) -> Path:
    """Folder of the tiles of a public data set, made when it is not there yet."""
    folder = work / "data" / tiles_name(f"{name}-{tile_size}", stretch)
    for needed in (folder.parent, work / "locks"):
        needed.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "locks" / folder.name):  # of several processes one makes them
        if not folder.exists():
            said = prepare(prepare_config(name, raw, folder, tile_size, stretch))
            click.echo("\n".join(said.lines()), err=True)
    return folder


def choose_sets(asked: Sequence[str], data: Path, work: Path, tile_size: int) -> list[str]:
    """The data sets that were asked for, else those that are there.

    Raises:
        LsmapError: none is there.
    """
    places = {name: (data / name, work / "data" / f"{name}-{tile_size}") for name in DATA}
    there = [name for name, folders in places.items() if any(map(Path.is_dir, folders))]
    if not asked and not there:
        raise LsmapError(
            f"{data}: no folder {' or '.join(DATA)} is there; examples/bijie/README.md and "
            "examples/sichuan/README.md say how to get the data, --data where they are"
        )
    return list(asked) or there


def chosen_rows(tables: Sequence[Table], labels: Sequence[str]) -> list[Table]:
    """The tables with only the rows of these labels; all rows where none is given.

    Raises:
        LsmapError: no table has a row of that label.
    """
    known = {row.label for table in tables for row in table.rows}
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise LsmapError(f"--row {unknown[0]}: the rows are {'; '.join(sorted(known))}")
    return [
        replace(table, rows=tuple(row for row in table.rows if not labels or row.label in labels))
        for table in tables
    ]


def _only(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(table.name for table in TABLES)
    asked = tuple(part.strip() for part in value.split(",")) if value else names
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: give some of {','.join(names)}")
    return asked


def _seeds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    try:
        return tuple(int(part) for part in value.split(",")) if value else None
    except ValueError:
        raise click.BadParameter("give numbers with commas between, e.g. 0,1,2") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option(
    "--set", "sets", multiple=True, type=click.Choice(list(DATA)), help="[default: all that exist]"
)
@click.option("--scale", type=click.Choice(["auto", *SCALES]), default="auto", show_default=True)
@click.option("--only", callback=_only, help="Tables, e.g. III,IV.  [default: all]")
@click.option("--row", "labels", multiple=True, help="Rows to run, e.g. B+M.  [default: all]")
@click.option("--seeds", callback=_seeds, help="E.g. 0,1,2.  [default: those of the scale]")
@click.option("--epochs", type=click.IntRange(1), help="Others than those of the scale.")
@click.option("--weights", default="imagenet", show_default=True, help="As in lsmap train.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=int, help="Processes that read tiles.  [default: the scale's]")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="[default: beside this]"
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("runs/tables"),
    show_default=True,
    help="Folder for tiles and unfinished runs.",
)
@click.option("--at", type=click.Choice(THRESHOLDS), default="0.5", show_default=True)
@click.option("--print", "only_print", is_flag=True, help="Run nothing.")
def main(
    only: tuple[str, ...],
    labels: tuple[str, ...],
    results: Path,
    at: str,
    only_print: bool,
    **asked: Any,
) -> None:
    """Run or resume the experiments behind Tables III–VI, and print the tables."""
    tables = [table for table in TABLES if table.name in only]
    try:
        failed = 0 if only_print else _run(chosen_rows(tables, labels), results, **asked)
        click.echo("\n".join(report(read_results(results), tables, at)))
    except LsmapError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    if failed:
        raise click.ClickException(f"{failed} experiments failed, see above")


def _run(
    tables: Sequence[Table],
    results: Path,
    data: Path,
    sets: Sequence[str],
    scale: str,
    seeds: Sequence[int] | None,
    epochs: int | None,
    weights: str,
    device: str,
    workers: int | None,
    work: Path,
) -> int:
    size = choose_scale(scale, device)
    machine = {"device": device, "workers": str(size.workers if workers is None else workers)}
    failed = 0
    for name in choose_sets(sets, data, work, size.tile_size):
        tiles = partial(prepared, name, data / name, work, size.tile_size)
        common = common_settings(size, name, weights, epochs)
        digest = load_dataset(tiles(PrepareConfig.stretch)).digest
        experiments = plan(tables, name, digest, size, common, seeds or size.seeds)

        def runner(experiment: Experiment, tiles: Callable[[str], Path] = tiles) -> Result:
            dataset = tiles(experiment.stretch)
            run = work / "runs" / f"{experiment.data}-{experiment.scale}-{experiment.key}"
            return run_experiment(experiment, dataset, run, weights, machine)

        failed += run_grid(experiments, runner, results, work)
    return failed


if __name__ == "__main__":
    main()
