"""What lsmap itself writes: datasets, runs and models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from landslide_mapper.checkpoint import BEST, LOG, ModelInfo
from landslide_mapper.config import SPLITS
from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.data.report import train_command
from landslide_mapper.geo.scene_info import band_list
from landslide_mapper.inspection.facts import Fact, Report, plain
from landslide_mapper.predictors import info_of, scene_inside
from landslide_mapper.shell import command_line, mapping_command
from landslide_mapper.training.history import best_row, measured, read_log
from landslide_mapper.training.runs import settings_of

UNSEEN_TEXT = {"mirror": "shown as mirrored ground", "mean": "shown as the mean colour"}


def dataset_report(path: str) -> Report:
    """Tiles of a dataset by split, and how they were made."""
    dataset = load_dataset(Path(path))
    info = dataset.info
    splits = {name: _split_counts(dataset.split(name)) for name in SPLITS}
    facts = (
        Fact("tiles", "tiles", len(dataset.tiles), f"{len(dataset.tiles)} in all"),
        Fact("splits", "splits", splits, _split_table(splits)),
        _middle(dataset),
        plain("tile_size", "tile size", dataset.tile_size, " pixels"),
        Fact("bands", "bands", list(dataset.bands), band_list(dataset.bands)),
        plain("radiometry", "radiometry", dataset.radiometry_rule),
        plain("gsd_m", "pixel size", dataset.gsd, " m"),
        _sources(info.get("sources", [])),
        plain("created", "created", info.get("created")),
        plain("lsmap_version", "by lsmap", info.get("lsmap_version")),
    )
    return Report("dataset", path, facts, train_command(dataset))


def _middle(dataset: Dataset) -> Fact:
    """How much of the landslide lies where a network would learn to look only."""
    share = dataset.in_the_middle()
    lies = "of the train tiles' landslide lies in their middle quarter"
    text = "not known" if share is None else f"{share:.0%} {lies}"
    return Fact("in_the_middle", "middle", share, text)


def _split_counts(tiles: tuple[Any, ...]) -> dict[str, float]:
    landslide, valid = sum(t.landslide_px for t in tiles), sum(t.valid_px for t in tiles)
    return {
        "tiles": len(tiles),
        "positive_tiles": sum(t.landslide_px > 0 for t in tiles),
        "landslide_px": landslide,
        "valid_px": valid,
        "landslide_share": round(landslide / valid, 6) if valid else 0.0,
    }


def _split_table(splits: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':<6}{'tiles':>8}{'with landslide':>16}{'landslide pixels':>18}"]
    for name, row in splits.items():
        lines.append(
            f"{name:<6}{row['tiles']:>8}{row['positive_tiles']:>16}{row['landslide_share']:>18.2%}"
        )
    return "\n".join(lines)


def _sources(sources: list[dict[str, Any]]) -> Fact:
    names = [str(source.get("name", source.get("path", "?"))) for source in sources]
    shown = names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"]
    return Fact("sources", "sources", names, "\n".join(shown) or "unknown")


def run_report(path: str) -> Report:
    """Settings of a run, how far it is, and its best model."""
    folder, command = Path(path), None
    config = settings_of(folder)
    model = config.model
    facts = [
        Fact("datasets", "datasets", list(config.datasets), ", ".join(config.datasets)),
        Fact(
            "backbone",
            "network",
            model.backbone,
            f"{model.arch}, {model.backbone} up to layer{model.last_layer}, start {config.weights}",
        ),
        Fact(
            "epochs",
            "settings",
            config.epochs,
            f"{config.epochs} epochs, batch {config.batch_size}, lr {config.lr:g}, "
            f"seed {config.seed}",
        ),
        _log(folder / LOG),
    ]
    best = folder / BEST
    if best.is_file():
        facts += model_report(str(best)).facts
        command = f"lsmap evaluate {command_line(path)} DATASET"
    else:
        facts.append(Fact("model", "model", None, f"none yet ({BEST} is not there)"))
    return Report("run", path, tuple(facts), command)


def _log(path: Path) -> Fact:
    """The last epoch and the best one by validation landslide IoU."""
    rows = read_log(path) if path.is_file() else []
    # JSON has no NaN, which is what the losses of resting parts are.
    rows = [{name: x for name, x in row.items() if not math.isnan(x)} for row in rows]
    if not rows:
        return Fact("log", "log", None, "no epoch has ended yet")
    best = best_row(rows)
    text = f"{len(rows)} epochs ended; "
    if measured(rows):
        text += f"best landslide IoU on validation {best['landslide_iou']:.4f}"
        text += f" in epoch {best['epoch']:.0f}"
    else:
        text += "validation is trained on as well"
    return Fact("log", "log", {"epochs": len(rows), "best": best, "last": rows[-1]}, text)


def model_report(path: str) -> Report:
    """What a model file says about itself."""
    file, info, scene = Path(path), info_of(path), scene_inside(path)
    size = file.stat().st_size
    card = file.with_suffix(".md")
    metrics = {name: value for name, value in info.metrics.items() if math.isfinite(value)}
    facts = (
        plain("name", "name", info.name),
        Fact("arch", "network", info.arch, f"{info.arch}, {info.backbone}"),
        Fact("model_bands", "bands", list(info.bands), band_list(info.bands)),
        _stretch(info, scene),
        Fact("unseen", "nodata", info.model.unseen, UNSEEN_TEXT[info.model.unseen]),
        plain("tile_size", "tile size", info.tile_size, " pixels"),
        plain("gsd_m", "pixel size", info.gsd, " m"),
        plain("threshold", "threshold", info.threshold),
        Fact("calibration", "calibration", list(info.calibration), _calibration(info)),
        Fact("metrics", "validation", metrics, _metrics_text(metrics)),
        Fact("data", "trained on", info.data, info.data or "not said"),
        plain("epoch", "epoch", info.epoch),
        plain("created", "created", info.created or None),
        Fact("bytes", "file", size, f"{size / 1e6:.1f} MB, written by lsmap {info.lsmap_version}"),
        Fact("card", "card", str(card) if card.is_file() else None, _card_text(card)),
    )
    # With the stretch of one scene inside it is for other tools.
    return Report("model", path, facts, None if scene else mapping_command(path))


def _stretch(info: ModelInfo, scene: str | None) -> Fact:
    """What pixels the model wants to be fed; `scene` is that whose stretch is inside."""
    if scene is None:
        return plain("radiometry", "radiometry", info.radiometry)
    text = f"{info.radiometry}; that of {scene} is inside: feed raw pixels of it, and of no other"
    return Fact("radiometry", "radiometry", {"rule": info.radiometry, "scene": scene}, text)


def _calibration(info: ModelInfo) -> str:
    scale, shift = info.calibration
    return f"logits × {scale:.3f} {'-' if shift < 0 else '+'} {abs(shift):.3f}, in the weights"


def _metrics_text(metrics: dict[str, float]) -> str:
    return "\n".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "not said"


def _card_text(card: Path) -> str:
    return str(card) if card.is_file() else "none beside the file"
