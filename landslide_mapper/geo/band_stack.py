"""Rasters of single bands as one raster, a VRT."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import remote
from landslide_mapper.geo.scene import open_raster

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


def stack(paths: Sequence[str]) -> str:
    """A VRT, as text that GDAL opens, whose bands are those of the rasters at `paths`, in order.

    Alpha bands are left out. Raises `LsmapError` when the rasters do not lie on the same pixels.
    """
    bands: list[str] = []
    for path in paths:
        with open_raster(path) as raster:
            grid = (raster.width, raster.height, raster.crs)
            if not bands:
                head, mask = _head(raster), _mask(path, raster)
                first, place = grid, raster.transform
            if grid != first or not raster.transform.almost_equals(place, 1e-6):
                raise LsmapError(
                    f"{path}: does not have the pixels of {paths[0]}; choose assets of one "
                    "resolution with --asset"
                )
            for number in raster.indexes:
                if raster.colorinterp[number - 1] != ColorInterp.alpha:
                    bands.append(_band(len(bands) + 1, path, raster, number))
    return "\n".join([*head, *bands, *mask, "</VRTDataset>"])


def _head(raster: rasterio.DatasetReader) -> list[str]:
    place = ", ".join(repr(float(value)) for value in raster.transform.to_gdal())
    crs = [f"<SRS>{escape(raster.crs.to_wkt())}</SRS>"] if raster.crs else []
    size = f'rasterXSize="{raster.width}" rasterYSize="{raster.height}"'
    return [f"<VRTDataset {size}>", *crs, f"<GeoTransform>{place}</GeoTransform>"]


def _band(place: int, path: str, raster: rasterio.DatasetReader, number: int) -> str:
    kind = GDAL_TYPES.get(raster.dtypes[number - 1])
    if kind is None:
        raise LsmapError(f"{path}: pixels of type {raster.dtypes[number - 1]} cannot be used")
    nodata = raster.nodatavals[number - 1]
    hole = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    return (
        f'<VRTRasterBand dataType="{kind}" band="{place}">{hole}'
        f"{_simple_source(path, str(number))}</VRTRasterBand>"
    )


def _mask(path: str, raster: rasterio.DatasetReader) -> list[str]:
    """The first raster's mask or transparency, as the mask of the whole."""
    flags = raster.mask_flag_enums[0]
    if MaskFlags.per_dataset not in flags and MaskFlags.alpha not in flags:
        return []
    band = f'<VRTRasterBand dataType="Byte">{_simple_source(path, "mask,1")}</VRTRasterBand>'
    return [f"<MaskBand>{band}</MaskBand>"]


def _simple_source(path: str, band: str) -> str:
    name = escape(remote.gdal_name(path))
    return (
        f'<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource>"
    )
