"""Model files, and which model is taken."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from landslide_mapper import checkpoint
from landslide_mapper.checkpoint import (
    Learnt,
    ModelInfo,
    find_model,
    read_info,
    save_model,
)
from landslide_mapper.config import ARCHITECTURES, ModelConfig
from landslide_mapper.data.manifest import Dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.learnt import digests_of, learnt_another, learnt_validation
from landslide_mapper.nn.build import build
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.predictors import load_predictor

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))
INFO = ModelInfo("test", SMALL, (1, 2, 3), "equalize", 64, 0.5, 0.4, {"f1": 0.5}, "none")


def model() -> MRIFE:
    torch.manual_seed(0)
    network = MRIFE(SMALL)
    with torch.no_grad():  # a teacher that has gone its own way
        for parameter in network.teacher.parameters():
            parameter.mul_(1.1)
    return network


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_predicts_as_before(tmp_path: Path, half: bool) -> None:
    network = model().eval()
    path = tmp_path / "model.safetensors"
    save_model(network, INFO, path, half)
    predict, info = load_predictor(path, "cpu")
    assert info == INFO
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(images))).numpy()
    found = predict(images)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < (5e-3 if half else 1e-5)
    assert not any(name.startswith("student.") for name in load_file(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"note": "new"},
        {"threshold": None},
        {"threshold": "0.5"},
        {"threshold": 50},
        {"model": 3},
        {"bands": [1, 2]},
        {"bands": [0, 1, 2]},
        {"radiometry": "linear"},
        {"tile_size": "64"},
        {"gsd": -0.5},
        {"calibration": [0.0, 1.0]},
        {"calibration": [1.0, float("nan")]},
        "{",
    ],
)
def test_a_header_that_cannot_be_read_is_one_line(change: object, tmp_path: Path) -> None:
    header = INFO.to_metadata()["lsmap"]
    if isinstance(change, dict):
        values = json.loads(header) | change
        values = {name: value for name, value in values.items() if value is not None}
        header = json.dumps(values)
    else:
        header = str(change)
    path = tmp_path / "m.safetensors"
    save_file({"nothing": torch.zeros(1)}, path, metadata={"lsmap": header})
    with pytest.raises(LsmapError, match="damaged or of another version") as caught:
        read_info(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"arch": arch} for arch in ARCHITECTURES] + [{"distillation": False}, {"fusion": "concat"}],
)
def test_a_model_of_any_architecture_predicts_as_before(
    change: dict[str, object], tmp_path: Path
) -> None:
    config = dataclasses.replace(SMALL, **change)
    torch.manual_seed(0)
    network = build(config).eval()
    path = tmp_path / "model.safetensors"
    save_model(network, dataclasses.replace(INFO, model=config), path)
    predict, info = load_predictor(path, "cpu")
    assert (info.model, info.arch) == (config, config.arch)
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), dtype=np.uint8)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(images))).numpy()
    assert np.abs(predict(images) - expected).max() < 1e-5
    stored = {name.split(".")[0] for name in load_file(path)}
    assert not stored & set(network.training_parts)


def test_headers_without_the_newer_settings_are_mrifes() -> None:
    header = json.loads(INFO.to_metadata()["lsmap"])
    assert header["arch"] == "mrife"
    for name in ("arch", "mfm", "sfce", "distillation", "round_epochs"):
        del header["model"][name]
    assert ModelInfo.from_metadata({"lsmap": json.dumps(header)}, "old") == INFO


def test_networks_of_older_files_get_what_they_learnt_from() -> None:
    header = json.loads(INFO.to_metadata()["lsmap"])
    assert header["model"].pop("unseen") == "mirror"
    assert header["model"].pop("prior") == 0.1
    info = ModelInfo.from_metadata({"lsmap": json.dumps(header)}, "old")
    assert info.model == dataclasses.replace(SMALL, unseen="mean", prior=0.0)


def test_what_was_learnt_before_is_kept() -> None:
    first = dataclasses.replace(INFO, digests={"d": "1"}, final=True)
    second = dataclasses.replace(INFO, digests={"d": "2", "d~2": "3"}, learnt=first.trainings)
    header = second.to_metadata()
    assert ModelInfo.from_metadata(header, "new") == second
    assert second.trainings == (Learnt({"d": "1"}, True), Learnt(second.digests))
    assert dataclasses.replace(first, learnt=first.trainings).trainings == first.trainings
    assert INFO.trainings == ()
    old = json.loads(header["lsmap"])
    del old["learnt"]
    assert ModelInfo.from_metadata({"lsmap": json.dumps(old)}, "old").learnt == ()


class Tiles(Dataset):
    """A data set that is known by its folder and digest alone."""

    digest = ""

    def __init__(self, name: str, digest: str) -> None:
        super().__init__(Path("/data") / name, {}, ())
        object.__setattr__(self, "digest", digest)


def test_what_was_learnt_is_known_of_a_data_set() -> None:
    first = dataclasses.replace(INFO, digests={"d": "1"}, final=True)
    second = dataclasses.replace(INFO, digests={"d": "2", "d~2": "3"}, learnt=first.trainings)
    # Whether the last training had these very tiles does not undo what the first has learnt.
    assert learnt_another(second, Tiles("d", "2"))
    assert not learnt_another(first, Tiles("d", "1"))
    assert not learnt_another(second, Tiles("e", "1"))
    known = [learnt_validation(second, Tiles("d", digest)) for digest in "123"]
    assert known == [True, False, False]
    assert digests_of([Tiles("d", "2"), Tiles("d", "3")]) == second.digests


def test_read_info_needs_no_weights(tmp_path: Path) -> None:
    save_model(model(), INFO, tmp_path / "m.safetensors")
    assert read_info(tmp_path / "m.safetensors") == INFO


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(LsmapError, match="does not exist"):
        read_info(path)
    path.write_bytes(b"II*\0 this is a TIFF")
    with pytest.raises(LsmapError, match="not a safetensors file"):
        read_info(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(LsmapError, match="not an lsmap model"):
        read_info(path)
    header = INFO.to_metadata()
    save_file(
        {"a": torch.zeros(1)},
        path,
        {k: v.replace('"schema_version": 1', '"schema_version": 99') for k, v in header.items()},
    )
    with pytest.raises(LsmapError, match="schema 99"):
        read_info(path)
    save_file({"a": torch.zeros(1)}, path, header)
    with pytest.raises(LsmapError, match="do not fit") as caught:
        load_predictor(path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_model_is_the_given_one_then_the_newest_run_then_the_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    bundled = tmp_path / "bundled.safetensors"
    monkeypatch.setattr(checkpoint, "bundled_model", lambda: bundled)
    assert find_model(None, runs) == (bundled, "bundled")
    for age, name in enumerate(("new", "old")):
        (runs / name).mkdir(parents=True)
        best = runs / name / "best.safetensors"
        best.touch()
        os.utime(best, (1000 - age, 1000 - age))
    assert find_model(None, runs) == (runs / "new" / "best.safetensors", "newest run")
    assert find_model("bundled", runs) == (bundled, "given")
    assert find_model(str(runs / "old"), runs) == (runs / "old" / "best.safetensors", "given")
    with pytest.raises(LsmapError, match=r"does not exist; give a model file, .* or bundled"):
        find_model(str(tmp_path / "nothing"), runs)
