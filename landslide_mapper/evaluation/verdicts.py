"""The landslides of two inventories with their verdicts as one layer that QGIS opens in colours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import quoteattr

import geopandas
import numpy as np
import pandas as pd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from landslide_mapper.errors import one_line
from landslide_mapper.evaluation.inventories import (
    FALSE_ALARM,
    MATCH,
    MISSED,
    PARTIAL,
    Comparison,
    Judged,
)
from landslide_mapper.geo.style import add_default_style, fill_symbol, vector_qml

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
    AOI; NaN without a CRS), iou, covered, partner (fid of the one-to-one partner in the other
    file). Raises `OSError` when the file cannot be written.
    """
    crs = comparison.reference.crs
    parts = [_table(comparison.reference, "reference", comparison.unit)]
    mapped = _table(comparison.mapped, "mapped", comparison.unit)
    parts.append(mapped if crs is None else mapped.to_crs(crs))
    given = f"{comparison.mapped.path} against {comparison.reference.path}"
    table = geopandas.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=crs)
    with _one_line():
        pyogrio.write_dataframe(
            table,
            path,
            layer=LAYER,
            driver="GPKG",
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            layer_options={
                "GEOMETRY_NAME": "geom",
                "DESCRIPTION": f"lsmap: {given}, a match at IoU ≥ 0.5",
            },
        )
        add_default_style(
            path, LAYER, "geom", verdict_qml(), "verdict", "lsmap: verdict on each landslide"
        )


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors of GDAL and SQLite as `OSError`."""
    try:
        yield
    except (DataSourceError, DataLayerError, sqlite3.Error) as error:
        raise OSError(one_line(error)) from error


def _table(judged: Judged, role: str, unit: str) -> geopandas.GeoDataFrame:
    columns = {
        "role": np.full(len(judged), role, dtype=object),
        "verdict": judged.verdict,
        "fid_in": judged.fids,
        "area_m2": judged.area if unit == "m²" else np.full(len(judged), np.nan),
        "iou": judged.iou,
        "covered": judged.covered,
        "partner": pd.Series(judged.partner, dtype="Int64").where(judged.partner >= 0),
    }
    return geopandas.GeoDataFrame(columns, geometry=judged.polygons, crs=judged.crs)


def verdict_qml() -> str:
    """Style: a colour for each role and verdict."""
    categories = "".join(
        f'<category value={quoteattr(f"{role} {verdict}")} symbol="{index}" '
        f'label={quoteattr(words)} render="true"/>'
        for index, (role, verdict, _, words) in enumerate(LEGEND)
    )
    symbols = [
        fill_symbol(index, colour, 110, *((0.3, True) if role == "reference" else (0.6, False)))
        for index, (role, _, colour, _) in enumerate(LEGEND)
    ]
    expression = quoteattr('"role" || \' \' || "verdict"')
    return vector_qml(
        f'type="categorizedSymbol" attr={expression}',
        f"<categories>{categories}</categories>",
        symbols,
    )
