"""The labels of a data set: landslides, ground that is neither yes nor no, where labels hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo.crs import crs_code
from landslide_mapper.geo.labels import Labels, OptionNames, read_aoi, read_labels
from landslide_mapper.geo.review import NO, check_conditions, verdicts

OPTIONS = OptionNames("--layer", "--labels-crs")


@dataclass(frozen=True)
class LabelSet:
    """Polygons, each layer in its own CRS.

    Attributes:
        landslides: what is to be learnt; at least one.
        ignored: polygons of the same layer that are neither landslide nor background, if any.
        aoi: where labels hold; None: everywhere.
    """

    landslides: Labels
    ignored: Labels | None
    aoi: Labels | None

    def to_dict(self) -> dict[str, Any]:
        """What ``dataset.json`` says of them."""
        labels = self.landslides
        facts: dict[str, Any] = {
            "path": labels.path,
            "layer": labels.layer,
            "crs": crs_code(labels.crs),
            "landslides": len(labels.polygons),
            **labels.counts.to_dict(),
        }
        if self.ignored is not None:
            counts = self.ignored.counts.to_dict()
            facts["ignore"] = {"polygons": len(self.ignored.polygons), **counts}
        if self.aoi is not None:
            facts["aoi"] = {"path": self.aoi.path, "polygons": len(self.aoi.polygons)}
        return facts


def read_label_set(config: PrepareConfig) -> LabelSet:
    """Read the layers that `config` names.

    Raises:
        LsmapError: one cannot be read, the AOI has no CRS, or no landslide is left.
    """
    assert config.labels is not None  # there are no scenes without
    labels = read_labels(config.labels, config.layer, config.where, config.labels_crs, OPTIONS)
    if not (config.where or config.ignore_where):
        check_conditions(labels.path, labels.layer)
    ignored = None
    if config.ignore_where:
        ignored = read_labels(
            config.labels, config.layer, config.ignore_where, config.labels_crs, OPTIONS
        )
    if config.where and labels.counts.features:
        _warn_of_untaken(labels, ignored)
    if ignored is not None:
        labels = labels.without(ignored)
        if not ignored.counts.features:
            warn(f"{ignored.path}: no feature fulfils --ignore-where {config.ignore_where!r}")
    aoi = read_aoi(config.aoi) if config.aoi else None
    if aoi is not None and aoi.crs is None and labels.crs is not None:
        raise LsmapError(
            f"{aoi.path}: the AOI has no CRS; set it with: ogr2ogr -a_srs EPSG:... OUTPUT INPUT"
        )
    if not len(labels.polygons):
        raise LsmapError(f"{labels.path}: {_none_left(config, labels, ignored)}")
    return LabelSet(labels, ignored, aoi)


def _warn_of_untaken(labels: Labels, ignored: Labels | None) -> None:
    """Say how many features neither --where nor --ignore-where takes: there is background."""
    rest = labels.others
    if ignored is not None:
        rest -= ignored.counts.features - int(labels.among(ignored).sum())
    if rest and rest == verdicts(labels.path, labels.layer)[NO]:
        note(f"{labels.path}: {rest} polygons whose review is '{NO}' count as background")
    elif rest:
        warn(
            f"{labels.path}: {rest} features that no condition takes count as background; "
            "--ignore-where leaves such out"
        )


def _none_left(config: PrepareConfig, labels: Labels, ignored: Labels | None) -> str:
    """Why there is no landslide, in words."""
    if config.where and not labels.counts.features:
        return f"no polygon fulfils --where {config.where!r}"
    if ignored is not None and len(ignored.polygons):
        return (
            "all polygons that would be landslides fulfil --ignore-where "
            f"{config.ignore_where!r} too, which goes before"
        )
    counts = labels.counts
    read = f"{counts.features} features read, {counts.left_out()}"
    return f"no landslide polygon is left ({read})"
