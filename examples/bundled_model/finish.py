"""Turn a finished run into the model that lsmap carries: weights in float16, card, test figures.

    python examples/bundled_model/finish.py RUN BIJIE SICHUAN

The card is card.md, its blanks filled. RUN is a folder of ``lsmap train``, BIJIE and SICHUAN are
the two datasets it was trained on.
README.md beside this file has the commands that make all three. The figures are pixel metrics on
the test splits, beside those of the best single brightness threshold tuned on the train splits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np

from landslide_mapper.checkpoint import (
    BEST,
    LOG,
    load_model,
    read_info,
    save_model,
)
from landslide_mapper.config import UNSEEN
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.evaluation.result import Evaluation
from landslide_mapper.geo.views import Quarters, SymmetryAverage
from landslide_mapper.inspection.products import UNSEEN_TEXT
from landslide_mapper.metrics import BINS, Curve, histogram, rates
from landslide_mapper.predictors import load_predictor
from landslide_mapper.training.history import read_log
from landslide_mapper.training.runs import settings_of

MODELS = Path(__file__).resolve().parents[2] / "models"
CARD = Path(__file__).with_name("card.md")
COLUMNS = ("landslide_iou", "precision", "recall", "f1", "mean_iou", "accuracy")
LEVELS = 256  # of uint8


def brightness_histogram(dataset: Dataset, split: str) -> np.ndarray:
    """Histogram (2, BINS) of the brightness, the mean of the bands, of a split's valid pixels."""
    tiles = dataset.split(split)
    counted = np.zeros((2, BINS), np.int64)
    for image, mask in (TileDataset(tiles)[0, n] for n in range(len(tiles))):
        counted += histogram(image.float().mean(0).numpy() / LEVELS, mask.numpy())
    return counted


def brightness_baseline(dataset: Dataset) -> tuple[str, Mapping[str, float]]:
    """Best brightness threshold of the train split, bright or dark side, on the test split."""
    train, test = (brightness_histogram(dataset, split) for split in ("train", "test"))
    sides = {
        "≥": (Curve.of(train), Curve.of(test)),
        "<": (Curve.of(train[:, ::-1]), Curve.of(test[:, ::-1])),
    }
    scored = {
        side: float(rates(tuned.at(tuned.best_threshold()))["landslide_iou"])
        for side, (tuned, _) in sides.items()
    }
    side = max(scored, key=scored.__getitem__)
    tuned, tested = sides[side]
    threshold = tuned.best_threshold()
    level = threshold * LEVELS if side == "≥" else LEVELS - threshold * LEVELS
    found = {name: float(value) for name, value in rates(tested.at(threshold)).items()}
    return f"brightness {side} {level:.0f}", found


def row(name: str, values: Mapping[str, float]) -> str:
    """A line of a Markdown table."""
    return f"| {name} | " + " | ".join(f"{values[column]:.4f}" for column in COLUMNS) + " |"


def table(
    datasets: Mapping[str, Dataset],
    found: Mapping[str, Evaluation],
    turned: Mapping[str, Evaluation],
    moved: Mapping[str, Evaluation],
) -> str:
    """Test figures of the model, of its mean over `turned` tiles, of it on tiles that are `moved`
    (`lsmap evaluate --moved`), and of the baseline: Markdown.
    """
    lines = [
        "| test split | landslide IoU | precision | recall | F1 | mean IoU | pixel accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, dataset in datasets.items():
        tiles = f"{name}, {len(dataset.split('test'))} tiles"
        baseline, values = brightness_baseline(dataset)
        lines.append(row(f"{tiles}: this model", found[name].at[0].metrics))
        lines.append(row(f"{tiles}: with `--tta`", turned[name].at[0].metrics))
        lines.append(row(f"{tiles}: moved by a quarter", moved[name].at[0].metrics))
        lines.append(row(f"{tiles}: {baseline}", values))
    return "\n".join(lines)


def round_in_words(run: Path) -> str:
    """How long and how fast a run learnt."""
    config = settings_of(run)
    ended = len(read_log(run / LOG))
    epochs = f"{ended}" if ended == config.epochs else f"the first {ended} of {config.epochs}"
    moved = f", tiles moved by up to {config.shift:g} of their side" if config.shift else ""
    return (
        f"{epochs} epochs at a learning rate of {config.lr} ({config.schedule}), padding "
        f"{UNSEEN_TEXT[config.model.unseen]}{moved}"
    )


def final_in_words(run: Path) -> str:
    """What a final fit does after the run that chose."""
    minutes = sum(entry["seconds"] for entry in read_log(run / LOG)) / 60
    return (
        "The weights are those of a final fit (`lsmap train --final`), after all choices were "
        "made: the\nlast round once more from where it started, as many epochs, on the train and "
        f"validation tiles together; {minutes:.0f} minutes."
    )


def kept_in_words(run: Path) -> str:
    """Which epoch of the run that chose is the best."""
    return f"epoch {read_info(run / BEST).epoch} of the last round is the best by validation IoU"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bijie", type=click.Path(path_type=Path))
@click.argument("sichuan", type=click.Path(path_type=Path))
@click.option("--trained-on", default="one processor", help="Words for the card.")
@click.option(
    "--unseen",
    type=click.Choice(UNSEEN),
    help="How it is to be shown nodata.  [default: as in training]",
)
@click.option(
    "--after",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Run that RUN went on from, the first one first; more than once.",
)
def main(
    run: Path,
    bijie: Path,
    sichuan: Path,
    trained_on: str,
    unseen: str | None,
    after: tuple[Path, ...],
) -> None:
    """Write models/<run's name>.safetensors and its card, and print the test figures.

    RUN may be a final fit; its card tells of the run that chose as well.
    """
    datasets = {"Bijie": load_dataset(bijie), "Sichuan": load_dataset(sichuan)}
    config = settings_of(run)
    chose = Path(config.final) if config.final else run
    model, info = load_model(run / BEST)
    weights = MODELS / f"{run.name}.safetensors"
    info = dataclasses.replace(
        info,
        model=dataclasses.replace(info.model, unseen=unseen or info.model.unseen),
        data="Bijie (Ji et al. 2020), Sichuan (Zeng et al. 2021, CC BY 4.0); see the card",
    )
    save_model(model, info, weights, half=True)
    predict, info = load_predictor(weights, "auto")
    found = {name: evaluate_dataset(predict, info, data) for name, data in datasets.items()}
    turned, moved = (
        {name: evaluate_dataset(view, info, data, tune=False) for name, data in datasets.items()}
        for view in (SymmetryAverage(predict), Quarters(predict))
    )
    seen = [tile for dataset in datasets.values() for tile in dataset.split("val")]
    figures = table(datasets, found, turned, moved)
    chosen = read_info(chose / BEST)
    rounds = [*after, chose]
    logs = [read_log(one / LOG) for one in rounds]
    card = CARD.read_text(encoding="utf-8").format(
        name=info.name,
        last_layer=info.model.last_layer,
        channels=info.model.aspp_channels,
        megabytes=weights.stat().st_size / 1e6,
        tile_size=info.tile_size,
        rounds=", from there\n".join(map(round_in_words, rounds)),
        kept=kept_in_words(chose),
        final=final_in_words(run) if config.final else "The weights are that epoch's.",
        passes=info.epoch + sum(read_info(one / BEST).epoch for one in rounds[:-1]),
        batch_size=config.batch_size,
        optimizer={"sgd": "SGD", "adamw": "AdamW"}[config.optimizer],
        ema=info.model.ema,
        alpha=info.model.alpha,
        beta=info.model.beta if info.model.sfce else "0 (no contrast)",
        gamma=info.model.gamma,
        trained_on=trained_on,
        minutes=sum(entry["seconds"] for log in logs for entry in log) / 60,
        threshold=info.threshold,
        table=figures,
        share=sum(tile.landslide_px for tile in seen) / sum(tile.valid_px for tile in seen),
        scale=info.calibration[0],
        shift=info.calibration[1],
        errors=" and ".join(f"{evaluation.ece:.3f} ({name})" for name, evaluation in found.items()),
        shown=", shown off their middle" if config.shift else "",
        val_iou=chosen.metrics["landslide_iou"],
        val_best=chosen.metrics["landslide_iou_at_threshold"],
    )
    weights.with_suffix(".md").write_text(card, encoding="utf-8")
    click.echo(figures)
    click.echo(f"{weights}: {read_info(weights).name}")


if __name__ == "__main__":
    main()
