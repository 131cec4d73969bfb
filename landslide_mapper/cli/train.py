"""``lsmap train``: tiles become a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import DEVICES, integers
from landslide_mapper.config import (
    ARCHITECTURES,
    BACKBONES,
    BEST_AT,
    FUSED_VIEWS,
    FUSIONS,
    MASK_BLOCKS,
    OPTIMIZERS,
    RECIPES,
    SCHEDULES,
    UNSEEN,
    ModelConfig,
    TrainConfig,
)
from landslide_mapper.shell import mapping_command

_DEFAULTS = vars(ModelConfig()) | vars(TrainConfig())


def _setting(*names: str, kind: Any, text: str, **more: Any) -> Any:
    """An option of `train` that stays unset unless given, so that it can override ``--config``.

    The help has the default of the configuration.
    """
    default = _DEFAULTS[names[-1].lstrip("-").replace("-", "_")]
    if isinstance(default, bool):  # named by the first or second of --this/--that
        shown = names[0].split("/")[0 if default else 1].lstrip("-")
    elif isinstance(default, tuple):
        shown = ",".join(map(str, default))
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    help_text = f"{text}  [default: {shown}]"
    return click.option(*names, type=kind, default=None, help=help_text, **more)


@click.command("train", cls=LsmapCommand)
@click.argument("datasets", nargs=-1, type=click.Path())
@click.option(
    "-o",
    "--output",
    "run",
    type=click.Path(path_type=Path),
    help="Folder of the run.  [default: runs/<arch>-<backbone>-<number>]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Read the settings of an earlier run's config.json; options given here override it.",
)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    help="Defaults: the paper's, or those that did best in a few short runs.  [default: paper]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run of -o (else the last one) after its last finished epoch.",
)
@click.option(
    "--final",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Train once more as RUN did, on its validation tiles as well: see above.",
)
@click.option("--tensorboard", is_flag=True, help="Write events for TensorBoard as well.")
@_setting("--epochs", kind=int, text="Passes over the training tiles.")
@_setting("--batch-size", kind=int, text="Tiles per step and process, even.")
@_setting("--optimizer", kind=click.Choice(OPTIMIZERS), text="Optimiser.")
@_setting("--lr", kind=float, text="Learning rate.")
@_setting("--momentum", kind=float, text="Momentum (β1 of AdamW).")
@_setting("--weight-decay", kind=float, text="Weight decay.")
@_setting("--schedule", kind=click.Choice(SCHEDULES), text="Learning rate over the run.")
@_setting("--warmup", kind=float, text="Epochs until the full learning rate.")
@_setting(
    "--average",
    kind=float,
    text="Validate and keep a running mean of the weights over about so many epochs.",
)
@_setting("--zoom", kind=float, text="Tiles are zoomed by up to this factor.")
@_setting(
    "--shift",
    kind=float,
    text="Tiles are moved by up to this share of their side, and validated off their middle; 0.4 "
    "where landslides lie in the middle of all tiles.",
)
@_setting(
    "--jitter",
    kind=float,
    text="Bands are darkened or brightened by exponents of up to this; 1.5 is much.",
)
@_setting(
    "--best-at",
    kind=click.Choice(BEST_AT),
    text="Keep the epoch that is best on validation at p ≥ 0.5, or at its own threshold.",
)
@_setting("--workers", kind=int, text="Processes that read tiles.")
@_setting("--device", kind=str, text=DEVICES)
@_setting("--seed", kind=int, text="Seed of all random numbers.")
@_setting("--compile/--no-compile", "compile", kind=bool, text="Compile the network.")
@_setting(
    "--weights",
    kind=str,
    text="Start: imagenet, none, a safetensors file of a backbone; or a model to go on from, "
    "network and all: its file, its run, or bundled.",
)
@_setting(
    "--arch",
    kind=click.Choice(ARCHITECTURES),
    text="The network: MRIFE, or one that it is compared with.",
)
@_setting("--backbone", kind=click.Choice(BACKBONES), text="ResNet of the encoders.")
@_setting("--last-layer", kind=int, text="Stage the backbone ends with, 3 or 4.")
@_setting("--aspp-channels", kind=int, text="Width of the features.")
@_setting(
    "--aspp-rates",
    kind=str,
    text="Dilations in the ASPP, in cells of 8 pixels; smaller for tiles below 512.",
    callback=integers,
    metavar="N,N,...",
)
@_setting("--mfm/--no-mfm", "mfm", kind=bool, text="Reconstruct masked features.")
@_setting("--sfce/--no-sfce", "sfce", kind=bool, text="Contrast masked features.")
@_setting(
    "--distillation/--no-distillation",
    "distillation",
    kind=bool,
    text="Let a teacher follow the student.",
)
@_setting("--fusion", kind=click.Choice(FUSIONS), text="How the two branches are joined.")
@_setting(
    "--fused-view",
    kind=click.Choice(FUSED_VIEWS),
    text="Image whose student features are fused; masked is the paper's and leaks labels.",
)
@_setting(
    "--unseen",
    kind=click.Choice(UNSEEN),
    text="What the network gets where nothing was seen: mirrored ground, or the mean colour.",
)
@_setting("--block-size", kind=int, text="Side of a masked block in pixels, 8 or 16.")
@_setting("--mask-blocks", kind=click.Choice(MASK_BLOCKS), text="Blocks that stand for landslide.")
@_setting("--mask-ratio", kind=float, text="Share of those blocks that is masked.")
@_setting("--ema", kind=float, text="Momentum of the teacher.")
@_setting("--temperature", kind=float, text="Temperature of the contrast.")
@_setting("--alpha", kind=float, text="Weight of the reconstruction.")
@_setting("--beta", kind=float, text="Weight of the contrast.")
@_setting("--gamma", kind=float, text="Weight of the cross-entropy.")
@_setting("--round-epochs", kind=int, text="Epochs until ICSSN's two networks take turns.")
@_setting("--dropout", kind=float, text="Dropout in the decoder.")
@_setting("--prior", kind=float, text="Probability of landslide at the start; 0: about one half.")
def train_command(
    datasets: tuple[str, ...],
    run: Path | None,
    config_file: Path | None,
    recipe: str | None,
    resume: bool,
    final: Path | None,
    tensorboard: bool,
    **settings: Any,
) -> None:
    """Train a network on the tiles of DATASET (default: ./dataset).

    The defaults are MRIFE with the paper's settings but for --fused-view, and lsmap's own where it
    gives none (α, β, γ, τ, --prior, --unseen). Several datasets are trained on together.
    With few labels, or without a GPU, go on from a trained model: --weights bundled.

    Once the settings are chosen, --final RUN repeats RUN on training and validation tiles together,
    for as many epochs as its best one had; calibration and threshold are RUN's. Such a model has
    seen more ground, and only the test split can still measure it.

    \b
    Examples:
      lsmap train
      lsmap train dataset --weights bundled --recipe best --epochs 5
      lsmap train dataset --backbone resnet18 --epochs 20 --device cpu
      lsmap train dataset --arch deeplabv3plus
      lsmap train dataset --no-sfce
      lsmap train --resume
      lsmap train --final runs/mrife-resnet18-1
      torchrun --nproc-per-node=2 -m landslide_mapper train dataset
    """
    from landslide_mapper.train import train
    from landslide_mapper.training.runs import plan_run

    run, config = plan_run(run, config_file, recipe, resume, datasets, settings, final)
    report = train(config, run, resume, tensorboard)
    if report.leads:
        click.echo(report.summary())
        click.echo(f"Next: {mapping_command(str(report.run))}")
