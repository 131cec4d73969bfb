"""Landslide polygons on disk: one layer, written batch by batch, in the format its suffix names."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import fiona
import pyproj
from fiona._err import CPLE_BaseError
from fiona.errors import FionaError, TransactionError
from fiona.model import Feature, Geometry, Properties

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.style import add_default_style, polygon_qml

LAYER = "landslides"
GEOMETRY_COLUMN = "geom"

DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".geojson": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
}

FIELDS = {
    "id": "int32",
    "area_m2": "float",
    "perimeter_m": "float",
    "length_m": "float",
    "width_m": "float",
    "confidence": "float",
    "max_probability": "float",
    "lon": "float",
    "lat": "float",
    "scene": "str",
    "model": "str",
    "review": "str",
}

# A shapefile's field names have ten characters at most.
SHAPEFILE_NAMES = {"perimeter_m": "perim_m", "max_probability": "max_prob"}
SHAPEFILE_PARTS = (".cpg", ".prj", ".dbf", ".shx", ".shp")


@dataclass(frozen=True)
class VectorTarget:
    """Where polygons go, and in which CRS. None as CRS: there is none."""

    path: Path
    crs: pyproj.CRS | None

    @property
    def suffix(self) -> str:
        """Suffix in lower case; it names the format."""
        return self.path.suffix.lower()

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return DRIVERS[self.suffix]


def check_suffix(path: Path) -> None:
    """Raise `LsmapError` unless polygons can be written as `path`."""
    if path.suffix.lower() not in DRIVERS:
        raise LsmapError(
            f"{path}: polygons cannot be written as '{path.suffix}'; "
            f"end the name with one of {' '.join(DRIVERS)}"
        )
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise LsmapError(
            f"{path}: GeoParquet needs pyarrow; install it with: pip install 'lsmap[parquet]'"
        )


def outputs(path: Path) -> list[Path]:
    """Every file that writing the layer `path` makes; the main file is the last."""
    suffix = path.suffix.lower()
    if suffix == ".shp":
        return [path.with_suffix(part) for part in (".qml", *SHAPEFILE_PARTS)]
    return [path] if suffix in (".gpkg", ".parquet") else [path.with_suffix(".qml"), path]


def leftovers(path: Path) -> list[Path]:
    """Files of an earlier layer `path` that would spoil a new one: indexes and journals."""
    if path.suffix.lower() == ".shp":
        return [path.with_suffix(part) for part in (".qix", ".sbn", ".sbx")]
    if path.suffix.lower() == ".gpkg":
        return [path.with_name(path.name + part) for part in ("-wal", "-shm", "-journal")]
    return []


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
        # GeoParquet has no streamed writer here: a GeoPackage comes first.
        parquet = target.suffix == ".parquet"
        self._path = self._final.with_suffix(".stage.gpkg") if parquet else self._final
        driver = "GPKG" if parquet else target.driver
        self._names = SHAPEFILE_NAMES if target.suffix == ".shp" else {}
        options: dict[str, Any] = {"encoding": "UTF-8"}
        if driver == "GPKG":
            options |= {"layer": LAYER, "GEOMETRY_NAME": GEOMETRY_COLUMN}
        if driver == "GeoJSON":
            options = {"COORDINATE_PRECISION": 8 if _is_wgs84(target.crs) else 4}
        with _as_os_error():
            self._layer = fiona.open(
                self._path,
                "w",
                driver=driver,
                crs_wkt=target.crs.to_wkt() if target.crs is not None else None,
                schema={"geometry": "Polygon", "properties": self._schema()},
                **options,
            )
        self.count = 0

    def _schema(self) -> dict[str, str]:
        text = "str:254" if self._names else "str"
        return {
            self._names.get(name, name): text if kind == "str" else kind
            for name, kind in FIELDS.items()
        }

    def __enter__(self) -> PolygonWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            # What is on disk is thrown away; an error of closing would hide the first one.
            with suppress(OSError):
                self._close()
            return
        self._close()
        self._finish()

    def _close(self) -> None:
        with _as_os_error():
            self._layer.close()

    def write(self, polygons: Iterable[Any], rows: Iterable[Mapping[str, Any]]) -> None:
        """Append shapely polygons with their attributes (all of `FIELDS` but ``id``)."""
        features = []
        for polygon, row in zip(polygons, rows, strict=True):
            self.count += 1
            values = {"id": self.count, **row}
            properties = {self._names.get(name, name): _plain(values[name]) for name in FIELDS}
            geometry = Geometry.from_dict(polygon.__geo_interface__)
            features.append(Feature(geometry=geometry, properties=Properties(**properties)))
        if features:
            with _as_os_error():
                self._layer.writerecords(features)

    def _finish(self) -> None:
        if self._target.suffix == ".parquet":
            _to_parquet(self._path, self._final)
        elif self._target.suffix == ".gpkg":
            qml = polygon_qml(self._threshold)
            add_default_style(self._path, LAYER, GEOMETRY_COLUMN, qml, "confidence")
        else:
            self._path.with_suffix(".qml").write_text(polygon_qml(self._threshold), "utf-8")


@contextmanager
def _as_os_error() -> Iterator[None]:
    """GDAL's errors, which come through fiona as many types, as `OSError` with one line."""
    try:
        with fiona.Env():
            yield
    except (FionaError, TransactionError, CPLE_BaseError, RuntimeError) as error:
        # fiona appends the whole feature to some of them.
        reason = str(error).split("Failed to write record")[0]
        raise OSError(" ".join(reason.split())[:200]) from error


def _to_parquet(stage: Path, final: Path) -> None:
    import geopandas

    geopandas.read_file(stage, layer=LAYER).to_parquet(final)
    stage.unlink()


def _plain(value: Any) -> Any:
    """Python values; NaN becomes null."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value


def _is_wgs84(crs: pyproj.CRS | None) -> bool:
    return crs is not None and crs.to_epsg() == 4326
