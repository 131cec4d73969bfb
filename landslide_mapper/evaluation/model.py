"""A model on one split of a prepared data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.config import SPLITS
from landslide_mapper.data.manifest import Dataset, Tile
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.evaluation.boundary import boundary_counts
from landslide_mapper.evaluation.objects import ObjectTable, score, source_counts
from landslide_mapper.evaluation.result import (
    OVERLAPPING,
    UNDRAWN,
    AtThreshold,
    Evaluation,
    bootstrap_units,
)
from landslide_mapper.evaluation.tiles import Answer, Ground, answers, survey
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.learnt import learnt, learnt_validation, warn_of_another
from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.metrics import (
    BINS,
    CALIBRATION_BINS,
    Curve,
    confusion,
    histogram,
    reliability,
)
from landslide_mapper.serving import odd_size

FLATTER = "the figures flatter it, and only those of the test split say what it can do"


def evaluate_dataset(
    predict: Predictor,
    info: ModelInfo,
    dataset: Dataset,
    split: str = "test",
    threshold: float | None = None,
    tune: bool = True,
) -> Evaluation:
    """Predict all tiles of a split and measure the answers.

    Args:
        predict: see `landslide_mapper.geo.blend.Predictor`; any callable on batches will do.
        info: what the model says about itself.
        dataset: made by ``lsmap prepare``.
        split: "train", "val" or "test".
        threshold: probability from which a pixel is landslide; None: the model's.
        tune: also find the best threshold on "val" (unless that is the split itself, is empty, or
            was trained on) and measure at that one. It takes a pass over those tiles.

    Every tile counts as it is: where tiles overlap, pixels and landslides count as often as tiles
    show them, which is said.

    Raises:
        LsmapError: a split without landslides, or tiles that the model cannot
            take. LsmapFailure: a tile cannot be read.
    """
    check(info, dataset, split, threshold)
    _warn(info, dataset, split)
    chosen = [(info.threshold_or(threshold), "model" if threshold is None else "given")]
    unseen = () if split == "val" or _validation_learnt(info, dataset) else dataset.split("val")
    if tune and any(tile.landslide_px for tile in unseen):
        best = _curve(predict, unseen, "val").best_threshold()
        chosen.append((best, "validation"))
    tiles = dataset.split(split)
    ground = survey(dataset, tiles)
    if ground.overlapping:
        warn(f"{dataset.root}: {OVERLAPPING}; to measure, prepare without --stride and --sampling")
    scorers = [_Scorer(value, origin) for value, origin in chosen]
    unit = bootstrap_units(len(ground.sources), ground.source)
    counted = np.zeros((unit.max() + 1, 2, BINS), np.int64)
    calibration = np.zeros((3, CALIBRATION_BINS))
    for answer in answers(predict, tiles, split):
        counted[unit[answer.number]] += histogram(answer.probability, answer.labels)
        calibration += reliability(answer.probability, answer.labels)
        for scorer in scorers:
            scorer.add(answer, ground)
    return Evaluation(
        model=info.name,
        dataset=str(dataset.root),
        split=split,
        tiles=tuple(tile.tile_id for tile in tiles),
        sources=ground.sources,
        source=ground.source,
        at=tuple(scorer.finish(ground) for scorer in scorers),
        unit_counted=counted,
        calibration=calibration,
        overlapping=ground.overlapping,
        undrawn=dataset.undrawn(split),
    )


def _warn(info: ModelInfo, dataset: Dataset, split: str) -> None:
    """Say what makes the figures mean less than they seem to."""
    if dataset.radiometry_rule != info.radiometry:
        warn(
            f"{dataset.root} was prepared with --stretch {dataset.radiometry_rule}, the model "
            f"{info.name} was trained with {info.radiometry}: the figures are not what it can do"
        )
    if odd := odd_size(dataset.gsd, info):
        warn(f"{dataset.root}: {odd}, so the figures are not what it can do")
    if dataset.tile_size != info.tile_size:
        note(
            f"{dataset.root} has tiles of {dataset.tile_size} pixels; detect shows {info.name} "
            f"windows of {info.tile_size}, which have other ground around a pixel"
        )
    if undrawn := dataset.undrawn(split):
        note(
            f"{dataset.root}, {split}: {undrawn} {UNDRAWN}; to measure as a whole scene would, "
            "prepare with --negatives all"
        )
    warn_of_another(info, dataset, "tiles that are tested now may have been learnt")
    if split == "val" and _validation_learnt(info, dataset):
        warn(
            f"{info.name} was trained on validation tiles as well: if on these, the figures prove "
            "nothing"
        )
    elif split == "val" and learnt(info, dataset):
        note(
            f"epoch, threshold and calibration of {info.name} were chosen by these tiles: {FLATTER}"
        )
    elif split == "train" and learnt(info, dataset):
        note(f"{info.name} was trained on these tiles: {FLATTER}")


def _validation_learnt(info: ModelInfo, dataset: Dataset) -> bool:
    """Whether validation may show nothing; a final fit itself is not trusted on any data set."""
    return info.final or learnt_validation(info, dataset)


def check(info: ModelInfo, dataset: Dataset, split: str, threshold: float | None) -> None:
    """Raise `LsmapError` unless the model can be measured on the split."""
    info.threshold_or(threshold)
    if split not in SPLITS:
        raise LsmapError(f"--split {split!r} must be one of {', '.join(SPLITS)}")
    if not any(tile.landslide_px for tile in dataset.split(split)):
        raise LsmapError(
            f"{dataset.root}: no landslide in its {split!r} split, so there is nothing to measure; "
            "choose another with --split"
        )
    if dataset.band_count != info.band_count:
        raise LsmapError(
            f"{dataset.root} has tiles of {dataset.band_count} bands, the model {info.name} takes "
            f"{info.band_count}; prepare the scenes again with --bands"
        )


def _curve(predict: Predictor, tiles: Sequence[Tile], what: str) -> Curve:
    """Of the ground that the tiles stand for."""
    counted = np.zeros((2, BINS))
    for answer in answers(predict, tiles, what):
        weight = tiles[answer.number].stands_for
        counted += weight * histogram(answer.probability, answer.labels)
    return Curve.of(counted)


class _Scorer:
    """Collects what "landslide where p >= threshold" gives, tile by tile."""

    def __init__(self, threshold: float, origin: str) -> None:
        self._threshold = threshold
        self._origin = origin
        self._counts: list[np.ndarray] = []
        self._boundary: list[np.ndarray] = []
        self._objects = ObjectTable()

    def add(self, answer: Answer, ground: Ground) -> None:
        """Count one tile."""
        valid = answer.labels != IGNORE
        reference = answer.labels == LANDSLIDE
        mapped = (answer.probability >= self._threshold) & valid
        self._counts.append(confusion(mapped, answer.labels))
        self._boundary.append(boundary_counts(mapped, reference, valid))
        number = answer.number
        self._objects.add(
            reference,
            mapped,
            float(ground.pixels[number]),
            int(ground.source[number]),
            ground.places[number],
        )

    def finish(self, ground: Ground) -> AtThreshold:
        """The metrics of all tiles."""
        objects = self._objects.finish()
        return AtThreshold(
            threshold=self._threshold,
            origin=self._origin,
            counts=np.stack(self._counts),
            boundary=np.stack(self._boundary),
            objects=score(
                objects.reference, objects.mapped, objects.match(), objects.found(), ground.unit
            ),
            source_objects=source_counts(objects, len(ground.sources)),
        )
