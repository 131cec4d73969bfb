"""Landslide polygons on disk: one layer, written batch by batch, in the format its suffix names.

Not every format can be added to, so the batches go into a GeoPackage beside the target first;
at the end that is copied in one pass, itself batch by batch, to the target. The same polygons
give the same bytes: dates in the files are a fixed day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

from landslide_mapper.geo.crs import layer_wkt
from landslide_mapper.geo.gdal import new_layer
from landslide_mapper.geo.style import TIMESTAMP, add_default_style, polygon_qml
from landslide_mapper.geo.vector_formats import (
    FIELDS,
    GEOMETRY_COLUMN,
    LAYER,
    SHAPEFILE_NAMES,
    SHAPEFILE_TEXT,
    VectorTarget,
)

BATCH_POINTS = 250_000  # of the polygons that are held back before they are written together
COPIED_AT_ONCE = 4096  # polygons


class PolygonWriter:
    """Writes a layer of landslides into `folder`; a context manager.

    The layer is complete once the context has ended without an error (then its QGIS style is
    in place too); `outputs(target.path)` names the files, here inside `folder`. Raises `OSError`
    when the disk does not take it.
    """

    def __init__(self, target: VectorTarget, folder: Path, threshold: float) -> None:
        self._target = target
        self._threshold = threshold
        self._final = folder / target.path.name
        self._stage = _Stage(folder / f"{target.path.name}.stage.gpkg", target)
        self._polygons: list[np.ndarray] = []
        self._columns: list[dict[str, np.ndarray]] = []
        self._points = 0
        self.count = 0

    def __enter__(self) -> PolygonWriter:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        # After an error, what is on disk is thrown away.
        if error is None:
            self._flush()
            self._finish()

    def write(self, polygons: np.ndarray, columns: Mapping[str, Any]) -> None:
        """Append shapely `polygons` (n,) in the layer's CRS with their attributes.

        `columns` has an array (n,), or one value for all, for each of `FIELDS` but ``id``; one
        that is missing stays empty, and so does NaN.
        """
        if len(polygons) == 0:
            return
        self._columns.append(_typed(columns, self.count, len(polygons)))
        self._polygons.append(polygons)
        self.count += len(polygons)
        self._points += int(shapely.get_num_coordinates(polygons).sum())
        if self._points >= BATCH_POINTS:
            self._flush()

    def _flush(self) -> None:
        """Write what was held back; an empty layer still gets its fields."""
        columns = self._columns or [_typed({}, 0, 0)]
        table = {name: np.concatenate([part[name] for part in columns]) for name in FIELDS}
        polygons = np.concatenate(self._polygons) if self._polygons else np.empty(0, dtype=object)
        self._polygons, self._columns, self._points = [], [], 0
        if len(polygons) or not self._stage.begun:
            self._stage.append(polygons, table)

    def _finish(self) -> None:
        qml = polygon_qml(self._threshold)
        if self._target.suffix == ".parquet":
            self._stage.copy_to_parquet(self._final)
        else:
            self._stage.copy_to(self._final, self.count)
        self._stage.path.unlink()
        if self._target.suffix == ".gpkg":
            with _gdal():
                add_default_style(self._final, LAYER, GEOMETRY_COLUMN, qml, "confidence")
        else:
            self._final.with_suffix(".qml").write_text(qml, "utf-8")


class _Stage:
    """A GeoPackage without a spatial index: quick to add to, quick to read in one pass."""

    def __init__(self, path: Path, target: VectorTarget) -> None:
        self.path = path
        self.begun = False
        self._target = target
        self._wkt = layer_wkt(target.crs) if target.crs is not None else None
        # Already here, because the shapefile driver would cut the names at ten characters.
        names = SHAPEFILE_NAMES if target.suffix == ".shp" else {}
        self._names = [names.get(name, name) for name in FIELDS]
        self._bounds: np.ndarray | None = None  # of all polygons

    def append(self, polygons: np.ndarray, table: Mapping[str, np.ndarray]) -> None:
        """Add a batch; `table` has an array of its type for each of `FIELDS`."""
        if len(polygons):
            bounds = shapely.total_bounds(polygons)
            if self._bounds is not None:
                bounds[:2] = np.minimum(bounds[:2], self._bounds[:2])
                bounds[2:] = np.maximum(bounds[2:], self._bounds[2:])
            self._bounds = bounds
        columns = [table[name] for name in FIELDS]
        if self._target.suffix == ".shp":
            columns = [_fitted(column) if column.dtype == object else column for column in columns]
        with _gdal(OGR_SQLITE_SYNCHRONOUS="OFF"):
            pyogrio.raw.write(
                self.path,
                shapely.to_wkb(polygons),
                columns,
                self._names,
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._wkt,
                append=self.begun,
                layer_options={"SPATIAL_INDEX": "NO"},
            )
        self.begun = True

    def copy_to(self, path: Path, count: int) -> None:
        """Write the layer, `count` polygons, in the target's format."""
        layer = path.stem if self._target.suffix == ".shp" else LAYER
        with _gdal():
            with self._read(use_pyarrow=False) as (meta, rows):
                pyogrio.raw.write_arrow(
                    rows,
                    path,
                    layer=layer,
                    driver=self._target.driver,
                    encoding="UTF-8",
                    geometry_name=meta["geometry_name"],
                    geometry_type="Polygon",
                    crs=self._wkt,
                    layer_options=self._layer_options(),
                )
            _check_whole(path, count)

    def _read(self, use_pyarrow: bool) -> AbstractContextManager[tuple[dict[str, Any], Any]]:
        """The layer as a stream of Arrow batches, with what pyogrio says of it."""
        stream: AbstractContextManager[tuple[dict[str, Any], Any]] = pyogrio.raw.open_arrow(
            self.path, layer=LAYER, use_pyarrow=use_pyarrow, batch_size=COPIED_AT_ONCE
        )
        return stream

    def _layer_options(self) -> dict[str, str]:
        if self._target.suffix == ".gpkg":
            return {"GEOMETRY_NAME": GEOMETRY_COLUMN, "DESCRIPTION": self._target.description}
        if self._target.suffix == ".geojson":
            # A millimetre in degrees, which coordinates without a CRS may be as well.
            return {"COORDINATE_PRECISION": "8", "DESCRIPTION": self._target.description}
        if self._target.suffix == ".fgb":
            return {"DESCRIPTION": self._target.description}
        return {"DBF_DATE_LAST_UPDATE": TIMESTAMP[:10]} if self._target.suffix == ".shp" else {}

    def copy_to_parquet(self, path: Path) -> None:
        """Write the layer as GeoParquet 1.0, batch by batch."""
        import pyarrow
        from pyarrow import parquet

        with _gdal(), self._read(use_pyarrow=True) as (meta, rows):
            fields = [rows.schema.field(name) for name in self._names]
            fields.append(pyarrow.field("geometry", pyarrow.binary()))
            said = {"geo": json.dumps(self._geo()), "description": self._target.description}
            schema = pyarrow.schema(fields, metadata=said)
            with parquet.ParquetWriter(path, schema, compression="snappy") as writer:
                for batch in rows:
                    columns = [batch.column(name) for name in self._names]
                    wkb = batch.column(meta["geometry_name"])
                    wkb = getattr(wkb, "storage", wkb)  # of an extension type, if it is known
                    writer.write_batch(pyarrow.record_batch([*columns, wkb], schema=schema))

    def _geo(self) -> dict[str, Any]:
        """What GeoParquet says of the geometry in the file's metadata."""
        crs = self._target.crs
        column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column["crs"] = crs.to_json_dict() if crs is not None else None
        if self._bounds is not None:
            column["bbox"] = self._bounds.tolist()
        return {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _typed(columns: Mapping[str, Any], count: int, size: int) -> dict[str, np.ndarray]:
    """All of `FIELDS`, in their types; ids go on from `count`; what is missing is empty."""
    table: dict[str, np.ndarray] = {"id": np.arange(count + 1, count + size + 1, dtype=np.int32)}
    for name, kind in list(FIELDS.items())[1:]:
        nothing = None if kind is np.object_ else np.nan
        table[name] = np.full(size, columns.get(name, nothing), dtype=kind)
    return table


def _fitted(texts: np.ndarray) -> np.ndarray:
    """Texts as a shapefile can hold them; one that is cut ends in an ellipsis."""

    def fit(text: str | None) -> str | None:
        encoded = text.encode() if text is not None else b""
        if len(encoded) <= SHAPEFILE_TEXT:
            return text
        ellipsis = " …"
        return encoded[: SHAPEFILE_TEXT - len(ellipsis.encode())].decode(errors="ignore") + ellipsis

    return np.array([fit(text) for text in texts], dtype=object)


def _check_whole(path: Path, count: int) -> None:
    """Raise `OSError` unless the last of `count` polygons is there.

    A driver may say nothing when the disk does not take the last bytes.
    """
    if path.suffix.lower() == ".geojson":  # which is only counted by reading all of it
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16))
            whole = file.read().split()[-2:] == [b"]", b"}"]
    else:
        last = pyogrio.raw.read(path, columns=[], skip_features=max(0, count - 1))[2]
        whole = len(last) == min(count, 1) and all(wkb is not None for wkb in last)
    if not whole:
        raise OSError(f"{path.name} is not whole after it was written")


def _gdal(**settings: str) -> AbstractContextManager[None]:
    """`new_layer` with a clock that stands still."""
    return new_layer(OGR_CURRENT_DATE=TIMESTAMP, **settings)
