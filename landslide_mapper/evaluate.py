"""``lsmap evaluate``: a model on a prepared data set, or one inventory against another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landslide_mapper.checkpoint import BEST, BUNDLED, CONFIG, SUFFIX, ModelInfo, find_model
from landslide_mapper.data.manifest import MANIFEST, Dataset, is_dataset, load_dataset
from landslide_mapper.device import enough_memory
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.evaluation.inventories import (
    FALSE_ALARM,
    MISSED,
    PARTIAL,
    Comparison,
    compare,
)
from landslide_mapper.evaluation.inventories import summary as compared
from landslide_mapper.geo.labels import is_vector
from landslide_mapper.geo.scene_files import check_no_input
from landslide_mapper.geo.views import Quarters, SymmetryAverage
from landslide_mapper.predictors import ONNX_SUFFIX, info_of, is_onnx, load_predictor
from landslide_mapper.shell import command_line
from landslide_mapper.staging import Staging, check_folder, check_letters, writing

if TYPE_CHECKING:
    from landslide_mapper.evaluation.result import Evaluation
    from landslide_mapper.geo.blend import Predictor

METRICS = "metrics.json"
PAGE, CURVES, WORST_TILES, BEST_TILES = "report.html", "curves.png", "worst.png", "best.png"
VERDICTS = "verdicts.gpkg"
RESULTS = (VERDICTS, CURVES, WORST_TILES, BEST_TILES, PAGE, METRICS)
COLUMNS = 3  # of tiles in a picture


@dataclass(frozen=True)
class EvaluateConfig:
    """What was asked for.

    Attributes:
        reference: data set folder, or the inventory that is taken for true.
        output: folder for the results.
        subject: model file, run folder, or the inventory that is judged; None: the newest run,
            else the bundled model.
        split: of the data set; None: test.
        threshold: probability from which a pixel is landslide; None: the model's.
        tune: also measure at the best threshold of the validation split.
        moved: predict each quarter of a tile from a window about it, so that what lies in the
            middle of a tile does not lie in the middle of a window.
        tta: predict as `detect --tta` does, with the mean over 8 flips and turns.
        device: auto, cpu, cuda or cuda:N.
        aoi: polygons of the ground that both inventories cover.
        layer, reference_layer: of the inventories, where a file has several.
        overwrite: replace the results that are there.
    """

    reference: str
    output: Path
    subject: str | None = None
    split: str | None = None
    threshold: float | None = None
    tune: bool = True
    moved: bool = False
    tta: bool = False
    device: str = "auto"
    aoi: str | None = None
    layer: str | None = None
    reference_layer: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class EvaluateReport:
    """What was found, and the file to look at."""

    result: Evaluation | Comparison
    table: tuple[str, ...]
    look_at: Path


def evaluate(config: EvaluateConfig) -> EvaluateReport:
    """Measure a model or an inventory and write the results into a folder.

    A model: metrics.json, report.html, curves.png, worst.png, best.png. Inventories:
    metrics.json, verdicts.gpkg. The folder's files appear when all is done.

    Raises:
        LsmapError: bad input or options, or results that exist. LsmapFailure: a tile cannot be
            read, the disk does not take the results, or the device's memory does not do.
    """
    _check_output(config)
    with writing(config.output, "the results"):
        if is_dataset(config.reference):
            return _model(config)
        return _inventories(config)


# --- a model on a data set -------------------------------------------------------------------


def _model(config: EvaluateConfig) -> EvaluateReport:
    from landslide_mapper.evaluation.model import check, evaluate_dataset

    _refuse(config, "a model", aoi=None, layer=None, reference_layer=None)
    if config.subject is not None and not _is_model(config.subject):
        raise LsmapError(
            f"{config.subject}: is no model (*{SUFFIX}, *{ONNX_SUFFIX}, or the folder of a run), "
            f"and {config.reference} is a data set; to compare polygons, give two vector files"
        )
    path, why = find_model(config.subject)
    split = config.split or "test"
    dataset = load_dataset(config.reference)
    check(info_of(path), dataset, split, config.threshold)
    with enough_memory(lambda: "give --device cpu, or prepare with a smaller --tile-size"):
        predict, info = load_predictor(path, config.device, dataset.tile_size)
        _check_tile_size(path, info, dataset.tile_size, config.reference)
        note(f"model {info.name} ({why}: {path})")
        if dataset.centred(split) and not config.moved:
            warn(
                f"{dataset.middle_in_words(split)}, so these figures flatter a network that looks "
                "there only; --moved shows tiles off the middle"
            )
        if config.moved and info.model.unseen == "mean":
            warn(
                f"{info.name} is shown the frames of moved tiles in the mean colour, which windows "
                "of a scene do not have and which may tell it where the middle is"
            )
        answer = _answering(predict, config)
        found = evaluate_dataset(answer, info, dataset, split, config.threshold, config.tune)
        found = replace(found, moved=config.moved, tta=config.tta)
        with Staging(config.output) as staging:
            stage = _stager(config, staging)
            _write_pictures(answer, found, dataset, stage)
            stage(METRICS).write_text(_json(found.to_dict()), encoding="utf-8")
            staging.publish()
    return EvaluateReport(found, tuple(found.lines()), config.output / PAGE)


def _answering(predict: Predictor, config: EvaluateConfig) -> Predictor:
    if config.moved:
        predict = Quarters(predict)
    return SymmetryAverage(predict) if config.tta else predict


def _is_model(subject: str) -> bool:
    if subject == BUNDLED:
        return True
    path = Path(subject)
    if path.suffix.lower() == SUFFIX or is_onnx(path):
        return True
    return any((path / name).is_file() for name in (CONFIG, BEST))


def _check_tile_size(path: Path, info: ModelInfo, tile_size: int, dataset: str) -> None:
    if is_onnx(path) and info.tile_size != tile_size:
        raise LsmapError(
            f"{path} takes windows of {info.tile_size} pixels only, {dataset} has tiles of "
            f"{tile_size}; evaluate the {SUFFIX} model that it was exported from"
        )


def _write_pictures(
    predict: Predictor, found: Evaluation, dataset: Dataset, stage: Callable[[str], Path]
) -> None:
    from landslide_mapper.evaluation.page import render
    from landslide_mapper.evaluation.pictures import choose_tiles, curves, gallery

    tiles = dataset.split(found.split)
    chosen = choose_tiles(found.at[0])
    drawn = {CURVES: curves(found)}
    for name, numbers in ((WORST_TILES, chosen.worst), (BEST_TILES, chosen.best)):
        if numbers:
            shown = [tiles[number] for number in numbers]
            drawn[name] = gallery(predict, found, shown, COLUMNS)
    for name, picture in drawn.items():
        stage(name).write_bytes(picture)
    page = render(found, drawn[CURVES], drawn.get(WORST_TILES), drawn.get(BEST_TILES))
    stage(PAGE).write_text(page, encoding="utf-8")


# --- two inventories -------------------------------------------------------------------------


def _inventories(config: EvaluateConfig) -> EvaluateReport:
    from landslide_mapper.evaluation.result import object_lines
    from landslide_mapper.evaluation.verdicts import write_verdicts

    if config.subject is not None and is_dataset(config.subject):
        raise LsmapError(
            f"{config.subject}: a data set comes last, after the model: lsmap evaluate MODEL "
            f"{command_line(config.subject)}"
        )
    if config.subject is None or _is_model(config.subject):
        raise LsmapError(
            f"{config.reference}: is no data set (no {MANIFEST} in it), and a model is measured "
            "on one; make it with: lsmap prepare SCENE... LABELS"
        )
    for path in (config.subject, config.reference):
        if not is_vector(path):
            raise LsmapError(
                f"{path}: neither a vector layer that GDAL can read, nor a data set of lsmap "
                "prepare; give MODEL DATASET, or two vector files"
            )
    of_models = {"split": None, "threshold": None, "tune": True, "moved": False, "tta": False}
    _refuse(config, "inventories", **of_models, device="auto")
    found = compare(
        config.subject, config.reference, config.aoi, config.layer, config.reference_layer
    )
    with Staging(config.output) as staging:
        stage = _stager(config, staging)
        write_verdicts(stage(VERDICTS), found)
        stage(METRICS).write_text(_json(found.to_dict()), encoding="utf-8")
        staging.publish()
    reference, mapped = found.reference.counts(), found.mapped.counts()
    last = (
        f"{reference.get(MISSED, 0)} missed; of the mapped {mapped.get(PARTIAL, 0)} partly right, "
        f"{mapped.get(FALSE_ALARM, 0)} false alarms"
    )
    table = [*compared(found), *object_lines(found.objects), last]
    return EvaluateReport(found, tuple(table), config.output / VERDICTS)


# --- the folder of results -------------------------------------------------------------------


def _refuse(config: EvaluateConfig, what: str, **defaults: Any) -> None:
    """Raise `LsmapError` for options that mean nothing here."""
    for name, default in defaults.items():
        if getattr(config, name) != default:
            option = "no-tune" if name == "tune" else name.replace("_", "-")
            raise LsmapError(f"--{option} has no meaning for {what}; leave it out")


def _check_output(config: EvaluateConfig) -> None:
    folder = config.output
    check_letters(folder.resolve())
    if folder.is_file():
        raise LsmapError(f"{folder}: this is a file; -o names a folder for the results")
    check_folder(folder if folder.is_dir() else folder.resolve().parent)
    given = (config.subject, config.reference, config.aoi)
    check_no_input([folder / name for name in RESULTS], (), given)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not config.overwrite:
        raise LsmapError(
            f"{folder}: exists already; choose another with -o, or replace it with --overwrite"
        )
    if not (folder / METRICS).is_file():
        raise LsmapError(f"{folder}: holds no evaluation, so --overwrite leaves it alone")


def _stager(config: EvaluateConfig, staging: Staging) -> Callable[[str], Path]:
    """Where to make each result; those of an earlier evaluation that are not made anew go."""
    made = {name: staging.stage(config.output.resolve() / name, optional=True) for name in RESULTS}
    return made.__getitem__


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
