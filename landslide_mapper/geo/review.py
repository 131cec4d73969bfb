"""Maps of lsmap that people have gone through: a verdict in the field `review` of each polygon."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from pyogrio.errors import DataLayerError, DataSourceError

from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo.gdal import read_info, read_raw
from landslide_mapper.geo.labels import Labels, OptionNames, open_vector, read_labels
from landslide_mapper.geo.style import TIMESTAMP
from landslide_mapper.geo.vector_formats import FIELDS as ALL_FIELDS
from landslide_mapper.geo.vector_formats import LAYER, SHAPEFILE_NAMES, ask_geopackage

YES, NO = "yes", "no"
FIELDS = ("id", "confidence", "review")  # by which such a map is told
WRITTEN = {*ALL_FIELDS, *SHAPEFILE_NAMES.values(), "fid"}
ACCEPTED = f"review = '{YES}'"
NOT_REVIEWED = f"review IS NULL OR review NOT IN ('{YES}', '{NO}')"


def is_map(path: str, layer: str | None = None) -> bool:
    """Whether a layer is a map of lsmap's.

    Raises:
        LsmapError: see `landslide_mapper.geo.labels.open_vector`.
    """
    return set(FIELDS) <= _fields(path, layer)


def verdicts(path: str, layer: str | None = None) -> Counter[str]:
    """How many polygons have which verdict; none where the layer is no map of lsmap's.

    Raises:
        LsmapError: see `landslide_mapper.geo.labels.open_vector`.
    """
    return _count(_columns(path, layer))


def work_in(path: str, layer: str | None = None) -> str:
    """What of people's work is in a layer, in words; "" for a map as lsmap has written it.

    Raises:
        LsmapError: see `landslide_mapper.geo.labels.open_vector`.
    """
    if columns := _columns(path, layer):
        return _work(path, layer, columns)
    try:
        foreign = read_info(open_vector(path), layer=layer)["features"] != 0
    except (DataSourceError, DataLayerError):
        return ""
    return "its polygons are not a map of lsmap's" if foreign else ""


def _work(path: str, layer: str | None, columns: dict[str, np.ndarray]) -> str:
    if count := _count(columns).total():
        return f"{count} of its polygons have been reviewed"
    try:
        numbers, confidence = (columns[name].astype(np.float64) for name in ("id", "confidence"))
    except ValueError:
        return "its ids or confidences are not those that lsmap gives"
    whole = np.array_equal(np.sort(numbers), np.arange(1, len(numbers) + 1))
    if np.isnan(confidence).any() or not whole:
        return "polygons have been drawn or deleted in it"
    if more := sorted(_fields(path, layer) - WRITTEN):
        return f"it has got the field{'s' * (len(more) > 1)} {', '.join(more)}"
    return "it has been edited" if _written_to(path, layer or LAYER) else ""


def _written_to(path: str, layer: str) -> bool:
    """Whether a GeoPackage notes another time for a layer than lsmap gives to its own."""
    query = "SELECT last_change FROM gpkg_contents WHERE table_name = ?"
    return any(time != TIMESTAMP for (time,) in ask_geopackage(Path(path), query, layer))


def _count(columns: dict[str, np.ndarray]) -> Counter[str]:
    said = (verdict for verdict in columns.get("review", ()) if verdict)
    return Counter(str(verdict) for verdict in said if verdict == verdict)  # numbers: NaN is null


def _columns(path: str, layer: str | None) -> dict[str, np.ndarray]:
    """The columns `FIELDS` of a map of lsmap's; nothing of any other layer."""
    if not is_map(path, layer):
        return {}
    meta, _, _, columns = read_raw(
        open_vector(path), layer=layer, columns=list(FIELDS), read_geometry=False
    )
    return dict(zip(map(str, meta["fields"]), columns, strict=True))


def _fields(path: str, layer: str | None) -> set[str]:
    """The names of a layer's fields; none of what cannot be read."""
    try:
        return set(map(str, read_info(open_vector(path), layer=layer)["fields"]))
    except (DataSourceError, DataLayerError):
        return set()


def read_unrejected(path: str, layer: str | None, options: OptionNames) -> Labels:
    """The polygons of a layer, but for those that somebody has said "no" to.

    Raises:
        LsmapError: see `landslide_mapper.geo.labels.read_labels`.
    """
    labels = read_labels(path, layer, options=options)
    count = verdicts(path, labels.layer)[NO]
    if count:
        labels = labels.without(read_labels(path, labels.layer, f"review = '{NO}'"))
        note(f"{path}: {count} polygons whose review is '{NO}' are left out")
    return labels


def check_conditions(path: str, layer: str | None) -> None:
    """Raise `LsmapError` where verdicts would be passed over for want of conditions.

    Warns of a map as lsmap wrote it, which nobody has reviewed or edited.
    """
    columns = _columns(path, layer)
    if _count(columns):
        raise LsmapError(
            f"{path}: its polygons have been reviewed; say which are landslides: "
            f'--where "{ACCEPTED}" --ignore-where "{NOT_REVIEWED}"'
        )
    if columns and not _work(path, layer, columns):
        warn(
            f"{path}: lsmap mapped this and nobody has reviewed it; all of it becomes landslide, "
            "false alarms as well"
        )
