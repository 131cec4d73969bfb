"""Label polygons: read from any vector format, repaired and counted."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, GeometryError
from pyproj.exceptions import CRSError
from shapely import GeometryType, GEOSException

from landslide_mapper.errors import LsmapError, note, one_line
from landslide_mapper.geo import remote
from landslide_mapper.geo.crs import repaired
from landslide_mapper.geo.gdal import read_info, read_raw
from landslide_mapper.geo.scene import is_raster
from landslide_mapper.staging import check_letters

PARQUET = (".parquet", ".geoparquet")
POLYGONAL = (GeometryType.POLYGON, GeometryType.MULTIPOLYGON)
SHX_HEADER = 100  # bytes before the first entry of a shapefile's index
# What SQLite says on drives without locks, or that cannot be written to.
SQLITE_SIGNS = ("disk I/O error", "database is locked", "WAL-enabled")
# What conditions may name beside a layer's own fields.
OGR_FIELDS = ("fid", "rowid", "ogr_geometry", "ogr_geom_area", "ogr_geom_wkt", "ogr_style", "geom")


@dataclass(frozen=True)
class LabelCounts:
    """What became of a layer's features."""

    features: int = 0
    null_or_empty: int = 0
    not_polygon: int = 0
    repaired: int = 0
    degenerate: int = 0

    def to_dict(self) -> dict[str, int]:
        """The same as plain JSON values."""
        return dict(vars(self))

    def left_out(self) -> str:
        """In words what was left out, and why."""
        return (
            f"{self.null_or_empty} null or empty, {self.not_polygon} not polygons, "
            f"{self.degenerate} without area"
        )


@dataclass(frozen=True)
class OptionNames:
    """What a command calls the options that choose a layer and say its CRS; None: it has none."""

    layer: str | None = None
    crs: str | None = None

    def choose_layer(self) -> str:
        """What to do about a file with several layers."""
        if self.layer:
            return f"choose one with {self.layer}"
        return "put the right one into a file of its own: ogr2ogr OUTPUT.gpkg INPUT LAYER"

    def say_crs(self) -> str:
        """What to do about a layer whose CRS is not known."""
        if self.crs:
            return f"say which one its coordinates are in with {self.crs} EPSG:..."
        return "assign it first: ogr2ogr -a_srs EPSG:... OUTPUT.gpkg INPUT"


@dataclass(frozen=True)
class Labels:
    """Valid 2-D polygons of one layer, in the CRS they came in (None: unknown)."""

    path: str
    layer: str
    crs: pyproj.CRS | None
    polygons: np.ndarray
    counts: LabelCounts
    fids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    options: OptionNames = field(default_factory=OptionNames)
    others: int = 0  # features of the layer that the condition did not take

    def without(self, others: Labels) -> Labels:
        """The same layer less what another selection of it has too."""
        return self.only(~self.among(others))

    def among(self, others: Labels) -> np.ndarray:
        """Which polygons another selection of the layer has too, by their shapes, bool (n,).

        Of copies as many as it has, first those of the same ids. Ids alone do not tell: views, and
        layers that a VRT joins, count what a condition takes.
        """
        shapes, theirs = shapely.to_wkb(self.polygons), shapely.to_wkb(others.polygons)
        known = set(zip(others.fids, theirs, strict=True))
        taken = np.array([one in known for one in zip(self.fids, shapes, strict=True)], dtype=bool)
        left = Counter(theirs.tolist()) - Counter(shapes[taken].tolist())
        for index in np.flatnonzero(~taken):
            taken[index] = left[shapes[index]] > 0
            left[shapes[index]] -= 1
        return taken

    def only(self, keep: np.ndarray) -> Labels:
        """The same layer with the polygons of this selection."""
        return replace(self, polygons=self.polygons[keep], fids=self.fids[keep])


def read_labels(
    path: str,
    layer: str | None = None,
    where: str | None = None,
    crs: str | None = None,
    options: OptionNames | None = None,
) -> Labels:
    """Read the polygons of a vector layer.

    Invalid polygons are repaired, open rings are closed, Z is dropped, and what is empty or no
    polygon is left out and counted.

    Args:
        path: in any format of GDAL, or GeoParquet.
        layer: of a file that has several.
        where: an SQL condition.
        crs: of the coordinates, whatever the layer says, e.g. "EPSG:32643"; None: its own.
        options: what a message can point to.

    Raises:
        LsmapError: the file, the layer, the condition or shapes in it cannot be used.
    """
    options = options or OptionNames()
    path = str(path)
    vector = open_vector(path)
    layer = layer or _only_layer(path, vector, options)
    try:
        own, fids, wkb, others = _read(path, vector, layer, where)
    except (ValueError, DataLayerError, DataSourceError) as error:
        raise _refused(path, vector, layer, where, error) from error
    if wkb is None:
        raise LsmapError(f"{path}: the layer {layer!r} is a table without geometry")
    try:
        polygons, keep, counts = _clean(wkb)
    except GEOSException as error:
        raise LsmapError(
            f"{path}: shapes of the layer {layer!r} cannot be used ({one_line(error)}); convert "
            "them first: ogr2ogr -explodecollections -nlt CONVERT_TO_LINEAR OUTPUT.gpkg INPUT"
        ) from error
    known = _layer_crs(path, own, crs, options)
    return Labels(path, layer, known, polygons, counts, fids[keep], options, others)


def _read(
    path: str, vector: str | bytes, layer: str, where: str | None
) -> tuple[str | None, np.ndarray, np.ndarray | None, int]:
    """CRS, ids and shapes of the features that a condition takes, and how many others there are."""
    columns: list[str] = []
    count = 0
    if where is not None:
        # Shapefiles and FlatGeobuf take a field that is not read for empty in a condition.
        info = read_info(vector, layer=layer, force_feature_count=True)
        fields, count = list(map(str, info["fields"])), int(info["features"])
        _check_names(path, where, fields, str(info["fid_column"]), info["geometry_name"])
        columns = [field for field in fields if field.lower() in where.lower()]
    meta, fids, wkb, _ = read_raw(
        vector, layer=layer, where=where, columns=columns, force_2d=True, return_fids=True
    )
    return meta["crs"], np.asarray(fids), wkb, max(0, count - len(fids))


def _refused(
    path: str, vector: str | bytes, layer: str, where: str | None, error: Exception
) -> LsmapError:
    """Why a layer could not be read: there is none of this name, the condition, or the file."""
    if layer not in _layers(vector):
        there = ", ".join(_layers(vector))
        return LsmapError(f"{path}: there is no layer {layer!r}; it has {there}")
    if where is None:
        return LsmapError(f"{path}: the layer cannot be read ({one_line(error)})")
    names = ", ".join(read_info(vector, layer=layer)["fields"]) or "none"
    return LsmapError(
        f"{path}: the condition {where!r} was refused ({one_line(error)}); put names of fields "
        f"into double quotes, texts into single ones; the layer's fields are: {names}"
    )


def _check_names(path: str, where: str, fields: list[str], *others: str | None) -> None:
    """Raise `LsmapError` for a name in double quotes that is no field.

    SQLite takes such a name for a text, and the condition for one that all or none fulfil.
    """
    known = {name.lower() for name in (*fields, *others, *OGR_FIELDS) if name}
    for name in re.findall(r'"([^"]+)"', re.sub(r"'[^']*'", "", where)):
        if name.lower() not in known:
            raise LsmapError(
                f"{path}: the condition {where!r} names the field {name!r}, which the layer has "
                f"not; its fields are: {', '.join(fields) or 'none'}"
            )


def open_vector(path: str) -> str | bytes:
    """What pyogrio reads the file by: its path; GeoParquet, which its GDAL cannot read, in memory.

    Raises:
        LsmapError: no such file, one that is cut short, no GeoParquet, or changes of it that
            cannot be read.
    """
    check_letters(path)
    local = remote.is_local(path)
    if local and not Path(path).exists():
        raise LsmapError(remote.no_such(path))
    if local and _hides_changes(path):
        raise LsmapError(
            f"{path}: its last changes lie in {Path(path).name}-wal, which cannot be read in a "
            "folder that is read only; end the edit in QGIS, or copy both to another folder"
        )
    if local and (lost := _shapes_beyond_the_end(Path(path))):
        raise LsmapError(f"{path}: is cut short, {lost} of its shapes are missing; copy it again")
    if local and "!" in path:
        raise LsmapError(f"{path}: GDAL has another use for '!' in a path; rename it")
    if not local or Path(path).suffix.lower() not in PARQUET:
        return path
    copy = BytesIO()
    try:
        table = geopandas.read_parquet(path)
        kinds = table.drop(columns=table.geometry.name).dtypes
        odd = [name for name, kind in kinds.items() if kind == "geometry" or kind.kind == "m"]
        pyogrio.write_dataframe(
            table.drop(columns=odd),
            copy,
            layer=Path(path).stem,
            driver="FlatGeobuf",
            SPATIAL_INDEX="NO",
        )
    except ImportError as error:
        raise LsmapError(
            f"{path}: GeoParquet needs pyarrow; install it with: pip install 'lsmap[parquet]'"
        ) from error
    except (ValueError, OSError, NotImplementedError, DataLayerError, DataSourceError) as error:
        raise LsmapError(f"{path}: cannot be read as GeoParquet ({one_line(error)})") from error
    return copy.getvalue()


def _hides_changes(path: str) -> bool:
    """Whether a GeoPackage would be read without what was last written to it.

    SQLite has to write beside it to read these changes, and GDAL goes on without them.
    """
    changes = Path(f"{path}-wal")
    lost = changes.is_file() and changes.stat().st_size > 0 and not Path(f"{path}-shm").exists()
    return lost and not os.access(changes.parent, os.W_OK)


def _shapes_beyond_the_end(path: Path) -> int:
    """How many shapes of a shapefile lie beyond its end by its index; GDAL takes them for null."""
    indexes = [path.with_suffix(suffix) for suffix in (".shx", ".SHX")]
    index = next((file for file in indexes if file.is_file()), None)
    if path.suffix.lower() != ".shp" or index is None or index.stat().st_size < SHX_HEADER:
        return 0
    # Where each shape begins and how long it is, in words of 2 bytes.
    shapes = np.fromfile(index, [("begin", ">u4"), ("length", ">u4")], offset=SHX_HEADER)
    ends = 2 * (shapes["begin"].astype(np.int64) + 4 + shapes["length"])
    return int(np.count_nonzero(ends > path.stat().st_size))


def is_vector(path: str) -> bool:
    """Whether there is a vector layer in the file.

    Raises:
        LsmapError: see `open_vector`; or a layer has a type of geometry that cannot be read.
    """
    try:
        with warnings.catch_warnings():  # of a server that does not answer
            warnings.simplefilter("ignore", RuntimeWarning)
            return len(pyogrio.list_layers(open_vector(path))) > 0
    except GeometryError as error:
        raise LsmapError(_odd_geometry(path, error)) from error
    except (DataSourceError, DataLayerError):
        return False


def read_aoi(path: str) -> Labels:
    """Read the polygons of an area of interest.

    Raises:
        LsmapError: see `read_labels`; or the file has no polygon.
    """
    area = read_labels(path)
    if not len(area.polygons):
        raise LsmapError(f"{path}: there is no polygon in it that could be the AOI")
    return area


def _odd_geometry(path: str, error: GeometryError) -> str:
    return (
        f"{path}: a layer in it has a type of geometry that cannot be read ({one_line(error)}); "
        "convert it first: ogr2ogr -nlt MULTIPOLYGON -dim XY OUTPUT.gpkg INPUT"
    )


def _layers(vector: str | bytes) -> list[str]:
    return [str(name) for name, _ in pyogrio.list_layers(vector)]


def _only_layer(path: str, vector: str | bytes, options: OptionNames) -> str:
    try:
        layers = pyogrio.list_layers(vector)
    except GeometryError as error:
        raise LsmapError(_odd_geometry(path, error)) from error
    except (DataSourceError, DataLayerError) as error:
        if is_raster(path):
            raise LsmapError(
                f"{path}: this is a raster, and polygons are wanted; make them of what is not 0: "
                "gdal_polygonize.py RASTER -mask RASTER -f GPKG OUTPUT.gpkg"
            ) from error
        said = one_line(error)
        hint = "this must be polygons (shp, gpkg, geojson, fgb, ...)"
        if any(sign in said for sign in SQLITE_SIGNS):
            hint = "copy it to a drive that can be written to and has file locks"
        raise LsmapError(
            f"{path}: GDAL cannot read this as a vector layer ({said}); {hint}"
        ) from error
    spatial = [str(name) for name, kind in layers if kind is not None]
    polygonal = [
        str(name) for name, kind in layers if kind and ("Polygon" in kind or kind == "Unknown")
    ]
    for found in (polygonal, spatial):
        if len(found) == 1:
            return found[0]
    if not spatial:
        raise LsmapError(f"{path}: there is no layer with geometry in it")
    raise LsmapError(
        f"{path}: there are several layers ({', '.join(spatial)}); {options.choose_layer()}"
    )


def _layer_crs(
    path: str, own: str | None, given: str | None, options: OptionNames
) -> pyproj.CRS | None:
    try:
        known = pyproj.CRS.from_user_input(own) if own else None
    except CRSError as error:
        if given is None:
            raise LsmapError(f"{path}: its CRS cannot be used; {options.say_crs()}") from error
        known = None
    if given is None:
        return known
    try:
        crs = pyproj.CRS.from_user_input(given)
    except CRSError as error:
        named = f"{options.crs or path}: {given!r}"
        raise LsmapError(f"{named} is not a coordinate reference system; try EPSG:32643") from error
    if known is not None and known != crs:
        note(f"{path}: {given} replaces the layer's own CRS")
    return crs


def _clean(wkb: np.ndarray) -> tuple[np.ndarray, np.ndarray, LabelCounts]:
    """Valid polygons, the rows they came from, and what happened to the others."""
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers
        shapes = shapely.from_wkb(wkb, on_invalid="ignore")
        unread = shapely.is_missing(shapes) & np.array([one is not None for one in wkb], dtype=bool)
        shapes[unread] = shapely.from_wkb(wkb[unread], on_invalid="fix")  # closes open rings
    # Surfaces in space (TIN, PolyhedralSurface) are none of shapely's geometries.
    unknown = unread & shapely.is_missing(shapes)
    closed = unread & ~unknown
    empty = (shapely.is_missing(shapes) & ~unknown) | shapely.is_empty(shapes)
    # Of collections the polygons count.
    areal = np.isin(shapely.get_type_id(shapes), (*POLYGONAL, GeometryType.GEOMETRYCOLLECTION))
    broken = areal & ~empty & ~shapely.is_valid(shapes)
    valid = shapes.copy()
    valid[broken] = repaired(shapes[broken])
    rows = np.flatnonzero(areal & ~empty)
    for row in rows[_are_collections(valid[rows])]:
        parts = np.array([valid[row]])
        while _are_collections(parts).any():
            parts = shapely.get_parts(parts)
        valid[row] = shapely.union_all(parts[np.isin(shapely.get_type_id(parts), POLYGONAL)])
    has_area = shapely.area(valid[rows]) > 0
    pointlike = ~has_area & _are_collections(shapes[rows]) & ~broken[rows]
    counts = LabelCounts(
        features=len(shapes),
        null_or_empty=int(empty.sum()),
        not_polygon=int((~areal & ~empty).sum() + pointlike.sum()),
        repaired=int((broken | closed)[rows[has_area]].sum()),
        degenerate=int((~has_area & ~pointlike).sum()),
    )
    return valid[rows[has_area]], rows[has_area], counts


def _are_collections(shapes: np.ndarray) -> np.ndarray:
    return np.asarray(shapely.get_type_id(shapes) == GeometryType.GEOMETRYCOLLECTION)
