"""Label layers: features, what of them is usable, CRS and area."""

from __future__ import annotations

from typing import Any

import pyogrio
import shapely
from affine import Affine

from landslide_mapper.geo.crs import crs_code, degrees_per_unit, unit_metres
from landslide_mapper.geo.gdal import read_info
from landslide_mapper.geo.labels import Labels, open_vector, read_labels
from landslide_mapper.geo.measure import Measurer
from landslide_mapper.geo.review import ACCEPTED, FIELDS, NOT_REVIEWED, YES, verdicts
from landslide_mapper.inspection.facts import Fact, Report, crs_text
from landslide_mapper.shell import command_line

# By which fields lsmap's own layers are told that are no labels: squares, two inventories in one.
TILES = {"tile_id", "split", "landslide_fraction"}
VERDICTS = {"role", "verdict", "partner"}


def label_report(path: str) -> Report:
    """Every layer of a vector file, with its usable polygons and their geodesic area."""
    vector = open_vector(path)
    rows = [_layer(path, vector, str(name), kind) for name, kind in pyogrio.list_layers(vector)]
    layers = [values for values, _ in rows]
    text = "\n".join(text for _, text in rows)
    return Report("labels", path, (Fact("layers", "layers", layers, text),), _command(path, layers))


def _command(path: str, layers: list[dict[str, Any]]) -> str | None:
    """How to make a data set of the polygons; of a map of lsmap's, of those that were accepted."""
    fields = set().union(*(layer["fields"] for layer in layers))
    if fields >= TILES or fields >= VERDICTS or not any(layer.get("usable") for layer in layers):
        return None
    command = f"lsmap prepare SCENE... {command_line(path)}"
    if fields.issuperset(FIELDS):
        if not any(layer.get("review", {}).get(YES) for layer in layers):
            return None
        command += f' --where "{ACCEPTED}" --ignore-where "{NOT_REVIEWED}"'
    return command


def _layer(
    path: str, vector: str | bytes, name: str, kind: str | None
) -> tuple[dict[str, Any], str]:
    """One layer: JSON values, and lines of text."""
    meta = read_info(vector, layer=name)
    fields = [str(f) for f in meta["fields"]]
    row: dict[str, Any] = {"layer": name, "geometry": kind, "fields": fields}
    if kind is None:
        return row, f"{name}: table without geometry"
    labels = read_labels(path, layer=name)
    area, reason = _area(labels)
    row |= {"crs": crs_code(labels.crs), "usable": len(labels.polygons)}
    row |= {**labels.counts.to_dict(), "area_m2": area}
    counts, reviewed = labels.counts, verdicts(path, name)
    ours = set(fields).issuperset(FIELDS)
    if ours:
        row["review"] = dict(reviewed)
    said = [f"{count} {verdict}" for verdict, count in sorted(reviewed.items(), reverse=True)]
    said.append(f"{counts.features - reviewed.total()} not looked at")
    text = "\n".join(
        [
            f"{name}: {counts.features} features, {kind}",
            f"  CRS       {crs_text(labels.crs) if labels.crs else 'none'}",
            f"  polygons  {len(labels.polygons)} usable, {counts.repaired} of them repaired",
            f"  left out  {counts.left_out()}",
            f"  area      {reason if area is None else f'{area:,.1f} m² (geodesic)'}",
            f"  fields    {', '.join(fields) or 'none'}",
            *([f"  review    {', '.join(said)}"] if ours else []),
        ]
    )
    return row, text


def _area(labels: Labels) -> tuple[float | None, str]:
    """Total geodesic area in m², or None and why not."""
    if labels.crs is None:
        return None, "unknown without a CRS"
    if labels.crs.is_geocentric:
        return None, "unknown: geocentric coordinates are not a map"
    if labels.crs.is_geographic and len(labels.polygons):
        south, north = shapely.total_bounds(labels.polygons)[1::2] * degrees_per_unit(labels.crs)
        if south < -90 or north > 90:
            return None, "unknown: the coordinates are no longitudes and latitudes, as its CRS has"
    measurer = Measurer(labels.crs, Affine.identity(), unit_metres(labels.crs))
    if not measurer.metric:
        return None, "unknown: the CRS has no ellipsoid"
    return float(measurer.area(shapely.get_parts(labels.polygons)).sum()), ""
