"""The state of a run: the network, its optimiser and what the epochs so far have brought.

It is made anew by `begun`, or by `resumed` from what `Session.save` left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from landslide_mapper import __version__
from landslide_mapper.checkpoint import BEST, CONFIG, LOG, Learnt, ModelInfo, read_info, save_model
from landslide_mapper.config import TrainConfig
from landslide_mapper.data.manifest import Dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.learnt import digests_of
from landslide_mapper.nn.build import build
from landslide_mapper.nn.network import Network
from landslide_mapper.nn.optimiser import RunningMean, load_optimizer, make_optimizer
from landslide_mapper.training.history import plot_curves, write_log
from landslide_mapper.training.loaders import common_gsd
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.runs import (
    CURVES,
    STATE,
    load_state,
    resume_run,
    save_state,
    saving,
    write_settings,
)
from landslide_mapper.training.start import check_start, find_start, start_network, warn_of_learnt

Row = dict[str, float]


@dataclass
class Session:
    """A run under way.

    Attributes:
        model: the network, on its device.
        mean: of its weights over the last steps, where one is taken.
        optimizer: of the network's parameters.
        rows: the log, a row per finished epoch.
        start: where its weights came from, in words.
        learnt: what the model that it went on from had learnt.
        data: digests of the data sets.
    """

    model: Network
    mean: RunningMean | None
    optimizer: torch.optim.Optimizer
    rows: list[Row]
    start: str
    learnt: tuple[Learnt, ...]
    data: list[str]

    @property
    def outcome(self) -> Network:
        """The network that is validated and whose weights are kept."""
        return self.model if self.mean is None else self.mean.network

    def save(self, run: Path, info: ModelInfo | None) -> None:
        """Write log, curves, state and, given `info`, the model into the folder of the run.

        Raises:
            LsmapFailure: the disk does not take them.
        """
        with saving(run):
            if info is not None:
                save_model(self.outcome, info, run / BEST, calibration=info.calibration)
            write_log(self.rows, run / LOG)
            plot_curves(self.rows, run / CURVES)
            state = {
                "model": self.model.state_dict(),
                "mean": None if self.mean is None else self.mean.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rows": self.rows,
                "start": self.start,
                "learnt": [asdict(it) for it in self.learnt],
                "data": self.data,
            }
            # Last: once the state is there, all else of this epoch is there as well.
            save_state(run / STATE, state)


def begun(config: TrainConfig, run: Path, datasets: Sequence[Dataset], process: Process) -> Session:
    """A new run: its network with the weights it starts from, its folder with the settings.

    Raises:
        LsmapError: these weights or tiles do not suit it, or the folder cannot be written.
    """
    check_start(config.weights, datasets[0])
    if config.final:
        chose = read_info(Path(config.final) / BEST)
        _check_tiles(list(chose.digests.values()), datasets, config.final)
    model = _built(config)
    learnt: tuple[Learnt, ...] = ()
    if (before := find_start(config.weights)) is not None:
        learnt = before.trainings
        if process.leads:
            warn_of_learnt(before, datasets)
    start = ""
    if process.leads:  # the others get its weights when they join
        start = start_network(model, config.weights)
        write_settings(run, config)
    model, mean, optimizer = _placed(model, config, process)
    return Session(model, mean, optimizer, [], start, learnt, [it.digest for it in datasets])


def resumed(
    config: TrainConfig, run: Path, datasets: Sequence[Dataset], process: Process
) -> Session:
    """A run as its last finished epoch left it.

    Raises:
        LsmapError: its state is damaged or of other settings, these are not its tiles, or see
            `resume_run`.
    """
    state = load_state(run / STATE)
    _check_tiles(state.get("data", []), datasets, run)  # older runs do not say all
    model, mean, optimizer = _placed(_built(config), config, process)
    _check_state(state, model, mean, optimizer, run)
    model.load_state_dict(state["model"])
    if mean is not None:
        mean.network.load_state_dict(state["mean"])
    load_optimizer(optimizer, state["optimizer"])
    if process.leads:
        resume_run(run, config, len(state["rows"]))
    learnt = tuple(Learnt(**it) for it in state.get("learnt", ()))
    data = [it.digest for it in datasets]
    return Session(model, mean, optimizer, state["rows"], state.get("start", ""), learnt, data)


def _check_state(
    state: dict[str, Any],
    model: Network,
    mean: RunningMean | None,
    optimizer: torch.optim.Optimizer,
    run: Path,
) -> None:
    """Raise `LsmapError` unless the state is one of this network and of this kind of optimiser."""
    shapes, own = (
        {name: value.shape for name, value in tensors.items()}
        for tensors in (state["model"], model.state_dict())
    )
    groups = state["optimizer"]["param_groups"], optimizer.param_groups
    settings, known = ({"momentum", "betas"} & group[0].keys() for group in groups)
    other_mean = (state.get("mean") is None) != (mean is None)  # older states have none
    if shapes != own or settings != known or other_mean:
        raise LsmapError(
            f"{run / STATE} is not the state of the network and the optimiser in {run / CONFIG}: "
            "put back the settings that the run began with, or start a new one"
        )


def _built(config: TrainConfig) -> Network:
    torch.manual_seed(config.seed)
    return build(config.model)


def _placed(
    model: Network, config: TrainConfig, process: Process
) -> tuple[Network, RunningMean | None, torch.optim.Optimizer]:
    """The network on its device, compiled if that is wanted, with its mean and an optimiser."""
    model = model.to(device=process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    process.synchronise_batch_norm(model)
    mean = RunningMean(model) if config.average else None
    if config.compile:
        _compile(model)
    return model, mean, make_optimizer(config, model, process.device)


def _compile(model: Network) -> None:
    """Compile the parts that are worth it."""
    import torch._dynamo

    # The parts share code objects, on which torch counts how often it compiled.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for part in model.compiled_parts():
        part.compile()


def _check_tiles(then: list[str], datasets: Sequence[Dataset], run: str | Path) -> None:
    """Raise `LsmapError` unless these are the tiles, by digest, that `run` had; [] is not known."""
    if then and then != [dataset.digest for dataset in datasets]:
        raise LsmapError(
            f"{', '.join(str(dataset.root) for dataset in datasets)}: these are not the tiles that "
            f"{run} began with; prepare them as they were, or start a new run"
        )


def describe(
    config: TrainConfig, datasets: Sequence[Dataset], run: Path, session: Session
) -> ModelInfo:
    """What the model file of the last epoch will say about itself."""
    first, row = datasets[0], session.rows[-1]
    final = f" with validation, after {Path(config.final).name}" if config.final else ""
    names = ("landslide_iou", "precision", "recall", "f1", "mean_iou", "landslide_iou_at_threshold")
    return ModelInfo(
        name=run.name,
        model=config.model,
        bands=tuple(first.bands),
        radiometry=first.radiometry_rule,
        tile_size=first.tile_size,
        gsd=common_gsd(datasets),
        threshold=row["threshold"],
        metrics={name: round(row[name], 6) for name in names if name in row},
        calibration=(row["calibration_scale"], row["calibration_shift"]),
        data=f"{', '.join(dataset.root.name for dataset in datasets)}{final}; {session.start}",
        epoch=int(row["epoch"]),
        final=bool(config.final),
        digests=digests_of(datasets),
        learnt=session.learnt,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        lsmap_version=__version__,
    )
