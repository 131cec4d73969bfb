"""Final fits: a run once more, on its validation tiles as well."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import torch._dynamo
from running import QUICK, run

from landslide_mapper.checkpoint import read_info
from landslide_mapper.config import (
    read_train_config,
)
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.training.history import read_log
from landslide_mapper.training.loaders import load_datasets, make_loaders
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.runs import plan_run


def test_a_final_fit_learns_validation_and_keeps_what_was_chosen(
    dataset: Path, tmp_path: Path
) -> None:
    chosen, whole, parts = tmp_path / "chosen", tmp_path / "whole", tmp_path / "parts"
    run("train", dataset, "-o", chosen, *QUICK, "--epochs", 2, "--seed", 5)
    before = read_info(chosen / "best.safetensors")
    output = run("train", "--final", chosen, "-o", whole, "--epochs", 2)
    assert "training and validation tiles" in output
    assert "only the test split" in output
    moved = shutil.copytree(chosen, tmp_path / "moved")
    run("train", "--final", moved, "-o", parts, "--epochs", 1)
    shutil.rmtree(moved)  # what it chose is in the new run
    run("train", "--resume", "-o", parts, "--epochs", 2)
    first, second = (torch.load(path / "last.pt", weights_only=True) for path in (whole, parts))
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key]), key

    config = read_train_config(whole / "config.json")
    assert config == replace(read_train_config(chosen / "config.json"), final=str(chosen), epochs=2)
    batches, training, validation = make_loaders(
        config, load_datasets(config), Process(0, 1, torch.device("cpu"))
    )
    tiles = load_dataset(dataset)
    assert training.dataset.tiles == [*tiles.split("train"), *tiles.split("val")]  # type: ignore[attr-defined]
    assert len(batches.positives) + len(batches.negatives) == len(training.dataset)  # type: ignore[arg-type]
    assert len(validation.loader) == 0

    after = read_info(whole / "best.safetensors")
    assert (after.threshold, after.calibration) == (before.threshold, before.calibration)
    assert (after.epoch, after.final, after.metrics) == (2, True, {})
    assert "with validation, after chosen" in after.data
    assert "landslide_iou" not in read_log(whole / "log.csv")[0]
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "validation is trained on as well" in run("info", whole)
    # The epochs of the best of the run before, unless others are asked for.
    assert plan_run(None, None, None, False, (), {}, chosen)[1].epochs == before.epoch
    assert "name that one" in run("train", "--final", whole, "-o", tmp_path / "more", code=2)
    output = run("train", "--final", chosen, "-o", tmp_path / "more", "--lr", 1, code=2)
    assert "keeps the run's settings" in output

    report = tmp_path / "report"
    run("evaluate", whole, dataset, "-o", report)
    assert len(json.loads((report / "metrics.json").read_text())["at"]) == 1  # nothing is tuned
    output = run("evaluate", whole, dataset, "-o", tmp_path / "val", "--split", "val")
    assert "trained on validation" in output


def test_a_run_after_a_final_fit_has_learnt_validation_too(dataset: Path, tmp_path: Path) -> None:
    chosen, whole, after = tmp_path / "chosen", tmp_path / "whole", tmp_path / "after"
    run("train", dataset, "-o", chosen, *QUICK, "--epochs", 1)
    run("train", "--final", chosen, "-o", whole)
    on = ["--workers", 0, "--device", "cpu", "--batch-size", 8, "--epochs", 1]
    warned = "was trained on the validation tiles"
    assert warned not in run("train", dataset, "-o", tmp_path / "b", *on, "--weights", chosen)
    assert warned in run("train", dataset, "-o", after, *on, "--weights", whole)
    run("evaluate", after, dataset, "-o", tmp_path / "report")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert len(metrics["at"]) == 1  # nothing is tuned
    output = run("evaluate", after, dataset, "-o", tmp_path / "val", "--split", "val")
    assert "trained on validation" in output


def test_a_final_fit_of_few_epochs_has_a_short_warm_up(dataset: Path, tmp_path: Path) -> None:
    options = [*QUICK, "--epochs", 2, "--warmup", 2, "--lr", 1e-6]
    run("train", dataset, "-o", tmp_path / "run", *options)
    config = plan_run(None, None, None, False, (), {"epochs": 1}, tmp_path / "run")[1]
    assert (config.epochs, config.warmup) == (1, 1.0)
