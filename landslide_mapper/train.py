"""``lsmap train``: a network on the tiles of a dataset, one flat loop for all architectures.

All random numbers follow from the seed and the epoch, and the state is saved at the end of every
epoch, so a run that was killed and resumed ends with the same bits as one that was not (on a CPU
with the same number of threads).
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from landslide_mapper.checkpoint import BEST, LOG, read_info
from landslide_mapper.config import TrainConfig
from landslide_mapper.device import NO_CUDA, check_compiler, enough_memory
from landslide_mapper.errors import LsmapError, LsmapFailure, note, warn
from landslide_mapper.nn.network import Losses
from landslide_mapper.nn.optimiser import learning_rate
from landslide_mapper.shell import command_line
from landslide_mapper.staging import only_one
from landslide_mapper.training.history import best_row, improves, measured
from landslide_mapper.training.loaders import (
    Batches,
    load_datasets,
    make_loaders,
    progress,
    to_device,
    warn_of_tiles,
)
from landslide_mapper.training.parallel import Process, join_processes
from landslide_mapper.training.runs import CURVES, STATE, check_run
from landslide_mapper.training.session import Row, Session, begun, describe, resumed
from landslide_mapper.training.validation import DIVERGED, autocast, validate, validation_figures

HEAVY = ("resnet50", "resnet101")
CHOSEN = ("calibration_scale", "calibration_shift", "threshold")
SHOW_EVERY = 50  # steps; to show the losses is to wait for the device


@dataclass(frozen=True)
class TrainReport:
    """How a run ended: its folder, its epochs and the log's line of the best of them."""

    run: Path
    epochs: int
    best: Row
    leads: bool

    def summary(self) -> str:
        """What a person wants to read at the end."""
        best = self.best
        epochs = f"{self.epochs} epoch{'s' * (self.epochs != 1)}"
        files = f"{self.run / BEST}  {self.run / LOG}  {self.run / CURVES}"
        if not measured([best]):
            return (
                f"Trained {epochs} on training and validation tiles; the model is that "
                f"of the last epoch, its threshold {best['threshold']:.2f}. What it is worth, only "
                f"the test split can say.\n{files}"
            )
        return (
            f"Trained {epochs}; best is epoch {best['epoch']:.0f}: validation "
            f"landslide IoU {best['landslide_iou']:.4f}, precision {best['precision']:.4f}, "
            f"recall {best['recall']:.4f}, F1 {best['f1']:.4f} at 0.5; landslide IoU "
            f"{best['landslide_iou_at_threshold']:.4f} at the model's threshold "
            f"({best['threshold']:.2f} after calibration).\n{files}"
        )


def train(
    config: TrainConfig, run: Path, resume: bool = False, tensorboard: bool = False
) -> TrainReport:
    """Train the network of `config.model`.

    Leaves in the folder of the run: ``config.json``, ``log.csv``, ``curves.png``, the weights of
    the epoch with the highest validation landslide IoU (`TrainConfig.best_at`; of a final fit: of
    the last) in ``best.safetensors``, and the full state after the last epoch in ``last.pt``.

    Args:
        config: the settings; on resuming, those of the run.
        run: folder of the run; it must not hold a run yet, unless `resume`.
        resume: go on after the last finished epoch.
        tensorboard: write events for TensorBoard into the folder as well.

    Raises:
        LsmapError: unusable dataset or settings, or a run that exists (or, resuming, does not).
        LsmapFailure: the loss is no longer finite, a tile cannot be read, the disk or the device's
            memory is full.
    """
    with (
        enough_memory(lambda: _smaller(config, run)),
        join_processes(config.device) as process,
        only_one(run, "training") if process.leads else nullcontext(),
        ExitStack() as closing,
    ):
        check_run(run, resume)
        if config.compile:
            check_compiler(process.device)
        event_writer = _event_writer() if tensorboard and process.leads else None
        datasets = load_datasets(config)
        config = replace(config, model=replace(config.model, band_count=datasets[0].band_count))
        if process.leads:
            warn_of_tiles(config, datasets)
        if process.leads and process.device.type == "cpu" and config.model.backbone in HEAVY:
            reason = f" ({NO_CUDA})" if torch.version.cuda is None else ""
            note(
                f"this is a CPU{reason}, on which {config.model.backbone} takes minutes for each "
                "step; what a CPU can do is to go on from the bundled model: "
                "--weights bundled --recipe best --epochs 5"
            )
        batches, training, validation = make_loaders(config, datasets, process)
        session = (resumed if resume else begun)(config, run, datasets, process)
        chosen = _chosen(config, session.rows)
        events = event_writer(str(run)) if event_writer else None
        if events is not None:
            closing.callback(events.close)
        parallel = process.wrap(session.model)

        for epoch in range(len(session.rows), config.epochs):
            began = time.perf_counter()
            batches.epoch = epoch
            losses = _train_epoch(config, epoch, parallel, session, training, process)
            samples = len(batches) * config.batch_size * process.world
            speed = samples / (time.perf_counter() - began)
            process.share_buffers(session.model)
            if session.mean is not None:  # its weights are equal: the first step replaced them
                process.share_buffers(session.mean.network)
            row: Row = {
                "epoch": epoch + 1,
                "lr": float(session.optimizer.param_groups[0]["lr"]),
                **dict.fromkeys(("loss", *session.model.loss_names), math.nan),
                **losses,
                "samples_per_s": speed,
                **(chosen or validation_figures(validate(session.outcome, validation, process))),
            }
            improved = session.model.ready and improves(row, session.rows, config.best_at)
            row |= {"kept": float(improved), "seconds": time.perf_counter() - began}
            session.rows.append(row)
            if process.leads:
                session.save(run, describe(config, datasets, run, session) if improved else None)
                _warn_of_idle(losses, session.rows)
                if events is not None:
                    for name, value in row.items():
                        events.add_scalar(name, value, epoch + 1)
                tqdm.write(_epoch_line(row, tuple(losses), improved))
        process.wait()
        return TrainReport(run, len(session.rows), best_row(session.rows), process.leads)


def _train_epoch(
    config: TrainConfig,
    epoch: int,
    parallel: nn.Module,
    session: Session,
    training: Batches,
    process: Process,
) -> dict[str, float]:
    """The steps of an epoch; the means of the losses by name, the total first.

    Raises:
        LsmapFailure: a loss is no longer finite.
    """
    seed = _epoch_seed(config.seed, epoch, process.rank)
    torch.manual_seed(seed)
    generator = torch.Generator(process.device).manual_seed(seed)
    model, optimizer = session.model, session.optimizer
    model.train()
    model.begin_epoch(epoch)
    sums = torch.zeros((), device=process.device, dtype=torch.float64)
    steps = len(training)
    bar = progress(training, f"epoch {epoch + 1}/{config.epochs}", process)
    for step, (images, labels) in enumerate(bar):
        rate = learning_rate(config, epoch + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = to_device(images, labels, process.device)
        optimizer.zero_grad(set_to_none=True)  # before the step, which needs their memory
        with autocast(process.device):
            losses: Losses = parallel(images, labels, generator)
        losses.total.backward()
        optimizer.step()
        model.after_step()
        if session.mean is not None:
            session.mean.take(epoch * steps + step, config.average * steps)
        names = ("loss", *losses.parts)
        sums = sums + torch.stack([losses.total.detach(), *losses.parts.values()]).double()
        if step % SHOW_EVERY == 0 and not bar.disable:
            bar.set_postfix(_postfix(names, sums / (step + 1), session.rows))
    means = process.total(sums / steps) / process.world
    if not torch.isfinite(means).all():
        raise LsmapFailure(f"the loss is no longer finite in epoch {epoch + 1}: {DIVERGED}")
    return dict(zip(names, means.tolist(), strict=True))


def _warn_of_idle(losses: dict[str, float], rows: list[Row]) -> None:
    """Say of losses that were 0 for a whole epoch, the first time, that nothing entered them."""
    idle = [
        name.replace("_", "-")
        for name, value in losses.items()
        if name != "loss" and value == 0 and all(row.get(name) != 0 for row in rows[:-1])
    ]
    if idle:
        warn(
            f"{' and '.join(idle)}: 0 in every step of epoch {rows[-1]['epoch']:.0f}, as no batch "
            "had what is compared there (landslides with enough seen ground beside them); larger "
            "images, smaller tiles (prepare --tile-size) or a larger --batch-size may help"
        )


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    state = np.random.SeedSequence((seed, epoch, rank)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _chosen(config: TrainConfig, rows: list[Row]) -> Row:
    """Of a final fit, calibration and threshold of the run that it follows; else nothing."""
    if not config.final:
        return {}
    if rows:  # it goes on, and the run before may be gone
        return {name: rows[-1][name] for name in CHOSEN}
    info = read_info(Path(config.final) / BEST)
    return dict(zip(CHOSEN, (*info.calibration, info.threshold), strict=True))


def _postfix(names: tuple[str, ...], means: Tensor, rows: list[Row]) -> dict[str, str]:
    shown = {name: f"{value:.3f}" for name, value in zip(names, means.tolist(), strict=True)}
    if rows and measured(rows):
        shown["val IoU"] = f"{rows[-1]['landslide_iou']:.3f}"
    return shown


def _epoch_line(row: Row, names: tuple[str, ...], improved: bool) -> str:
    parts = ", ".join(f"{name.replace('_', '-')} {row[name]:.4f}" for name in names[1:])
    said = f"epoch {row['epoch']:.0f}: loss {row['loss']:.4f} ({parts})"
    if measured([row]):
        said += f", validation landslide IoU {row['landslide_iou']:.4f}"
        said += " (best so far)" if improved else ""
    return f"{said}, {row['seconds']:.0f} s"


def _smaller(config: TrainConfig, run: Path) -> str:
    """What to do when the device's memory does not do."""
    there = (run / STATE).exists()
    go_on = f", or --resume -o {command_line(str(run))} on a larger one" if there else ""
    return (
        f"give a smaller --batch-size ({config.batch_size} now), a smaller --backbone "
        f"({config.model.backbone} now) or --device cpu{go_on}"
    )


def _event_writer() -> Any:
    """TensorBoard's class of writers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LsmapError(
            "TensorBoard is not installed: pip install 'lsmap[tensorboard]', "
            "or leave --tensorboard out"
        ) from error
    return SummaryWriter
