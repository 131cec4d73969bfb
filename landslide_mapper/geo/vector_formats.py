"""The formats that polygons can be written in: their files, fields and paths."""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from landslide_mapper.errors import LsmapError

LAYER = "landslides"
GEOMETRY_COLUMN = "geom"

DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".geojson": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
}

FIELDS: dict[str, type] = {
    "id": np.int32,
    "area_m2": np.float64,
    "perimeter_m": np.float64,
    "length_m": np.float64,
    "width_m": np.float64,
    "confidence": np.float64,
    "max_probability": np.float64,
    "lon": np.float64,
    "lat": np.float64,
    "scene": np.object_,
    "model": np.object_,
    "review": np.object_,
}

# A shapefile's field names have ten characters at most.
SHAPEFILE_NAMES = {"perimeter_m": "perim_m", "max_probability": "max_prob"}
SHAPEFILE_PARTS = (".cpg", ".prj", ".dbf", ".shx", ".shp")
SHAPEFILE_TEXT = 254  # bytes that a text may have


@dataclass(frozen=True)
class VectorTarget:
    """Where polygons go, in which CRS (None: there is none), and one line that describes them.

    A shapefile has no place for the description.
    """

    path: Path
    crs: pyproj.CRS | None
    description: str = ""

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
    if path.suffix != ".shp" and path.suffix.lower() == ".shp":
        raise LsmapError(f"{path}: GDAL writes shapefiles as '.shp' only; write the suffix small")
    taken = [sign for sign, where in (("!", str(path)), (";", path.name)) if sign in where]
    if taken:
        raise LsmapError(f"{path}: GDAL has another use for {taken[0]!r} in a path; leave it out")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise LsmapError(
            f"{path}: GeoParquet needs pyarrow; install it with: pip install 'lsmap[parquet]'"
        )


def outputs(path: Path) -> list[Path]:
    """Every file that writing the layer `path` makes; the main file is the last."""
    suffix = path.suffix.lower()
    if suffix == ".shp":
        return [path.with_suffix(part) for part in (".qml", *SHAPEFILE_PARTS)]
    return [path] if suffix == ".gpkg" else [path.with_suffix(".qml"), path]


def ask_geopackage(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Rows that SQLite answers with; none of what is no GeoPackage."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.DatabaseError:
        return []


def leftovers(path: Path) -> list[Path]:
    """Files of an earlier layer `path` that would spoil a new one: indexes and journals."""
    if path.suffix.lower() == ".shp":
        return [path.with_suffix(part) for part in (".qix", ".sbn", ".sbx")]
    if path.suffix.lower() == ".gpkg":
        return [path.with_name(path.name + part) for part in ("-wal", "-shm", "-journal")]
    return []
