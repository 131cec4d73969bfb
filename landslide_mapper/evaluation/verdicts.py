"""The landslides of two inventories with their verdicts as one layer that QGIS opens in colours."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pyogrio
import pyproj
import shapely

from landslide_mapper.errors import note
from landslide_mapper.evaluation.inventories import (
    FALSE_ALARM,
    MATCH,
    MISSED,
    PARTIAL,
    Comparison,
    Judged,
)
from landslide_mapper.geo.crs import (
    crs_name,
    degrees_per_unit,
    eastward,
    goes_round,
    moved,
    mover,
    repaired,
    same_crs,
    transformer,
)
from landslide_mapper.geo.gdal import new_layer
from landslide_mapper.geo.style import add_default_style, fill_layer, fill_symbol, vector_qml

LAYER = "verdicts"

# Role, verdict, colour, words: the reference is filled, what was mapped is an outline over it.
LEGEND = (
    ("reference", MATCH, (0, 158, 115), "reference: matched"),
    ("reference", PARTIAL, (240, 228, 66), "reference: found in part"),
    ("reference", MISSED, (213, 94, 0), "reference: missed"),
    ("mapped", MATCH, (0, 90, 66), "mapped: matched"),
    ("mapped", PARTIAL, (0, 114, 178), "mapped: partly right"),
    ("mapped", FALSE_ALARM, (204, 0, 120), "mapped: false alarm"),
)


def write_verdicts(path: Path, comparison: Comparison) -> None:
    """Write both inventories into a GeoPackage, in the CRS of the reference.

    Fields: role (reference or mapped), verdict, fid_in (id in its own file), area_m2 (inside the
    AOI; null without a CRS), iou, covered, partner (fid of the one-to-one partner in the other
    file). What that CRS does not reach has no shape, which is said. Raises `OSError` when the file
    cannot be written.
    """
    crs = comparison.reference.crs
    shapes = np.concatenate([comparison.reference.polygons, _in_crs(comparison.mapped, crs)])
    sides = (
        _columns(comparison.reference, "reference", comparison.unit),
        _columns(comparison.mapped, "mapped", comparison.unit),
    )
    columns = {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}
    no_partner = columns["partner"] < 0
    given = f"{comparison.mapped.path} against {comparison.reference.path}"
    with new_layer():
        pyogrio.raw.write(
            path,
            shapely.to_wkb(shapes),
            list(columns.values()),
            list(columns),
            field_mask=[no_partner if name == "partner" else None for name in columns],
            layer=LAYER,
            driver="GPKG",
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            crs=None if crs is None else crs.to_wkt(),
            layer_options={
                "GEOMETRY_NAME": "geom",
                "DESCRIPTION": f"lsmap: {given}, a match at IoU ≥ 0.5, partial at 20 % shared",
            },
        )
        add_default_style(
            path, LAYER, "geom", verdict_qml(), "verdict", "lsmap: verdict on each landslide"
        )


def _in_crs(judged: Judged, crs: pyproj.CRS | None) -> np.ndarray:
    """Its polygons on another map; None for those that cannot be drawn there, which is said."""
    if same_crs(judged.crs, crs):
        return judged.polygons
    assert judged.crs is not None  # `compare` has seen to it
    assert crs is not None
    way = transformer(judged.crs, crs)
    shapes = np.full(len(judged), None, dtype=object)
    there, reached = moved(judged.polygons, mover(way))
    torn = goes_round(there, crs)
    if crs.is_geographic:
        there[torn] = _cut_at_antimeridian(there[torn], 180 / degrees_per_unit(crs))
        torn[:] = False
    there[torn | shapely.is_empty(there)] = None
    shapes[reached] = there
    if lost := np.count_nonzero(shapely.is_missing(shapes)):
        note(
            f"{judged.path}: {lost} landslides cannot be drawn in the CRS of the reference "
            f"({crs_name(crs)}); in {LAYER} they have a verdict but no shape"
        )
    return shapes


def _cut_at_antimeridian(polygons: np.ndarray, half_turn: float) -> np.ndarray:
    """The parts on both sides, of polygons whose edges go the long way round."""
    turned = shapely.transform(polygons, partial(eastward, turn=2 * half_turn))
    whole = repaired(np.asarray(turned))
    west = shapely.intersection(whole, shapely.box(0, -half_turn, half_turn, half_turn))
    east = shapely.intersection(whole, shapely.box(half_turn, -half_turn, 2 * half_turn, half_turn))
    back = shapely.transform(east, lambda points: points - np.array([2 * half_turn, 0]))
    return np.asarray(shapely.union(west, back), dtype=object)


def _columns(judged: Judged, role: str, unit: str) -> dict[str, np.ndarray]:
    return {
        "role": np.full(len(judged), role, dtype=object),
        "verdict": judged.verdict,
        "fid_in": judged.fids,
        "area_m2": judged.area if unit == "m²" else np.full(len(judged), np.nan),
        "iou": judged.iou,
        "covered": judged.covered,
        "partner": judged.partner,
    }


def verdict_qml() -> str:
    """Style: a colour for each role and verdict."""
    categories = "".join(
        f'<category value={quoteattr(f"{role} {verdict}")} symbol="{index}" '
        f'label={quoteattr(words)} render="true"/>'
        for index, (role, verdict, _, words) in enumerate(LEGEND)
    )
    symbols = [
        fill_symbol(
            index,
            fill_layer(colour, 110, *((0.3, True) if role == "reference" else (0.6, False))),
        )
        for index, (role, _, colour, _) in enumerate(LEGEND)
    ]
    expression = quoteattr('"role" || \' \' || "verdict"')
    return vector_qml(
        f'type="categorizedSymbol" attr={expression}',
        f"<categories>{categories}</categories>",
        symbols,
    )
