"""Label polygons: read from any vector format, repaired, counted, reprojected and rasterised."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import affine
import geopandas
import numpy as np
import pyogrio
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, GeometryError
from pyproj.exceptions import CRSError, ProjError
from rasterio.features import rasterize

from landslide_mapper.errors import LsmapError, note, one_line
from landslide_mapper.geo import remote
from landslide_mapper.geo.crs import (
    crs_name,
    moved,
    mover,
    repaired,
    same_crs,
)
from landslide_mapper.geo.scene import Scene
from landslide_mapper.mask_values import IGNORE, LANDSLIDE

EDGE_PIECES = 64  # an edge that is straight in one CRS is bent in another: pieces per extent
PARQUET = (".parquet", ".geoparquet")
NEAR = 0.1  # of a scene's extent: bounds that were brought into another CRS may be this far out


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


@dataclass(frozen=True)
class Options:
    """The options of a command by which a layer is chosen and its CRS said; None: it has none."""

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
    options: Options = field(default_factory=Options)

    def without(self, fids: np.ndarray) -> Labels:
        """The same layer less the features with these ids."""
        return self.only(~np.isin(self.fids, fids))

    def only(self, keep: np.ndarray) -> Labels:
        """The same layer with the polygons of this selection."""
        return replace(self, polygons=self.polygons[keep], fids=self.fids[keep])


def read_labels(
    path: str,
    layer: str | None = None,
    where: str | None = None,
    crs: str | None = None,
    options: Options | None = None,
) -> Labels:
    """Read the polygons of a vector layer.

    Invalid polygons are repaired, Z is dropped, and what is empty or no polygon is left out and
    counted.

    Args:
        path: in any format of GDAL, or GeoParquet.
        layer: of a file that has several.
        where: an SQL condition.
        crs: stands in when the layer has none, e.g. "EPSG:32643".
        options: what a message can point to.

    Raises:
        LsmapError: the file, the layer or the condition is no good.
    """
    options = options or Options()
    path = str(path)
    vector = open_vector(path)
    layer = layer or _only_layer(path, vector, options)
    columns: list[str] = []
    try:
        if where is not None:
            # Shapefiles and FlatGeobuf take a field that is not read for empty in a condition.
            fields = map(str, pyogrio.read_info(vector, layer=layer)["fields"])
            columns = [field for field in fields if field.lower() in where.lower()]
        meta, fids, wkb, _ = pyogrio.raw.read(
            vector, layer=layer, where=where, columns=columns, force_2d=True, return_fids=True
        )
    except (ValueError, DataLayerError, DataSourceError) as error:
        if layer not in _layers(vector):
            raise LsmapError(
                f"{path}: there is no layer {layer!r}; it has {', '.join(_layers(vector))}"
            ) from error
        if where is None:
            raise LsmapError(f"{path}: the layer cannot be read ({one_line(error)})") from error
        names = ", ".join(pyogrio.read_info(vector, layer=layer)["fields"]) or "none"
        raise LsmapError(
            f"{path}: the condition {where!r} was refused; the layer's fields are: {names}"
        ) from error
    if wkb is None:
        raise LsmapError(f"{path}: the layer {layer!r} is a table without geometry")
    polygons, keep, counts = _clean(wkb)
    known = _layer_crs(path, meta["crs"], crs, options)
    return Labels(path, layer, known, polygons, counts, np.asarray(fids)[keep], options)


def open_vector(path: str) -> str | bytes:
    """What pyogrio reads the file by: its path; GeoParquet, which its GDAL cannot read, in memory.

    Raises:
        LsmapError: no such file, or no GeoParquet.
    """
    local = remote.is_local(path)
    if local and not Path(path).exists():
        raise LsmapError(f"{path}: there is no such file")
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


def _only_layer(path: str, vector: str | bytes, options: Options) -> str:
    try:
        layers = pyogrio.list_layers(vector)
    except GeometryError as error:
        raise LsmapError(_odd_geometry(path, error)) from error
    except (DataSourceError, DataLayerError) as error:
        raise LsmapError(
            f"{path}: GDAL cannot read this as a vector layer ({one_line(error)}); this must be "
            "polygons (shp, gpkg, geojson, fgb, ...)"
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
    path: str, own: str | None, given: str | None, options: Options
) -> pyproj.CRS | None:
    if given is not None:
        try:
            crs = pyproj.CRS.from_user_input(given)
        except CRSError as error:
            raise LsmapError(
                f"--labels-crs: {given!r} is not a coordinate reference system; try EPSG:32643"
            ) from error
        if own and pyproj.CRS.from_user_input(own) != crs:
            note(f"{path}: --labels-crs replaces the layer's own CRS")
        return crs
    try:
        return pyproj.CRS.from_user_input(own) if own else None
    except CRSError as error:
        raise LsmapError(f"{path}: its CRS cannot be used; {options.say_crs()}") from error


def _clean(wkb: np.ndarray) -> tuple[np.ndarray, np.ndarray, LabelCounts]:
    """Valid polygons, the rows they came from, and what happened to the others."""
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers
        shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    # Surfaces in space (TIN, PolyhedralSurface) are none of shapely's geometries.
    unknown = shapely.is_missing(shapes) & np.array([one is not None for one in wkb], dtype=bool)
    empty = (shapely.is_missing(shapes) & ~unknown) | shapely.is_empty(shapes)
    # 3 polygon, 6 multipolygon, 7 collection (whose polygons count)
    areal = np.isin(shapely.get_type_id(shapes), (3, 6, 7))
    broken = areal & ~empty & ~shapely.is_valid(shapes)
    valid = shapes.copy()
    valid[broken] = repaired(shapes[broken])
    rows = np.flatnonzero(areal & ~empty)
    for row in rows[shapely.get_type_id(valid[rows]) == 7]:
        parts = np.array([valid[row]])
        while (shapely.get_type_id(parts) == 7).any():
            parts = shapely.get_parts(parts)
        valid[row] = shapely.union_all(parts[np.isin(shapely.get_type_id(parts), (3, 6))])
    has_area = shapely.area(valid[rows]) > 0
    collections = shapely.get_type_id(shapes[rows]) == 7
    pointlike = ~has_area & collections & ~broken[rows]
    counts = LabelCounts(
        features=len(shapes),
        null_or_empty=int(empty.sum()),
        not_polygon=int((~areal & ~empty).sum() + pointlike.sum()),
        repaired=int(broken[rows[has_area]].sum()),
        degenerate=int((~has_area & ~pointlike).sum()),
    )
    return valid[rows[has_area]], rows[has_area], counts


def in_scene_crs(labels: Labels, scene: Scene) -> tuple[np.ndarray, int]:
    """The polygons in the scene's CRS, and how many could not be brought there.

    Polygons whose CRS is the scene's are passed through as they are. Raises `LsmapError` when
    one of the two CRS is unknown or there is no way from one to the other.
    """
    if same_map(labels, scene):
        return labels.polygons, 0
    polygons, reached = moved(labels.polygons, mover(_transformer(labels, scene)))
    return polygons, int((~reached).sum())


def ground_near(labels: Labels, scene: Scene) -> np.ndarray:
    """What a layer covers near the scene, in the scene's CRS; its polygons may come in parts.

    Raises:
        LsmapError: see `in_scene_crs`.
    """
    if same_map(labels, scene):
        return labels.polygons[near_scene(labels, shapely.bounds(labels.polygons), scene)]
    return in_scene_crs(replace(labels, polygons=_pieces_near(labels, scene)), scene)[0]


def _pieces_near(labels: Labels, scene: Scene) -> np.ndarray:
    """The polygons near the scene, still in their own CRS, with edges in short pieces.

    Far from the scene its CRS may be undefined, so what is there must not be taken along.
    """
    ring = shapely.Polygon(scene.corners(0, 0, scene.height, scene.width))
    ring = shapely.segmentize(ring, ring.length / 4 / EDGE_PIECES)
    try:
        way = pyproj.Transformer.from_crs(scene.crs, labels.crs, always_xy=True)
        points = shapely.get_coordinates(ring)
        x, y = way.transform(points[:, 0], points[:, 1])
    except ProjError:
        return labels.polygons  # `in_scene_crs` says what is wrong
    west, south, east, north = min(x), min(y), max(x), max(y)
    if not np.isfinite([west, south, east, north]).all():
        return labels.polygons
    margin = (east - west + north - south) / EDGE_PIECES
    box = shapely.box(west - margin, south - margin, east + margin, north + margin)
    touching = shapely.intersects(shapely.box(*shapely.bounds(labels.polygons).T), box)
    near = areas(shapely.intersection(labels.polygons[touching], box))
    return np.asarray(shapely.segmentize(near, margin))


def areas(shapes: np.ndarray) -> np.ndarray:
    """The polygons in `shapes`, one by one."""
    parts = shapely.get_parts(shapely.get_parts(shapes))
    return parts[(shapely.get_type_id(parts) == 3) & ~shapely.is_empty(parts)]


def same_map(labels: Labels, scene: Scene) -> bool:
    """Whether labels and scene have the same CRS, or both have none.

    Raises:
        LsmapError: one of them has none.
    """
    if labels.crs is None and scene.crs is not None:
        raise LsmapError(
            f"{labels.path}: the layer has no CRS (the scene {scene.name} is in "
            f"{crs_name(scene.crs)}); {labels.options.say_crs()}"
        )
    if scene.crs is None and labels.crs is not None:
        raise LsmapError(
            f"{scene.path}: the scene has no CRS but the labels have ({crs_name(labels.crs)}); "
            "set it with: gdal_edit.py -a_srs EPSG:... SCENE"
        )
    return same_crs(labels.crs, scene.crs)


def near_scene(labels: Labels, bounds: np.ndarray, scene: Scene) -> np.ndarray:
    """Which polygons may touch the scene, by their bounds: bool (n,), all where that is not known.

    A country's polygons need not be brought into the CRS of each scene, only those near it.

    Args:
        labels: the polygons.
        bounds: of the polygons, (n, 4), as shapely gives them.
        scene: where they are to lie.

    Raises:
        LsmapError: see `in_scene_crs`.
    """
    corners = np.array(scene.corners(0, 0, scene.height, scene.width))
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    if not same_map(labels, scene):
        transformer = _transformer(labels, scene)
        try:
            west, south, east, north = transformer.transform_bounds(
                west, south, east, north, direction="INVERSE"
            )
        except ProjError:
            west = np.nan
    longest = np.abs(bounds[:, ::2]).max(initial=0)
    turned = labels.crs is not None and labels.crs.is_geographic and longest > 180
    known = np.isfinite([west, south, east, north]).all()
    if turned or not known or west > east:  # the antimeridian, a pole
        return np.ones(len(bounds), dtype=bool)
    margin = NEAR * max(east - west, north - south)
    return (
        (bounds[:, 0] <= east + margin)
        & (bounds[:, 2] >= west - margin)
        & (bounds[:, 1] <= north + margin)
        & (bounds[:, 3] >= south - margin)
    )


def _transformer(labels: Labels, scene: Scene) -> pyproj.Transformer:
    assert labels.crs is not None
    if labels.crs.is_geocentric:
        raise LsmapError(
            f"{labels.path}: its CRS {crs_name(labels.crs)} is geocentric (metres from the earth's "
            "centre), which is not a map; reproject it first: "
            "ogr2ogr -t_srs EPSG:4326 OUTPUT.gpkg INPUT"
        )
    try:
        return pyproj.Transformer.from_crs(labels.crs, scene.crs, always_xy=True)
    except ProjError as error:
        raise LsmapError(
            f"{labels.path}: there is no way from its CRS ({crs_name(labels.crs)}) to that of "
            f"{scene.name} ({crs_name(scene.crs)}); are they on the same planet?"
        ) from error


def burn(
    shape: tuple[int, int],
    transform: affine.Affine,
    landslides: np.ndarray,
    ignored: np.ndarray,
    aoi: np.ndarray | None,
) -> np.ndarray:
    """Mask uint8 of `shape`: 1 where a pixel's centre lies in a landslide, 0 elsewhere.

    255 where it lies in an ignored polygon or outside `aoi` (None: everywhere is inside).
    """
    mask = _inside(shape, transform, landslides)
    if len(ignored):
        mask[_inside(shape, transform, ignored) > 0] = IGNORE
    if aoi is not None:
        mask[_inside(shape, transform, aoi) == 0] = IGNORE
    return mask


def _inside(shape: tuple[int, int], transform: affine.Affine, polygons: np.ndarray) -> np.ndarray:
    if not len(polygons):
        return np.zeros(shape, dtype=np.uint8)
    pairs: list[tuple[Any, int]] = [(polygon, LANDSLIDE) for polygon in polygons]
    return rasterize(pairs, out_shape=shape, transform=transform, fill=0, dtype="uint8")
