"""What a network starts from: nothing, a backbone trained on something else, or a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landslide_mapper.checkpoint import (
    BUNDLED,
    METADATA_KEY,
    ModelInfo,
    find_model,
    read_header,
    read_info,
)
from landslide_mapper.config import TrainConfig
from landslide_mapper.data.manifest import Dataset
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.learnt import learnt_validation, warn_of_another
from landslide_mapper.serving import odd_size

if TYPE_CHECKING:
    import torch

    from landslide_mapper.nn.network import Network


def find_start(weights: str) -> ModelInfo | None:
    """What the model says about itself that `weights` names, None where it names no model.

    Raises:
        LsmapError: a folder without a model.
    """
    path = _model_file(weights)
    return None if path is None else read_info(path)


def with_model_of(weights: str, config: TrainConfig, arch: str | None) -> TrainConfig:
    """The settings with the network of the model to go on from, where `weights` names one.

    Raises:
        LsmapError: see `find_start`; or another `arch` was asked for than the model has.
    """
    info = find_start(weights)
    if info is None:
        return config
    if arch not in (None, info.arch):
        raise LsmapError(
            f"weights {weights}: {info.name} is of --arch {info.arch} and cannot become {arch}: "
            "leave --arch out, or start with --weights imagenet"
        )
    return replace(config, model=info.model)


def start_network(model: Network, weights: str) -> str:
    """Give a network its start.

    Args:
        model: the network, freshly made.
        weights: ``imagenet`` (torchvision's, downloaded once), ``none`` (random), a safetensors
            file with torchvision's names (stages missing there start at random), or a model to
            go on from: its file, the folder of its run, or ``bundled``.

    Returns:
        One line that says what was loaded, for the log and the model's header.

    Raises:
        LsmapError: no network and no cached download, no such file, or nothing in it that fits.
    """
    path = _model_file(weights)
    if path is not None:
        return _load_model(model, path)
    if weights == "none":
        model.begin()
        return "random start"
    backbone = model.config.backbone
    state = _imagenet(backbone) if weights == "imagenet" else _read_tensors(Path(weights))
    said = (
        f"{backbone} from {'torchvision ImageNet' if weights == 'imagenet' else Path(weights).name}"
    )
    return said + _load_backbone(model, state, weights)


def check_start(weights: str, dataset: Dataset) -> None:
    """See that a model to go on from knows images as the dataset has them.

    Raises:
        LsmapError: it was trained on another number of bands or another stretch.
    """
    info = find_start(weights)
    if info is None:
        return
    theirs = (info.band_count, info.radiometry)
    ours = (dataset.band_count, dataset.radiometry_rule)
    if theirs != ours:
        raise LsmapError(
            f"weights {weights}: {info.name} was trained on {theirs[0]} bands with --stretch "
            f"{theirs[1]}, {dataset.root} has {ours[0]} with {ours[1]}: prepare it like that"
        )
    if odd := odd_size(dataset.gsd, info):
        note(f"{dataset.root}: {odd}")


def warn_of_learnt(info: ModelInfo, datasets: Sequence[Dataset]) -> None:
    """Say of which data sets a model to go on from may have learnt what is to be held back."""
    for dataset in datasets:
        warn_of_another(
            info,
            dataset,
            "validation and test of this run may hold tiles that the start has learnt; prepare it "
            "as it was, or start with --weights imagenet",
        )
        if learnt_validation(info, dataset):
            warn(
                f"{info.name} was trained on the validation tiles of {dataset.root} as well: "
                "validation of this run shows nothing; start from the run before that final fit"
            )


def _model_file(weights: str) -> Path | None:
    """The model file that `weights` names, None where it names something else."""
    if weights in ("imagenet", "none"):
        return None
    path = Path(weights)
    if weights == BUNDLED or path.is_dir():
        return find_model(weights)[0]
    if not path.is_file():
        raise LsmapError(
            f"weights {path} do not exist: give imagenet, none, a safetensors file, "
            "a run, or bundled"
        )
    return path if METADATA_KEY in read_header(path) else None


def _load_model(model: Network, path: Path) -> str:
    """All weights of a model; what it lacks because only training needs it is made from them."""
    from landslide_mapper.nn.calibration import Calibration

    info = read_info(path)
    try:
        model.load_prediction_state(_read_tensors(path), Calibration(*info.calibration))
    except RuntimeError as error:
        raise LsmapError(
            f"weights {path}: the model has other layers than the network to be trained; leave "
            "--arch, --backbone, --last-layer, --aspp-channels, --aspp-rates and --fusion out, and "
            f"prepare with {info.band_count} bands"
        ) from error
    return f"all weights from {info.name}, epoch {info.epoch}"


def _load_backbone(model: Network, state: dict[str, torch.Tensor], source: str) -> str:
    from landslide_mapper.nn.encoder import inflate_stem

    own = model.trained_encoders()[0].backbone.state_dict()
    said = ""
    if "conv1.weight" in state and model.config.band_count != 3:
        state = state | {
            "conv1.weight": inflate_stem(state["conv1.weight"], model.config.band_count)
        }
        said = f", stem inflated from 3 to {model.config.band_count} bands"
    fitting = {name: value for name, value in state.items() if name in own}
    if not fitting:
        raise LsmapError(f"weights {source}: no tensor has a name of {model.config.backbone}")
    wrong = [name for name, value in fitting.items() if value.shape != own[name].shape]
    if wrong:
        raise LsmapError(
            f"weights {source}: {wrong[0]} is {tuple(fitting[wrong[0]].shape)}, "
            f"{model.config.backbone} wants {tuple(own[wrong[0]].shape)}: is --backbone right?"
        )
    missing = sorted(
        {name.split(".")[0] for name in own if name not in fitting and "num_batches" not in name}
    )
    if missing:
        note(f"weights {source}: {', '.join(missing)} not in the file, started at random")
        said += f", random {', '.join(missing)}"
    for encoder in model.trained_encoders():
        encoder.backbone.load_state_dict(fitting, strict=False)
    model.begin()
    return said


def _imagenet(backbone: str) -> dict[str, torch.Tensor]:
    from urllib.error import URLError

    from torchvision.models import get_model_weights

    try:
        state: Any = get_model_weights(backbone)["IMAGENET1K_V1"].get_state_dict(
            progress=False, check_hash=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise LsmapError(
            f"ImageNet weights of {backbone} could not be downloaded ({error}): give "
            "--weights FILE.safetensors with torchvision's names, or --weights none"
        ) from error
    return dict(state)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise LsmapError(f"weights {path} are not a safetensors file: {error}") from error
