"""Frozen configuration of the network and of training, with the paper's settings as defaults.

Two things are not the paper's: `ModelConfig.fused_view` (see there), and α, β, γ and τ, to which
it gives no value and which are guesses.

A configuration is written to and read from JSON; an unknown key or a value of the wrong kind
is an error, because a misspelt setting that is silently ignored spoils an experiment.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from landslide_mapper.errors import LsmapError

SPLITS = ("train", "val", "test")
STRETCHES = ("equalize", "percentile", "none")
ARCHITECTURES = ("mrife", "deeplabv3plus", "icssn")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
FUSIONS = ("add", "concat")
FUSED_VIEWS = ("whole", "masked")
UNSEEN = ("mirror", "mean")
MASK_BLOCKS = ("edge", "interior", "all")
BLOCK_SIZES = (8, 16)
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "poly")
BEST_AT = ("half", "threshold")

OLDER = {"unseen": "mean", "prior": 0.0}
"""What networks had whose files are older than these settings of `ModelConfig`."""

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "best": {
        "optimizer": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.01,
        "schedule": "poly",
        "warmup": 0.2,
        "best_at": "threshold",
        "sfce": False,
    },
}
"""Settings that go together; ``best`` won on validation, see examples/tables/README.md."""

_OF_MRIFE = ("fusion", "fused_view", "mfm", "sfce", "distillation", "mask_blocks", "ema", "alpha")
_OF_CONTRAST = ("block_size", "mask_ratio", "temperature", "beta")
UNUSED: dict[str, tuple[str, ...]] = {
    "mrife": ("round_epochs",),
    "deeplabv3plus": (*_OF_MRIFE, *_OF_CONTRAST, "round_epochs"),
    "icssn": _OF_MRIFE,
}
"""Settings of `ModelConfig` that change nothing in an architecture; setting one is an error."""


@dataclass(frozen=True)
class ModelConfig:
    """The network; a field that the paper gives has the paper's value, but for `fused_view`.

    Attributes:
        arch: ``mrife``, ``deeplabv3plus`` (the paper's baseline) or ``icssn`` (its ref. 40). The
            settings that an architecture has no use for must be left alone, see `UNUSED`.
        backbone: torchvision ResNet of the encoders.
        last_layer: residual stage at which the backbone ends, 3 or 4 (4 is the paper's).
        band_count: bands of the input image.
        unseen: what the network gets where nothing was seen: the ground beside it, mirrored
            (``mirror``, see `landslide_mapper.nn.mirror`), or the ``mean`` colour.
        aspp_channels: width of the features, C in the paper.
        aspp_rates: dilations of the 3×3 convolutions in ASPP, in cells of the features (8 pixels).
            The paper's reach over tiles of 512 pixels; in smaller ones the outer taps see padding.
        fusion: ``add`` (the paper's) or ``concat`` followed by a 1×1 convolution.
        fused_view: what the student sees when its features are fused in training: the ``whole``
            image, or the ``masked`` one as the paper has it, which gives the labels away (see
            `landslide_mapper.nn.mrife`).
        mfm: whether the masked features are reconstructed (B+M and B+M+C of Table IV).
        sfce: whether the masked features are contrasted (B+M+C of Table IV).
        distillation: whether a teacher follows the student (see `landslide_mapper.nn.mrife`).
        dropout: probability of a dropped channel in the decoder.
        prior: probability of landslide that training starts from, see `Network.start_at`; 0: at
            random, about one half.
        block_size: side of a masked block in pixels.
        mask_blocks: which blocks stand for landslide: ``edge``, ``interior`` or ``all``.
        mask_ratio: share of those blocks that is masked (ICSSN: contrasted).
        ema: λ of eq. 1, the teacher's momentum.
        temperature: τ of eq. 5 (the paper gives no value).
        alpha, beta, gamma: weights of reconstruction, contrast and cross-entropy in eq. 8, to which
            the paper gives no value. At β = 0.1 the contrast is twice the cross-entropy, and in its
            way; 0.01 did best on validation (examples/tables/README.md).
        round_epochs: epochs until classifier and segmenter of ICSSN take turns.
    """

    arch: str = "mrife"
    backbone: str = "resnet101"
    last_layer: int = 4
    band_count: int = 3
    unseen: str = "mirror"
    aspp_channels: int = 256
    aspp_rates: tuple[int, ...] = (12, 24, 36)
    fusion: str = "add"
    fused_view: str = "whole"
    mfm: bool = True
    sfce: bool = True
    distillation: bool = True
    dropout: float = 0.1
    prior: float = 0.1
    block_size: int = 8
    mask_blocks: str = "edge"
    mask_ratio: float = 0.5
    ema: float = 0.996
    temperature: float = 0.1
    alpha: float = 1.0
    beta: float = 0.01
    gamma: float = 1.0
    round_epochs: int = 1

    def __post_init__(self) -> None:
        """Reject values outside their range.

        Raises:
            LsmapError: names the field, its value and the allowed ones.
        """
        _one_of("arch", self.arch, ARCHITECTURES)
        _one_of("backbone", self.backbone, BACKBONES)
        _one_of("last_layer", self.last_layer, (3, 4))
        _one_of("fusion", self.fusion, FUSIONS)
        _one_of("fused_view", self.fused_view, FUSED_VIEWS)
        _one_of("unseen", self.unseen, UNSEEN)
        _one_of("mask_blocks", self.mask_blocks, MASK_BLOCKS)
        _one_of("block_size", self.block_size, BLOCK_SIZES)
        _between("band_count", self.band_count, 1, 1024)
        _between("aspp_channels", self.aspp_channels, 16, 4096)
        for rate in self.aspp_rates or (0,):
            _between("aspp_rates", rate, 1, 1024)
        _between("dropout", self.dropout, 0.0, 0.95)
        _between("prior", self.prior, 0.0, 0.95)
        _between("mask_ratio", self.mask_ratio, 0.0, 1.0)
        _between("ema", self.ema, 0.0, 1.0)
        _between("temperature", self.temperature, 1e-3, 100.0)
        for name in ("alpha", "beta", "gamma"):
            _between(name, getattr(self, name), 0.0, float("inf"))
        _between("round_epochs", self.round_epochs, 1, 1_000_000)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in UNUSED[self.arch]:
            if getattr(self, name) != defaults[name]:
                raise LsmapError(
                    f"{name} is {getattr(self, name)}, but {self.arch} has no use for it: "
                    f"leave it at {defaults[name]}"
                )


@dataclass(frozen=True)
class TrainConfig:
    """One training run; the defaults are Table II of the paper.

    Attributes:
        datasets: dataset folders of ``lsmap prepare``; more than one is trained on together.
        weights: start of the network, see `landslide_mapper.training.start.start_network`.
        batch_size: tiles per step and process; even, because landslides come in pairs.
        optimizer: ``sgd`` (the paper's) or ``adamw`` (Loshchilov and Hutter 2019).
        lr: learning rate at the first step, or after the warm-up.
        momentum: of SGD; β1 of AdamW.
        weight_decay: of either optimizer; AdamW wants a larger one.
        schedule: ``constant`` (the paper's) or ``poly``, lr·(1 − step/steps)^0.9.
        warmup: epochs in which the learning rate rises from 0.
        average: epochs that a running mean of the weights spans, which is validated and kept in
            their place and changes nothing in what is learnt; 0: no mean.
        zoom: tiles are zoomed by a random factor between 1 / zoom and zoom; 1 leaves them alone.
        shift: tiles are moved by up to this share of their side; what comes in was not seen.
            Unless it is 0, validation shows tiles off the middle as well.
        jitter: tiles are darkened or brightened by random exponents between 1 / jitter and jitter,
            every band by another; 1 leaves them alone.
        best_at: the epoch that is kept has the highest landslide IoU on validation at ``half``, p
            ≥ 0.5 (the paper's measure), or at its own best ``threshold``, which maps are made at.
        workers: processes that read tiles.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        compile: compile the network with torch.compile.
        final: folder of the run that chose threshold, calibration and epochs, so that validation
            tiles are trained on as well; empty: validation chooses.
        model: the network.
    """

    datasets: tuple[str, ...] = ("dataset",)
    weights: str = "imagenet"
    epochs: int = 100
    batch_size: int = 4
    optimizer: str = "sgd"
    lr: float = 0.007
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "constant"
    warmup: float = 0.0
    average: float = 0.0
    zoom: float = 1.0
    shift: float = 0.0
    jitter: float = 1.0
    best_at: str = "half"
    workers: int = 4
    seed: int = 0
    device: str = "auto"
    compile: bool = False
    final: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        """Reject values outside their range.

        Raises:
            LsmapError: names the field, its value and the allowed ones.
        """
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("best_at", self.best_at, BEST_AT)
        _between("epochs", self.epochs, 1, 1_000_000)
        _between("batch_size", self.batch_size, 2, 65536)
        _between("lr", self.lr, 1e-9, 1e3)
        _between("momentum", self.momentum, 0.0, 0.9999)
        _between("weight_decay", self.weight_decay, 0.0, 10.0)
        _between("warmup", self.warmup, 0.0, float(self.epochs))
        _between("average", self.average, 0.0, 1_000_000.0)
        _between("zoom", self.zoom, 1.0, 2.0)
        _between("shift", self.shift, 0.0, 0.5)
        _between("jitter", self.jitter, 1.0, 4.0)
        _between("workers", self.workers, 0, 1024)
        _between("seed", self.seed, 0, 2**63 - 1)
        if self.batch_size % 2:
            raise LsmapError(
                f"batch_size is {self.batch_size}: give an even number, landslides come in pairs"
            )
        rounds = 2 * self.model.round_epochs
        if self.model.arch == "icssn" and self.epochs < rounds:
            raise LsmapError(
                f"epochs is {self.epochs}: icssn first trains its classifier for round_epochs = "
                f"{self.model.round_epochs} and then its segmenter, so give at least {rounds}"
            )


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(str(choice) for choice in allowed)
        raise LsmapError(f"{name} is {value!r}: choose one of {choices}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise LsmapError(f"{name} is {value}: it must lie between {low} and {high}")


Config = TypeVar("Config", ModelConfig, TrainConfig)


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[Config], values: dict[str, Any], source: str = "configuration") -> Config:
    """Build a configuration from JSON values.

    Raises:
        LsmapError: an unknown key, a value of the wrong kind or outside its range.
    """
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        known = ", ".join(sorted(hints))
        raise LsmapError(f"{source}: unknown setting {', '.join(unknown)}; known are {known}")
    return cls(
        **{name: _convert(name, hints[name], value, source) for name, value in values.items()}
    )


def _convert(name: str, hint: Any, value: Any, source: str) -> Any:
    if hint is ModelConfig:
        if not isinstance(value, dict):
            raise LsmapError(f"{source}: {name} must be an object of settings")
        return from_dict(ModelConfig, value, f"{source}, {name}")
    if hint in (tuple[int, ...], tuple[str, ...]):
        if not isinstance(value, list | tuple):
            raise LsmapError(f"{source}: {name} must be a list")
        kind = int if hint == tuple[int, ...] else str
        return tuple(_convert(name, kind, item, source) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise LsmapError(f"{source}: {name} is {value!r}, expected {hint.__name__}")
    return value


def read_train_config(path: Path, of_run: bool = False) -> TrainConfig:
    """Read a ``config.json`` as ``lsmap train`` writes it.

    Args:
        path: the file.
        of_run: whether a run began with it, so that what it lacks is `OLDER`, not the default.

    Raises:
        LsmapError: the file is missing, is no JSON object or has a setting that is not known.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LsmapError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise LsmapError(f"{path} is no JSON file: {error}") from error
    if not isinstance(values, dict):
        raise LsmapError(f"{path} must hold a JSON object of settings")
    if of_run and isinstance(values.get("model"), dict):
        values["model"] = OLDER | values["model"]
    return from_dict(TrainConfig, values, str(path))


def recipe_settings(recipe: str, arch: str) -> dict[str, Any]:
    """What a recipe changes in the defaults, less what the architecture has no use for."""
    return {n: value for n, value in RECIPES[recipe].items() if n not in UNUSED[arch]}


def override(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration with some settings changed; names of `ModelConfig` reach the network.

    Args:
        config: where to start from.
        settings: by name; None leaves a setting as it is.

    Raises:
        LsmapError: a value outside its range.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    network = {field.name for field in dataclasses.fields(ModelConfig)}
    model = {name: value for name, value in given.items() if name in network}
    training = {name: value for name, value in given.items() if name not in network}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model), **training)
