"""Folders of runs: which one is meant, what goes into it, and what it is kept from."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo
from running import QUICK, run

from landslide_mapper.checkpoint import read_info
from landslide_mapper.config import (
    ModelConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.data.together import check_splits
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.prepare import PrepareConfig, prepare
from landslide_mapper.shell import command_line
from landslide_mapper.staging import only_one
from landslide_mapper.training.history import read_log
from landslide_mapper.training.runs import plan_run, saving


def test_config_json_repeats_the_run(dataset: Path, tmp_path: Path) -> None:
    run("train", dataset, "-o", tmp_path / "a", *QUICK, "--epochs", 1, "--seed", 5)
    config = tmp_path / "a" / "config.json"
    run("train", "-o", tmp_path / "b", "--config", config)
    first, second = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in "ab")
    assert all(torch.equal(first["model"][key], second["model"][key]) for key in first["model"])
    values = json.loads(config.read_text())
    assert from_dict(TrainConfig, values).seed == 5
    assert values["model"]["backbone"] == "resnet18"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere"], "lsmap prepare"),
        (["--resume", "-o", "nowhere"], "nowhere: is no run"),
        (["--resume"], "no run under"),
        (["--config", "nowhere.json"], "cannot read the configuration"),
        (["--batch-size", "3"], "even"),
        (["--seed", "-1"], "seed is -1"),
        (["--optimizer", "adamw", "--momentum", "1"], "momentum is 1.0"),
        (["--resume", "--lr", "1"], "keeps the run's settings"),
        (["--final", "nowhere"], "nowhere: is no run"),
        (["--final", "nowhere", "--resume"], "give one of them"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = run("train", *arguments, code=2)
    assert part in output
    assert len(output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_with_its_own_tiles_only(dataset: Path, tmp_path: Path) -> None:
    folder, copy = tmp_path / "run", shutil.copytree(dataset, tmp_path / "dataset")
    run("train", copy, "-o", folder, *QUICK, "--epochs", 1)
    moved = copy.rename(tmp_path / "elsewhere")
    moved.rename(copy)
    with sqlite3.connect(copy / "tiles.gpkg") as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f'DROP TRIGGER "{name}"')  # they need functions that GDAL has
        database.execute("UPDATE tiles SET split = 'test' WHERE split = 'train' AND fid % 7 = 0")
    before = (folder / "last.pt").read_bytes()
    output = run("train", "--resume", "-o", folder, "--epochs", 2, code=2)
    assert "not the tiles" in output
    assert (folder / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"), [("aspp_channels", 64), ("optimizer", "adamw"), ("average", 0.9)]
)
def test_a_run_goes_on_with_its_own_settings_only(
    name: str, value: object, dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run("train", dataset, "-o", folder, *QUICK, "--epochs", 1)
    config = json.loads((folder / "config.json").read_text())
    (config if name in config else config["model"])[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    output = run("train", "--resume", "-o", folder, "--epochs", 2, code=2)
    assert "is not the state of the network and the optimiser" in output
    assert len(output.strip().splitlines()) == 1


def test_a_run_that_is_older_than_a_setting_goes_on_as_it_began(tmp_path: Path) -> None:
    """Its network got the mean colour. A file of settings for a new run means the defaults."""
    values = to_dict(TrainConfig())
    del values["model"]["unseen"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    resumed = plan_run(tmp_path, None, None, True, (), {})[1]
    final = plan_run(None, None, None, False, (), {"epochs": 1}, tmp_path)[1]
    new = plan_run(None, file, None, False, (), {})[1]
    assert [one.model.unseen for one in (resumed, final, new)] == ["mean", "mean", "mirror"]


@pytest.mark.parametrize("state", [{"state_dict": {}}, torch.ones(2)])
def test_a_state_of_another_program_is_told(state: object, dataset: Path, tmp_path: Path) -> None:
    config = TrainConfig((str(dataset),), device="cpu", model=ModelConfig(backbone="resnet18"))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    torch.save(state, tmp_path / "last.pt")
    output = run("train", "--resume", "-o", tmp_path, code=2)
    assert "is no state of a run of lsmap" in output


def test_a_reader_that_dies_is_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_tiles: TileDataset, _index: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(TileDataset, "__getitem__", dies)
    output = run("train", dataset, "-o", tmp_path / "run", *QUICK, "--workers", 1, code=1)
    assert "Error: a process that reads tiles has died" in output


def test_a_run_does_not_shrink(dataset: Path, tmp_path: Path) -> None:
    run("train", dataset, "-o", tmp_path / "run", *QUICK, "--epochs", 2)
    before = (tmp_path / "run" / "config.json").read_bytes()
    output = run("train", "--resume", "-o", tmp_path / "run", "--epochs", 1, code=2)
    assert "2 epochs already" in output
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_weights_without_a_state_are_not_offered_to_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"precious")  # killed before the first state
    output = run("train", "-o", tmp_path, code=2)
    assert "give another -o" in output
    assert "--resume" not in output


def test_an_existing_run_is_kept(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"precious")
    output = run("train", dataset, "-o", tmp_path, *QUICK, "--epochs", 1, code=2)
    assert "--resume" in output
    assert (tmp_path / "last.pt").read_bytes() == b"precious"
    output = run("train", "--resume", "-o", tmp_path, code=2)
    assert "is no run" in output


def test_new_runs_are_numbered(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mrife-resnet18-1").mkdir(parents=True)
    run("train", dataset.resolve(), *QUICK, "--epochs", 1)
    assert (tmp_path / "runs" / "mrife-resnet18-2" / "best.safetensors").is_file()
    run("train", "--resume", "--epochs", 2)
    assert len(read_log(tmp_path / "runs" / "mrife-resnet18-2" / "log.csv")) == 2


def test_a_data_set_that_was_prepared_anew_is_noticed(
    tmp_path: Path, train_scenes: list[Path], train_labels: Path
) -> None:
    folder = tmp_path / "d"
    tiles = [*train_scenes, train_labels, "-o", folder, "--tile-size", 128, "--workers", 1]
    run("prepare", *tiles)
    run("train", folder, "-o", tmp_path / "run", *QUICK, "--epochs", 1)
    warned = "is not the data set of this name"
    assert warned not in run("evaluate", tmp_path / "run", folder, "-o", tmp_path / "e1")
    run("prepare", *tiles, "--seed", 7, "--overwrite")
    assert warned in run("evaluate", tmp_path / "run", folder, "-o", tmp_path / "e2")
    final = ["train", "--final", tmp_path / "run", "-o", tmp_path / "final"]
    assert "these are not the tiles" in run(*final, code=2)

    # A run that goes on from there has learnt those tiles, and says so after it was resumed too.
    on = ["--workers", 0, "--device", "cpu", "--batch-size", 8, "--weights", tmp_path / "run"]
    assert warned in run("train", folder, "-o", tmp_path / "on", *on, "--epochs", 1)
    shutil.rmtree(tmp_path / "run")
    run("train", "--resume", "-o", tmp_path / "on", "--epochs", 2)
    assert len(torch.load(tmp_path / "on" / "last.pt", weights_only=True)["learnt"]) == 1
    assert warned in run("evaluate", tmp_path / "on", folder, "-o", tmp_path / "e3")


def test_two_runs_do_not_share_a_folder(dataset: Path, tmp_path: Path) -> None:
    with only_one(tmp_path / "run", "training"):
        output = run("train", dataset, "-o", tmp_path / "run", *QUICK, "--epochs", 1, code=2)
    assert "another lsmap is training this" in output
    with only_one(tmp_path / "d", "making"), pytest.raises(LsmapError, match="is making this"):
        prepare(PrepareConfig(tmp_path / "d", scenes=("a.tif",), labels="b.gpkg"))
    with only_one(tmp_path / "new" / "run", "training"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()


def test_data_sets_of_one_name_are_told_apart(dataset: Path, tmp_path: Path) -> None:
    other = shutil.copytree(dataset, tmp_path / "other" / dataset.name)
    run("train", dataset, other, "-o", tmp_path / "run", *QUICK, "--epochs", 1)
    digest = load_dataset(dataset).digest
    found = read_info(tmp_path / "run" / "best.safetensors").digests
    assert found == {dataset.name: digest, f"{dataset.name}~2": digest}
    run("train", "--final", tmp_path / "run", "-o", tmp_path / "final")
    said = run("evaluate", tmp_path / "run", other, "-o", tmp_path / "out")
    assert "not the data set" not in said


def test_splits_that_contradict_each_other_are_refused(
    dataset: Path, tmp_path: Path, train_scenes: list[Path], train_labels: Path
) -> None:
    again = tmp_path / "again"
    tiles = ["--tile-size", 128, "--workers", 1]
    run("prepare", *train_scenes, train_labels, "-o", again, "--seed", 7, *tiles)
    output = run("train", dataset, again, "-o", tmp_path / "run", *QUICK, "--epochs", 1, code=2)
    assert "in different splits of them" in output
    check_splits([load_dataset(dataset), load_dataset(dataset)])
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_the_extra_is_named_before_a_run_begins(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    given = ["train", dataset, "-o", tmp_path / "run", *QUICK, "--epochs", 1, "--tensorboard"]
    assert "pip install 'lsmap[tensorboard]'" in run(*given, code=2)
    assert not (tmp_path / "run").exists()


def test_how_a_run_in_a_folder_with_spaces_goes_on_can_be_typed(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "last.pt").touch()
    with pytest.raises(LsmapFailure) as caught, saving(folder):
        raise OSError(errno.ENOSPC, "no space left")
    assert str(caught.value).endswith(command_line("lsmap", "train", "--resume", "-o", str(folder)))
