"""Turn a finished run into the model that lsmap carries: weights in float16, card, test figures.

    python examples/bundled_model/finish.py RUN BIJIE SICHUAN

The card is card.md, its blanks filled. RUN is a folder of ``lsmap train``, BIJIE and SICHUAN are
the two datasets it was trained on.
README.md beside this file has the commands that make all three. The figures are pixel metrics on
the test splits, beside those of the best single brightness threshold tuned on the train splits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file

from landslide_mapper.checkpoint import (
    BEST,
    CONFIG,
    LOG,
    ModelInfo,
    load_model,
    read_info,
    save_model,
)
from landslide_mapper.config import read_train_config
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.evaluation.result import Evaluation
from landslide_mapper.metrics import BINS, Curve, histogram, rates
from landslide_mapper.nn.build import build
from landslide_mapper.nn.calibration import Calibration
from landslide_mapper.nn.network import Network
from landslide_mapper.predictors import load_predictor
from landslide_mapper.train import describe
from landslide_mapper.training.history import read_log
from landslide_mapper.training.loaders import make_loaders
from landslide_mapper.training.parallel import Process
from landslide_mapper.training.validation import validate, validation_figures

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


def table(datasets: Mapping[str, Dataset], found: Mapping[str, Evaluation]) -> str:
    """Test figures of the model and of the baseline, as Markdown."""
    lines = [
        "| test split | landslide IoU | precision | recall | F1 | mean IoU | pixel accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, dataset in datasets.items():
        tiles = f"{name}, {len(dataset.split('test'))} tiles"
        baseline, values = brightness_baseline(dataset)
        lines.append(row(f"{tiles}: this model", found[name].at[0].metrics))
        lines.append(row(f"{tiles}: {baseline}", values))
    return "\n".join(lines)


def mean_of(runs: Sequence[Path], datasets: Sequence[Dataset]) -> tuple[Network, ModelInfo]:
    """The network whose weights are the mean of those of runs that went on one from another.

    Such a mean lies further inside the region of good weights than the ends of the runs (Izmailov
    et al. 2018, Averaging weights leads to wider optima and better generalization). Threshold and
    calibration are found anew on the validation tiles.
    """
    infos = [read_info(run / BEST) for run in runs]
    states = []
    for run, info in zip(runs, infos, strict=True):
        model = build(info.model)
        model.load_prediction_state(load_file(run / BEST), Calibration(*info.calibration))
        states.append({name: value.double() for name, value in model.state_dict().items()})
    own = model.state_dict()
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0).to(value.dtype)
        for name, value in own.items()
    }
    model.load_state_dict(mean)
    config = dataclasses.replace(read_train_config(runs[-1] / CONFIG), workers=0)
    process = Process(0, 1, torch.device("cpu"))
    _, _, validation = make_loaders(config, list(datasets), process)
    figures = validation_figures(validate(model, validation, process)) | {"epoch": infos[-1].epoch}
    info = describe(config, list(datasets), runs[-1], figures, "")
    # As in a file: the calibration is in the weights.
    model.load_prediction_state(model.prediction_state(Calibration(*info.calibration)))
    return model, info


def in_words(run: Path) -> str:
    """How long and how fast a run learnt."""
    config = read_train_config(run / CONFIG)
    epochs = len(read_log(run / LOG))
    return f"{epochs} epochs at a learning rate of {config.lr} ({config.schedule})"


def kept_in_words(parts: Sequence[Path]) -> str:
    """Which weights the model has."""
    if len(parts) == 1:
        epoch = read_info(parts[0] / BEST).epoch
        return f"epoch {epoch} of the last round is the best by validation landslide IoU"
    epochs = " and ".join(str(read_info(part / BEST).epoch) for part in parts)
    return (
        f"the weights are the mean of those of the last {len(parts)} rounds' best epochs by\n"
        f"validation landslide IoU ({epochs})"
    )


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bijie", type=click.Path(path_type=Path))
@click.argument("sichuan", type=click.Path(path_type=Path))
@click.option("--mean", is_flag=True, help="Take the mean of RUN's weights and the run's before.")
@click.option("--trained-on", default="one processor", help="Words for the card.")
@click.option(
    "--after",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Run that RUN went on from, the first one first; more than once.",
)
def main(
    run: Path, bijie: Path, sichuan: Path, mean: bool, trained_on: str, after: tuple[Path, ...]
) -> None:
    """Write models/<run's name>.safetensors and its card, and print the test figures."""
    datasets = {"Bijie": load_dataset(bijie), "Sichuan": load_dataset(sichuan)}
    runs = [*after, run]
    parts = runs[-2:] if mean else [run]
    model, info = mean_of(parts, list(datasets.values())) if mean else load_model(run / BEST)
    weights = MODELS / f"{run.name}.safetensors"
    info = dataclasses.replace(
        info, data="Bijie (Ji et al. 2020), Sichuan (Zeng et al. 2021, CC BY 4.0); see the card"
    )
    save_model(model, info, weights, half=True)
    predict, info = load_predictor(weights, "auto")
    found = {name: evaluate_dataset(predict, info, data) for name, data in datasets.items()}
    seen = [tile for dataset in datasets.values() for tile in dataset.split("val")]
    figures = table(datasets, found)
    config = read_train_config(run / CONFIG)
    chosen = read_info(Path(config.final) / BEST) if config.final else info
    logs = [read_log(one / LOG) for one in runs]
    card = CARD.read_text(encoding="utf-8").format(
        name=info.name,
        last_layer=info.model.last_layer,
        channels=info.model.aspp_channels,
        megabytes=weights.stat().st_size / 1e6,
        tile_size=info.tile_size,
        rounds=", from there\n".join(map(in_words, runs)),
        kept=kept_in_words(parts),
        passes=info.epoch + sum(map(len, logs[:-1])),
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
        val_iou=chosen.metrics["landslide_iou"],
        val_best=chosen.metrics["landslide_iou_at_threshold"],
    )
    weights.with_suffix(".md").write_text(card, encoding="utf-8")
    click.echo(figures)
    click.echo(f"{weights}: {read_info(weights).name}")


if __name__ == "__main__":
    main()
