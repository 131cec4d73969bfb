"""examples/tables: what is run, what is not run again, what is resumed, and what is printed."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import fakes
import numpy as np
import pytest
import rasterio
from filelock import FileLock, Timeout

from landslide_mapper.cli import train_command
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.evaluation.bootstrap import intervals
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.geo.views import Quarters
from landslide_mapper.metrics import rates
from landslide_mapper.predictors import load_predictor
from landslide_mapper.prepare import prepare
from landslide_mapper.training.history import read_log
from landslide_mapper.training.runs import plan_run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "tables"))
grid, results, run, show = map(importlib.import_module, ("grid", "results", "run", "show"))

REDUCED, FULL = grid.SCALES["reduced"], grid.SCALES["full"]
ROWS = [row for table in grid.TABLES for row in table.rows]
SMALL = {"backbone": "resnet18", "last-layer": "3", "aspp-channels": "16", "lr": "0.01"}


def experiment(**changes: Any) -> Any:
    """MRIFE on Bijie, reduced."""
    common = results.common_settings(REDUCED, "bijie", "none")
    values = {"data": "bijie", "digest": "d", "scale": "reduced", "common": common}
    values |= {"settings": row_settings("III", "MRIFE"), "seed": 0}
    return results.Experiment(**(values | changes))


def row_settings(table: str, label: str) -> dict[str, str]:
    """What is particular to a row, reduced."""
    (found,) = [one for one in grid.TABLES if one.name == table]
    return REDUCED.settings_of(found.row(label))


def finished(asked: Any, counts: list[list[int]]) -> dict[str, Any]:
    """A result with these counts of tp, fp, fn, tn."""
    return {
        "key": asked.key,
        "data": asked.data,
        "digest": asked.digest,
        "scale": asked.scale,
        "common": asked.common,
        "settings": asked.settings,
        "seed": asked.seed,
        "device": "cpu",
        "seconds": 60.0,
        "validation": {"landslide_iou": 0.5, "landslide_iou_at_threshold": 0.75},
        "units": {
            "unit": "source",
            "names": [str(n) for n in range(len(counts))],
            "at": {"0.5": counts, "validation": counts},
        },
    }


# what is run


@pytest.mark.parametrize("scale", grid.SCALES.values(), ids=lambda scale: scale.name)
def test_every_row_is_a_command_line_of_lsmap_train(scale: Any) -> None:
    for row in ROWS:
        common = results.common_settings(scale, "bijie")
        options = experiment(common=common, settings=scale.settings_of(row)).options
        given = train_command.make_context("train", ["tiles", *options]).params
        names = ("run", "config_file", "recipe", "resume", "datasets")
        paths = [given.pop(name) for name in names]
        del given["tensorboard"]
        assert plan_run(*paths, given)[1].model.arch == row.settings["arch"]


def test_rows_that_tables_share_are_run_once() -> None:
    common = results.common_settings(REDUCED, "bijie")
    planned = results.plan(grid.TABLES, "bijie", "d", REDUCED, common, (0, 1))
    assert len({one.key for one in planned}) == len(planned) == 2 * 33
    assert [one.seed for one in planned] == [0] * 33 + [1] * 33
    assert planned[0].settings == grid.BASELINE


def test_a_setting_that_the_scale_has_as_well_makes_no_other_experiment() -> None:
    common = results.common_settings(FULL, "bijie")
    assert common["unseen"] == "mirror"
    planned = results.plan(grid.TABLES, "bijie", "d", FULL, common, (0,))
    assert len({one.key for one in planned}) == len(planned) == 26


def test_a_row_may_name_what_its_network_has_else() -> None:
    table = next(table for table in grid.TABLES if table.name == "moved")
    rows = [table.row(f"MRIFE, moved, from a prior{more}") for more in ("", ", β 0.01")]
    weights = [scale.settings_of(row)["beta"] for scale in (REDUCED, FULL) for row in rows]
    assert weights == ["0.1", "0.01", "0.01", "0.01"]


def test_the_key_follows_from_all_that_matters_and_nothing_else(tmp_path: Path) -> None:
    first = experiment()
    assert first.key == experiment(settings=dict(reversed(experiment().settings.items()))).key
    common = results.common_settings(REDUCED, "bijie", str(tmp_path / "w.safetensors"))
    elsewhere = results.common_settings(REDUCED, "bijie", "/other/w.safetensors")
    assert common == elsewhere
    changes = [
        {"data": "sichuan"},
        {"digest": "e"},
        {"scale": "full"},
        {"seed": 1},
        {"settings": grid.BASELINE},
        {"common": common},
        {"common": results.common_settings(REDUCED, "bijie", "none", epochs=1)},
    ]
    keys = {experiment(**change).key for change in changes} | {first.key}
    assert len(keys) == len(changes) + 1


def test_the_command_is_one_to_type() -> None:
    command = experiment(settings=row_settings("IV", "B+M")).command
    assert command.startswith("lsmap train bijie --prior 0 --backbone resnet18")
    assert command.endswith("--no-sfce --seed 0")
    assert "--ema 0.99 --beta 0.1 " in command
    assert "--epochs 4 --weights none" in command
    command = experiment(settings=row_settings("beyond", "B, percentile")).command
    assert command.startswith("lsmap train bijie-percentile --prior 0 --backbone")
    assert "--stretch" not in command
    command = experiment(settings=row_settings("beyond", "B, from a prior")).command
    assert "--prior 0.1" in command
    assert "--prior 0 " not in command


def test_the_papers_figures_agree_with_each_other_but_for_the_known_slip() -> None:
    for row in ROWS:
        paper = row.paper
        if not paper:
            continue
        assert paper["landslide_iou"] == pytest.approx(paper["f1"] / (2 - paper["f1"]), abs=2e-4)
        if "precision" in paper:
            p, r = paper["precision"], paper["recall"]
            agrees = 2 * p * r / (p + r) == pytest.approx(paper["f1"], abs=2e-4)
            assert agrees == (row.label != "ICSSN")


def test_differences_name_rows_of_their_table() -> None:
    for table in grid.TABLES:
        for pair in table.differences:
            assert {table.row(label).label for label in pair} == set(pair)


def test_the_full_scale_wants_cuda() -> None:
    assert run.choose_scale("reduced", "cpu") is REDUCED
    assert run.choose_scale("auto", "cpu") is REDUCED
    with pytest.raises(LsmapError, match="--scale reduced"):
        run.choose_scale("full", "cpu")


def test_missing_data_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LsmapError, match="README"):
        run.choose_sets((), tmp_path, tmp_path, 256)
    with pytest.raises(LsmapError, match="images/ and masks/"):
        grid.prepare_config("bijie", tmp_path, tmp_path / "out", 256, "none")
    (tmp_path / "sichuan").mkdir()
    assert run.choose_sets((), tmp_path, tmp_path, 256) == ["sichuan"]
    assert run.choose_sets(("bijie",), tmp_path, tmp_path, 256) == ["bijie"]


# what is not run again


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    two = [experiment(seed=seed) for seed in (0, 1)]
    ran: list[int] = []

    def runner(asked: Any) -> dict[str, Any]:
        ran.append(asked.seed)
        return finished(asked, [[1, 2, 3, 4]])

    assert run.run_grid(two[:1], runner, path, tmp_path) == 0
    assert run.run_grid(two, runner, path, tmp_path) == 0
    assert ran == [0, 1]
    assert [result["seed"] for result in results.read_results(path)] == [0, 1]


def test_a_failure_leaves_its_run_out_and_an_interruption_ends_all(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    three = [experiment(seed=seed) for seed in range(3)]

    def diverges(asked: Any) -> dict[str, Any]:
        if asked.seed == 1:
            raise LsmapFailure("the loss is no longer finite")
        return finished(asked, [[1, 2, 3, 4]])

    assert run.run_grid(three, diverges, path, tmp_path) == 1
    assert [result["seed"] for result in results.read_results(path)] == [0, 2]

    def stopped(asked: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run_grid(three, stopped, path, tmp_path)
    assert len(results.read_results(path)) == 2


def test_what_another_process_runs_is_left_to_it(tmp_path: Path) -> None:
    path, asked = tmp_path / "results.jsonl", experiment()
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / asked.key):
        assert run.run_grid([asked], pytest.fail, path, tmp_path) == 0
    assert not path.exists()


def test_an_experiment_is_locked_until_its_result_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "results.jsonl", experiment()

    def append(*given: Any) -> None:
        with pytest.raises(Timeout):
            FileLock(tmp_path / "locks" / asked.key, timeout=0).acquire()
        results.append_result(*given)

    monkeypatch.setattr(run, "append_result", append)
    assert run.run_grid([asked], lambda it: finished(it, [[1, 2, 3, 4]]), path, tmp_path) == 0
    assert len(results.read_results(path)) == 1


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results.append_result(path, {"key": "a"})
    path.write_text(path.read_text() + "[1]\n")
    with pytest.raises(LsmapError, match="line 2"):
        results.read_results(path)


# statistics


def test_one_seed_gives_the_interval_of_evaluate() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 100, (2, 40, 4))

    def less(sums: np.ndarray) -> dict[str, np.ndarray]:
        first, second = (rates(part)["landslide_iou"] for part in np.split(sums, 2, axis=-1))
        return {"less": first - second}

    both = np.concatenate([one, other], axis=1)
    found = show.difference(one[None], other[None])
    assert found.value == pytest.approx(less(both.sum(axis=0))["less"], abs=1e-12)
    assert (found.low, found.high) == pytest.approx(intervals(both, less)["less"], abs=1e-12)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    one = np.random.default_rng(2).integers(20, 400, (60, 4))
    other = one.copy()
    moved = one[:, 0] // 20  # a twentieth of what is found is lost, everywhere
    other[:, 0] -= moved
    other[:, 2] += moved
    found = show.difference(one[None], other[None])
    assert 0 < found.low < found.value < found.high
    assert found.above_zero == 1
    low, high = intervals(one)["landslide_iou"]
    assert found.high - found.low < 0.2 * (high - low)
    same = show.difference(one[None], one[None])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="cannot be paired"):
        show.difference(one[None], one[None, 1:])


def test_the_difference_is_the_mean_over_seeds_and_its_interval_knows_their_spread() -> None:
    rng = np.random.default_rng(2)
    base = rng.integers(1, 100, (60, 4))
    spread = np.stack([base * [1, 1, 1, 1], base * [3, 1, 1, 1], base * [2, 1, 1, 1]])
    other = np.stack([base] * 3)
    found = show.difference(spread, other)
    by_hand = [
        rates(one.sum(axis=0))["landslide_iou"] - rates(two.sum(axis=0))["landslide_iou"]
        for one, two in zip(spread, other, strict=True)
    ]
    assert found.value == pytest.approx(np.mean(by_hand))
    narrow = show.difference(spread[2:], other[2:])
    assert found.high - found.low > narrow.high - narrow.low
    assert show.difference(other, other).value == 0


def test_counts_of_other_units_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="paired"):
        show.difference(np.ones((1, 3, 4)), np.ones((1, 4, 4)))


# what is printed


def printed(*found: dict[str, Any], only: str = "III") -> str:
    """The tables of these results."""
    tables = [table for table in grid.TABLES if table.name == only]
    return "\n".join(show.report(found, tables, "0.5"))


def test_figures_stand_beside_the_papers_with_their_spread() -> None:
    mrife = [
        finished(experiment(seed=seed), [[tp, 10, 10, 100]] * 10)
        for seed, tp in enumerate((20, 40))
    ]
    baseline = finished(experiment(settings=grid.BASELINE), [[10, 10, 10, 100]] * 10)
    said = printed(*mrife, baseline)
    assert "## Bijie (device: cpu, reduced)" in said
    assert "3 runs in 3 minutes" in said
    # IoU 20/40 and 40/60: mean 0.5833, standard deviation 0.1179
    assert "| MRIFE | 2 |" in said
    assert "0.5833 ± 0.1179 (0.3934)" in said
    assert "0.3333 (0.3381)" in said
    # The difference is of the seed that both have; all units are alike, so it does not vary.
    assert (
        "| MRIFE − Baseline (DeepLabV3+) | 1 | +0.1667 [+0.1667, +0.1667] | – | +0.0553 |" in said
    )
    assert "| ICSSN | – | – (0.9493)" in said
    assert "| MRIFE − ICSSN | – | – | – | +0.0191 |" in said


def test_other_data_scales_and_settings_are_not_mixed() -> None:
    shorter = results.common_settings(REDUCED, "bijie", "none", epochs=1)
    counts = [[1, 1, 1, 1]]
    said = printed(
        finished(experiment(), counts),
        finished(experiment(digest="e"), counts),
        finished(experiment(common=shorter), counts),
        finished(experiment(data="sichuan"), counts),
    )
    assert said.count("| MRIFE | 1 |") == 4
    assert said.count("## Bijie") == 3
    assert "epochs 1, weights none" in said


def test_a_key_that_is_there_twice_counts_once() -> None:
    said = printed(
        finished(experiment(), [[1, 1, 1, 1]]), finished(experiment(), [[8, 1, 1, 1]]), only="V"
    )
    assert "| 8 × 8 | 1 | 0.8000 (0.3934)" in said


def test_no_results_say_so() -> None:
    assert "No experiment" in printed()


# all of it, small


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten images of 64 pixels with masks, and a split file, as ``--data`` wants them."""
    folder = tmp_path / "data" / "bijie"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = []
    for number in range(10):
        mask = fakes.blobs(number, (64, 64)) if number % 5 else np.zeros((64, 64), bool)
        for name, bands in (("images", [mask * 99 + 77] * 3), ("masks", [mask * 255])):
            values = np.array(bands, dtype=np.uint8)
            options = {"height": 64, "width": 64, "count": len(bands), "dtype": "uint8"}
            path = folder / name / f"i{number}.png"
            with rasterio.open(path, "w", driver="PNG", **options) as out:
                out.write(values)
        rows.append([f"i{number}", ("train", "train", "train", "val", "test")[number // 2]])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["stem", "split"], *rows])
    return folder.parent


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rows_are_trained_on_tiles_with_their_stretch(images: Path, tmp_path: Path) -> None:
    for label, rule, name in (
        ("B", "equalize", "bijie-64"),
        ("B, percentile", "percentile", "bijie-64-percentile"),
    ):
        stretch = experiment(settings=row_settings("beyond", label)).stretch
        folder = run.prepared("bijie", images / "bijie", tmp_path / "work", 64, stretch)
        assert folder.name == name
        assert load_dataset(folder).radiometry_rule == rule


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_an_interrupted_run_goes_on_and_its_result_is_free_of_paths(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles, folder, path = tmp_path / "tiles", tmp_path / "run", tmp_path / "results.jsonl"
    prepare(grid.prepare_config("bijie", images / "bijie", tiles, 64, "equalize"))
    digest = load_dataset(tiles).digest
    scale = replace(REDUCED, settings=SMALL, epochs={"bijie": 3})
    common = results.common_settings(scale, "bijie", "none")
    asked = experiment(common=common, settings={"fusion": "concat"}, digest=digest)
    machine = {"device": "cpu", "workers": "0"}

    def runner(wanted: Any) -> Any:
        return run.run_experiment(wanted, tiles, folder, "none", machine)

    module = importlib.import_module("landslide_mapper.train")
    monkeypatch.setattr(module, "validate", stops_after(1, module.validate))
    with pytest.raises(click.Abort):  # what click makes of Ctrl-C in lsmap train
        run.run_grid([asked], runner, path, tmp_path)
    first = read_log(folder / "log.csv")
    assert len(first) == 1
    assert not path.exists()

    monkeypatch.undo()
    monkeypatch.setattr(run, "load_predictor", stops_after(0, run.load_predictor))
    with pytest.raises(KeyboardInterrupt):  # trained, but not evaluated
        run.run_grid([asked], runner, path, tmp_path)
    monkeypatch.undo()
    assert run.run_grid([asked], runner, path, tmp_path) == 0
    assert read_log(folder / "log.csv")[:1] == first

    (result,) = results.read_results(path)
    assert str(tmp_path) not in json.dumps(result)
    assert (result["epochs"], result["device"], result["digest"]) == (3, "cpu", digest)
    assert result["config"]["model"]["fusion"] == "concat"
    assert [at["origin"] for at in result["test"]["at"]] == ["given", "validation"]
    counts = np.array(result["units"]["at"]["0.5"])
    assert len(counts) == len(result["units"]["names"]) == 2
    assert counts.sum() == 2 * 64 * 64
    iou = rates(counts.sum(axis=0))["landslide_iou"]
    assert result["test"]["at"][0]["pixels"]["landslide_iou"] == pytest.approx(float(iou))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rows_that_move_tiles_are_measured_off_the_middle(images: Path, tmp_path: Path) -> None:
    tiles, folder = tmp_path / "tiles", tmp_path / "run"
    prepare(grid.prepare_config("bijie", images / "bijie", tiles, 64, "equalize"))
    scale = replace(REDUCED, settings=SMALL, epochs={"bijie": 1})
    common = results.common_settings(scale, "bijie", "none")
    asked = experiment(common=common, settings=row_settings("moved", "B, moved"))
    found = run.run_experiment(asked, tiles, folder, "none", {"device": "cpu", "workers": "0"})
    predict, info = load_predictor(folder / "best.safetensors", "cpu")
    threshold = found["test"]["at"][0]["threshold"]
    counts = {
        moved: evaluate_dataset(
            Quarters(predict) if moved else predict, info, load_dataset(tiles), "test", threshold
        )
        for moved in (False, True)
    }
    assert found["units"] == run.unit_counts(counts[True]) != run.unit_counts(counts[False])


def stops_after(calls: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, interrupted when it is called once more than `calls` times."""
    left = [calls]

    def stopping(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return function(*arguments, **options)

    return stopping


def test_weights_of_a_run_that_was_killed_in_its_first_epoch_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(run.train_command, "main", lambda options, **_: asked.append(options))
    folder, machine = tmp_path / "run", {"device": "cpu", "workers": "0"}
    folder.mkdir()
    (folder / "best.safetensors").touch()
    run.train(experiment(), tmp_path / "tiles", folder, "/w/start.safetensors", machine)
    assert not (folder / "best.safetensors").exists()
    (folder / "last.pt").touch()
    run.train(experiment(), tmp_path / "tiles", folder, "/w/start.safetensors", machine)
    new, resumed = asked
    assert new[0] == str(tmp_path / "tiles")
    context = train_command.make_context("train", new)
    assert context.params["weights"] == "/w/start.safetensors"  # the last one counts
    assert resumed == ["--output", str(folder), "--device", "cpu", "--workers", "0", "--resume"]
