"""The folder of a training run: settings, saved state, and how a run is named and found again."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from landslide_mapper.checkpoint import BEST, CONFIG, RUNS, read_info
from landslide_mapper.config import (
    TrainConfig,
    override,
    read_train_config,
    recipe_settings,
    to_dict,
)
from landslide_mapper.errors import LsmapError, note
from landslide_mapper.shell import command_line
from landslide_mapper.staging import whole_file, writing
from landslide_mapper.training.start import with_model_of

STATE = "last.pt"
CURVES = "curves.png"

CHANGEABLE = {"epochs", "workers", "device"}
"""Settings that a resumed run may change."""


def plan_run(
    run: Path | None,
    config_file: Path | None,
    recipe: str | None,
    resume: bool,
    datasets: tuple[str, ...],
    settings: dict[str, Any],
    final: Path | None = None,
) -> tuple[Path, TrainConfig]:
    """Find a run's folder and settings from what was typed.

    Args:
        run: folder of the run, or None for a new one (resuming: the last one).
        config_file: settings to start from, or None for the defaults.
        recipe: one of `landslide_mapper.config.RECIPES`, or None for the defaults.
        resume: go on with a run, with that run's own settings.
        datasets: dataset folders, or none for the configured ones.
        settings: changes by name; None leaves a setting as it is.
        final: run to repeat on its training and validation tiles together, or None.

    Raises:
        LsmapError: bad settings, no run to resume or repeat, or such a run with other settings.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if datasets:
        given["datasets"] = datasets
    if not resume and not final:
        config = _new_config(config_file, recipe, given)
        return run or _new_run(config), config
    if final and resume:
        raise LsmapError("--final begins a fit, --resume goes on with one: give one of them")
    named = [name for name, value in (("config", config_file), ("recipe", recipe)) if value]
    if other := [*sorted(set(given) - CHANGEABLE), *named]:
        raise LsmapError(
            f"a {'resumed run' if resume else 'final fit'} keeps the run's settings: leave "
            f"{', '.join(other)} out (only {', '.join(sorted(CHANGEABLE))} may change)"
        )
    if final:
        config = override(_after(final, given.get("epochs")), given)
        return run or _new_run(config), config
    run = run or _last_run()
    return run, override(settings_of(run), given)


def _new_config(config_file: Path | None, recipe: str | None, given: dict[str, Any]) -> TrainConfig:
    """The settings of a new run: those of a file or of a recipe, of its start, then the given."""
    if config_file and recipe:
        raise LsmapError("--config has all settings, so --recipe goes without it")
    config = read_train_config(config_file) if config_file else TrainConfig()
    has_network = config_file and "model" in json.loads(config_file.read_text("utf-8"))
    if "weights" in given or not has_network:
        weights = given.get("weights", config.weights)
        config = with_model_of(weights, config, given.get("arch"))
    chosen = recipe_settings(recipe or "paper", given.get("arch", config.model.arch))
    return override(config, chosen | given)


def _after(run: Path, epochs: int | None) -> TrainConfig:
    """The settings of a run, and what it chose, for a final fit without validation.

    `epochs` None: as many as its best one had.
    """
    config = settings_of(run)
    if config.final:
        raise LsmapError(f"{run} is a final fit already, after {config.final}: name that one")
    epochs = epochs or read_info(run / BEST).epoch
    if config.model.arch == "icssn":
        epochs = max(epochs, 2 * config.model.round_epochs)  # both networks have their turn
    return replace(config, final=str(run), epochs=epochs, warmup=min(config.warmup, float(epochs)))


def settings_of(run: Path) -> TrainConfig:
    """The settings that a run began with.

    Raises:
        LsmapError: it is no run, or see `read_train_config`.
    """
    if not (run / CONFIG).is_file():
        raise LsmapError(f"{run}: is no run (no {CONFIG} in it); name a folder that train has made")
    return read_train_config(run / CONFIG, of_run=True)


def _new_run(config: TrainConfig) -> Path:
    number = 1
    while (path := RUNS / f"{config.model.arch}-{config.model.backbone}-{number}").exists():
        number += 1
    return path


def _last_run() -> Path:
    states = sorted(RUNS.glob(f"*/{STATE}"), key=lambda path: path.stat().st_mtime_ns)
    if not states:
        raise LsmapError(f"no run under {RUNS} has a {STATE} to resume from: name one with -o RUN")
    return states[-1].parent


def check_run(run: Path, resume: bool) -> None:
    """See that a new run would replace none, and that one to go on with is there.

    Raises:
        LsmapError: it would, or it is not.
    """
    if (run / STATE).is_file():
        if not resume:
            raise LsmapError(f"{run} holds a run already: give another -o, or --resume to go on")
    elif (run / BEST).exists():
        raise LsmapError(f"{run} holds a model whose run cannot go on: give another -o")
    elif resume:
        raise LsmapError(f"{run} has no {STATE} to resume from")


def write_settings(run: Path, config: TrainConfig) -> None:
    """Write the settings of a run into its folder, which is made if it is not there.

    Raises:
        LsmapError: the folder cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        with whole_file(run / CONFIG) as partial:
            partial.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise LsmapError(f"cannot write into {run}: {error.strerror}") from error


def resume_run(run: Path, config: TrainConfig, done: int) -> None:
    """Write the settings of a run of which `done` epochs are there, and say what they mean for it.

    Raises:
        LsmapError: the folder cannot be written, or fewer epochs are asked for than there are.
    """
    before = settings_of(run)
    if done > config.epochs:
        raise LsmapError(f"{run} has {done} epochs already, and cannot end after {config.epochs}")
    if done == config.epochs:
        note(f"{run} has its {done} epochs already: --epochs {2 * done} would train on")
    elif config.epochs != before.epochs and config.schedule != "constant":
        note(
            f"the learning rate falls over the whole run, so the first {done} epochs had another "
            f"one than a run of {config.epochs} epochs from the start would have given them"
        )
    write_settings(run, config)


def saving(run: Path) -> AbstractContextManager[None]:
    """A context in which an epoch is saved.

    Raises:
        LsmapFailure: it cannot be (disk full).
    """

    def go_on() -> str:
        if (run / STATE).exists():
            return f"make room and go on: lsmap train --resume -o {command_line(str(run))}"
        return "make room and start again in another -o"

    return writing(run, "the epoch", go_on)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    import torch

    with whole_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's words for an archive that it could not close
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU; nothing in the file is executed.

    Raises:
        LsmapError: it is damaged, or of another program.
    """
    import pickle

    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or "it is empty"
        raise LsmapError(f"{path} is damaged, the run cannot be resumed: {reason}") from error
    if not isinstance(state, dict) or not {"model", "optimizer", "rows"} <= state.keys():
        raise LsmapError(f"{path} is no state of a run of lsmap, the run cannot be resumed")
    return state
