"""Settings: JSON there and back, and nothing that is misspelt goes through."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from landslide_mapper.cli import train_command
from landslide_mapper.config import (
    ModelConfig,
    TrainConfig,
    from_dict,
    override,
    read_train_config,
    to_dict,
)
from landslide_mapper.errors import LsmapError


def test_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert (config.lr, config.momentum, config.weight_decay) == (0.007, 0.9, 5e-4)
    assert (config.batch_size, config.epochs, config.workers) == (4, 100, 4)
    assert (config.model.backbone, config.model.ema, config.model.block_size) == (
        "resnet101",
        0.996,
        8,
    )


def test_there_and_back(tmp_path: Path) -> None:
    config = TrainConfig(
        datasets=("a", "b"), lr=1, model=ModelConfig(aspp_rates=(2, 4), fusion="concat")
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert read_train_config(path) == config


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"model": {"backbon": "resnet18"}}, "backbon"),
        ({"epochs": "ten"}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"compile": 1}, "compile"),
        ({"batch_size": 3}, "even"),
        ({"model": {"backbone": "vgg"}}, "resnet18"),
        ({"model": {"mask_ratio": 2}}, "between"),
        ({"model": []}, "object"),
        ({"datasets": "dataset"}, "list"),
        ({"lr": -1}, "lr"),
        ({"optimizer": "lion"}, "adamw"),
        ({"warmup": 9.0, "epochs": 8}, "warmup"),
        ({"zoom": 0.5}, "zoom"),
        ({"model": {"arch": "unet"}}, "deeplabv3plus"),
        ({"model": {"arch": "deeplabv3plus", "sfce": False}}, "deeplabv3plus has no use"),
        ({"model": {"arch": "icssn", "fusion": "concat"}}, "icssn has no use"),
        ({"model": {"round_epochs": 3}}, "mrife has no use"),
        ({"model": {"arch": "icssn", "round_epochs": 3}, "epochs": 5}, "at least 6"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], part: str) -> None:
    with pytest.raises(LsmapError, match=part):
        from_dict(TrainConfig, values)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(LsmapError, match="cannot read"):
        read_train_config(tmp_path / "none.json")
    path = tmp_path / "config.json"
    path.write_text("epochs: 3")
    with pytest.raises(LsmapError, match="no JSON"):
        read_train_config(path)
    path.write_text("[1]")
    with pytest.raises(LsmapError, match="object"):
        read_train_config(path)


def test_override_reaches_both_levels_and_leaves_the_rest() -> None:
    config = override(TrainConfig(epochs=7), {"lr": 0.1, "backbone": "resnet18", "seed": None})
    assert (config.epochs, config.lr, config.seed) == (7, 0.1, 0)
    assert config.model == ModelConfig(backbone="resnet18")


ROWS = {
    "III, IV: baseline B": ("--arch", "deeplabv3plus"),
    "III: ICSSN": ("--arch", "icssn"),
    "III, IV: MRIFE, B+M+C": (),
    "IV: B+M": ("--no-sfce",),
    "IV: B+C": ("--no-mfm",),
    "Fig. 6: without self-distillation": ("--no-distillation",),
    "V: 16 x 16": ("--block-size", "16"),
    "VI: center and back": ("--mask-blocks", "interior"),
    "VI: all": ("--mask-blocks", "all"),
    "Fig. 8: concatenation": ("--fusion", "concat"),
    "the paper's own fusion": ("--fused-view", "masked"),
}


def test_every_row_of_the_papers_tables_is_a_command_line() -> None:
    """And no two rows are the same network."""
    networks = set()
    for options in ROWS.values():
        settings = train_command.make_context("train", list(options)).params
        for name in ("datasets", "run", "config_file", "recipe", "resume", "tensorboard"):
            settings.pop(name)
        networks.add(override(TrainConfig(), settings).model)
    assert len(networks) == len(ROWS)
