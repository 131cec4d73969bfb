"""Scenes: anything GDAL opens as a raster, described once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import rasterio
from pyogrio.errors import DataLayerError, DataSourceError, GeometryError
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError, RasterioError

from landslide_mapper.errors import LsmapError, once, one_line, warn
from landslide_mapper.geo import remote
from landslide_mapper.geo.scene_info import (
    COLOURS,
    Scene,
    Source,
    at_pixel_size,
    is_plain,
    pixel_size,
)

__all__ = ["Scene", "Source", "at_pixel_size", "open_raster", "open_scene"]

PROJ_VARIABLES = ("PROJ_DATA", "PROJ_LIB")
UNFREE = {".ecw": "ECW", ".sid": "MrSID"}  # drivers that rasterio does not bring along


def open_scene(
    source: str | Source, bands: Sequence[int] | None = None, picture: bool = False
) -> Scene:
    """Describe a raster (file, VRT, /vsi…, URL, s3://).

    `bands` are 1-based; by default the first three that are not alpha (all if fewer). Of a
    `picture` the place does not matter.
    Raises `LsmapError` when it is missing, not a raster, has no such band, or no usable place.
    """
    source = source if isinstance(source, Source) else Source(str(source))
    with open_raster(source) as raster:
        if not picture:
            _check_place(source.path, raster)
        return _describe(source, raster, bands)


def _check_place(path: str, raster: rasterio.DatasetReader) -> None:
    nowhere = raster.transform.is_identity  # what rasterio has for no geotransform
    if not raster.crs and raster.gcps[0]:
        raise LsmapError(
            f"{path}: is placed by ground control points, not on a map's grid; warp it first: "
            "gdalwarp INPUT OUTPUT.tif"
        )
    if nowhere and raster.tags(ns="RPC"):
        raise LsmapError(
            f"{path}: is placed by the camera's coefficients (RPC), not on a map's grid; warp it "
            "first, best with heights: gdalwarp -rpc -to RPC_DEM=HEIGHTS.tif INPUT OUTPUT.tif"
        )
    if nowhere and raster.crs:
        raise LsmapError(
            f"{path}: has a coordinate reference system, but no geotransform that says where in it "
            "the pixels lie; give it one: gdal_edit.py -a_ullr WEST NORTH EAST SOUTH FILE"
        )
    if raster.crs and pyproj.CRS.from_user_input(raster.crs).is_geocentric:
        raise LsmapError(
            f"{path}: its CRS is geocentric (metres from the earth's centre), which is not a map; "
            "warp it first: gdalwarp -t_srs EPSG:4326 INPUT OUTPUT.tif"
        )
    if raster.transform.is_degenerate:
        raise LsmapError(
            f"{path}: its pixels have no area ({tuple(raster.transform)[:6]}); give it a "
            "geotransform with gdal_edit.py -a_ullr"
        )


def open_raster(source: str | Source | Scene, **options: Any) -> rasterio.DatasetReader:
    """The open raster behind a source, for reading. Raises `LsmapError`.

    Read from it inside `remote.settings`. `options` are those of `rasterio.open`.
    """
    source = Source(source) if isinstance(source, str) else source
    name = _gdal_name(source)
    try:
        return _open(name, **options)
    except RasterioError as error:
        raise LsmapError(_open_error(source.path, name, error)) from error
    except UnicodeEncodeError as error:
        raise LsmapError(
            f"{source.path!a}: the name is not in UTF-8, and GDAL takes no other; rename it"
        ) from error


def _gdal_name(source: Source | Scene) -> str:
    return source.opened or remote.gdal_name(source.path)


def _open(name: str, **options: Any) -> rasterio.DatasetReader:
    remote.limit_cache()
    with remote.settings(name):
        if _stale_overviews(name):
            options = {"OVERVIEW_LEVEL": "NONE"} | options
        return rasterio.open(name, **options)


def _stale_overviews(name: str) -> bool:
    """Whether external overviews are older than the image: they may show another one."""
    image, overviews = Path(name), Path(f"{name}.ovr")
    if not (remote.is_local(name) and overviews.is_file() and image.is_file()):
        return False
    stale = overviews.stat().st_mtime < image.stat().st_mtime
    if stale:
        once(
            warn,
            f"{overviews}: these overviews are older than the image, so they are not used; make "
            f"them anew: gdaladdo -ro -clean {image.name}; gdaladdo -ro {image.name}",
        )
    return stale


def is_raster(path: str) -> bool:
    """Whether GDAL opens this as a raster; what it is else is not looked into."""
    try:
        _open(_gdal_name(Source(path))).close()
    except (LsmapError, RasterioError, UnicodeEncodeError):
        return False
    return True


def _open_error(path: str, name: str, error: Exception) -> str:
    if remote.is_remote(name):
        return remote.open_error(path, error)
    local = remote.is_local(path)
    if local and not Path(path).exists():
        return remote.no_such(path)
    if local and Path(path).is_dir():
        return f"{path}: this is a folder; give the raster files in it (e.g. {path}/*.tif)"
    driver = UNFREE.get(Path(path).suffix.lower())
    with rasterio.Env() as env:
        if driver and driver not in env.drivers():
            return (
                f"{path}: the GDAL that rasterio brings along cannot read {driver}; make a GeoTIFF "
                "of it where QGIS can: Raster > Conversion > Translate"
            )
    if local and _has_outlines(path):
        return (
            f"{path}: this is a vector layer, and a scene is a raster; in prepare the labels come "
            "last, in detect the output goes after -o"
        )
    return f"{path}: GDAL cannot read this as a raster ({one_line(error)})"


def _has_outlines(path: str) -> bool:
    try:
        return any(kind for _, kind in pyogrio.list_layers(path))
    except (DataSourceError, DataLayerError, GeometryError):
        return False


def _describe(source: Source, raster: rasterio.DatasetReader, bands: Sequence[int] | None) -> Scene:
    path = source.path
    if raster.count == 0:
        inside = ", ".join(raster.subdatasets[:3]) or "nothing"
        raise LsmapError(f"{path}: no bands at the top level; give one of what is inside: {inside}")
    interp = raster.colorinterp
    colours = [i for i in raster.indexes if interp[i - 1] != ColorInterp.alpha]
    chosen = tuple(bands) if bands else tuple(colours[:3])
    missing = [b for b in chosen if b not in raster.indexes]
    if missing:
        raise LsmapError(
            f"{path}: there is no band {missing[0]}; the raster has bands 1 to {raster.count} "
            "(see --bands)"
        )
    if not chosen:
        raise LsmapError(f"{path}: the only band is an alpha band; there is no image to read")
    if interp[chosen[0] - 1] == ColorInterp.palette:
        raise LsmapError(
            f"{path}: band {chosen[0]} holds palette numbers, not colours; "
            "convert it with: gdal_translate -expand rgb INPUT OUTPUT.tif"
        )
    kinds = [raster.dtypes[b - 1] for b in chosen]
    odd = [kind for kind in kinds if kind.startswith("complex")]  # numpy does not know all of them
    if odd:
        raise LsmapError(
            f"{path}: pixels of type {odd[0]} cannot be used (integer or float needed)"
        )
    crs = _crs(path, raster)
    centre = (raster.height / 2, raster.width / 2)
    return Scene(
        path=path,
        width=raster.width,
        height=raster.height,
        count=raster.count,
        dtype=str(np.result_type(*kinds)),
        crs=crs,
        transform=raster.transform,
        bands=chosen,
        gsd=pixel_size(crs, raster.transform, *centre),
        colorinterp=tuple(c.name for c in interp),
        colours=_colours(interp, raster.descriptions),
        opened=source.opened,
        title=source.title,
    )


def _colours(interp: Sequence[ColorInterp], descriptions: Sequence[str | None]) -> tuple[str, ...]:
    """What each band shows. Where descriptions name colours, no other band is one of these.

    GDAL calls the first three of bytes red, green and blue, whatever they are.
    """
    said = [(description or "").strip().lower() for description in descriptions]
    named = set(COLOURS).intersection(said)
    others = ["undefined" if named and one.name in COLOURS else str(one.name) for one in interp]
    return tuple(
        what if what in COLOURS else other for what, other in zip(said, others, strict=True)
    )


def _crs(path: str, raster: rasterio.DatasetReader) -> pyproj.CRS | None:
    if not raster.crs and is_plain(raster.transform):
        return None
    _check_proj()  # without it, one that the file only has the code of is gone
    if not raster.crs:
        return None
    try:
        return pyproj.CRS.from_user_input(raster.crs)
    except pyproj.exceptions.CRSError as error:
        raise LsmapError(f"{path}: its coordinate reference system cannot be used") from error


@cache
def _check_proj() -> None:
    """Raise `LsmapError` where GDAL cannot look up a CRS: all of them lose their place then."""
    try:
        rasterio.crs.CRS.from_epsg(4326)
    except CRSError as error:
        there = [f"{name}={os.environ[name]}" for name in PROJ_VARIABLES if name in os.environ]
        raise LsmapError(
            "GDAL does not find its database of coordinate reference systems "
            f"({one_line(error)}); {' and '.join(there) or 'a variable'} may lead it to that of "
            f"another installation: unset {' '.join(PROJ_VARIABLES)}"
        ) from error
