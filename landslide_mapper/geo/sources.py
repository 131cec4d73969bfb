"""What a person names on the command line, as rasters: files, folders, patterns, URLs, STAC items.

STAC items need pystac (the extra `stac`); nothing is read here but catalogues and folders.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from landslide_mapper.errors import LsmapError, note, one_line
from landslide_mapper.geo import remote
from landslide_mapper.geo.scene import Scene, Source, is_raster, open_raster
from landslide_mapper.geo.scene_info import RASTER_SUFFIXES

if TYPE_CHECKING:
    import pystac

TAG = "LSMAP_"  # what metadata of lsmap's own rasters begin with
LARGEST_ITEM = 10_000_000  # bytes; a larger JSON file holds features
COLOURS = ("red", "green", "blue", "nir")
PART_OF_PIXEL = 0.5  # by which a piece may lie beyond the mosaic that shows it
COARSER = 1.5  # times: a mosaic of larger pixels than that is another scene
NO_IMAGE = {"thumbnail", "overview", "metadata"}  # roles of assets

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


def expand_sources(
    names: Sequence[str], assets: Sequence[str] = (), bands: int = 3
) -> list[Source]:
    """The rasters behind what was named, in order.

    Args:
        names: files, VRTs, URLs, s3:// and /vsi… names, folders, patterns (`*`, `?`), and STAC
            items (`.json`, or a URL of an API's item).
        assets: assets of STAC items to use; none: "visual", else the only raster, else the
            bands with common names.
        bands: how many bands the model takes, when it comes to common names.

    Raises:
        LsmapError: an empty folder, a pattern that matches nothing, no STAC item, no such asset.
    """
    found: list[Source] = []
    stac = False
    for name in map(str, names):
        if not name:
            raise LsmapError("'': a scene has no name; is a variable of the shell empty?")
        if _is_stac(name):
            found.append(_stac_source(name, assets, bands))
            stac = True
        elif remote.is_local(name):
            found += _local(name)
        else:
            found.append(Source(name))
    if assets and not stac:
        raise LsmapError(f"--asset {','.join(assets)}: none of the inputs is a STAC item")
    return found


def is_several(name: str) -> bool:
    """Whether this names a folder with rasters in it, or a pattern."""
    path = Path(name)
    if not remote.is_local(name):
        return False
    return bool(_rasters_in(path)) if path.is_dir() else _is_pattern(name)


def is_stac_item(name: str) -> bool:
    """Whether this names a STAC item; GeoJSON files of polygons have names like those."""
    if not _is_stac(name) or "://" in name:
        return _is_stac(name)
    path = Path(name)
    if not path.is_file() or path.stat().st_size > LARGEST_ITEM:
        return False
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(values, dict) and "stac_version" in values


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not Path(name).exists()


def _local(name: str) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        yield from map(Source, _in_folder(path))
    elif _is_pattern(name):
        matches = sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))
        if not matches:
            raise LsmapError(f"{name}: no file matches this pattern")
        yield from map(Source, _scenes_of(name, matches))
    else:
        yield Source(name)


def _rasters_in(folder: Path) -> list[str]:
    return sorted(
        str(file)
        for file in folder.iterdir()
        if file.suffix.lower() in RASTER_SUFFIXES and file.is_file()
    )


def _in_folder(folder: Path) -> list[str]:
    files = _rasters_in(folder)
    if files:
        return _scenes_of(str(folder), files)
    if is_raster(str(folder)):  # some formats of GDAL are folders
        return [str(folder)]
    raise LsmapError(
        f"{folder}: there is no raster in this folder ({', '.join(RASTER_SUFFIXES)}); folders in "
        "it are not searched"
    )


def _scenes_of(name: str, files: Sequence[str]) -> list[str]:
    """The scenes among the files of a folder or pattern, with a note on what was left out.

    Those are what lsmap has made itself, and the pieces of a mosaic that is among them.
    """
    made, pieces = set[str](), set[Path]()
    for file in files:
        try:
            with open_raster(file) as raster:
                if any(tag.startswith(TAG) for tag in raster.tags()):
                    made.add(file)
                elif raster.driver == "VRT":
                    pieces |= _shown_whole(raster)
        except LsmapError:
            continue  # whoever opens it says why it cannot be used
    scenes = [file for file in files if file not in made and Path(file).resolve() not in pieces]
    parts = len(files) - len(made) - len(scenes)
    said = f"{name}: {len(scenes)} scene{'s' * (len(scenes) != 1)}"
    if made:
        said += f"; left out: {len(made)} that lsmap made itself"
    if parts:
        said += f"{',' if made else '; left out:'} {parts} that a mosaic in it shows"
    note(said)
    if not scenes:
        raise LsmapError(f"{name}: there is nothing in it but what lsmap made itself")
    return scenes


def _shown_whole(mosaic: rasterio.DatasetReader) -> set[Path]:
    """The rasters that a VRT shows all of, at their own pixel size or finer."""
    found = set[Path]()
    for file in mosaic.files:
        if file == mosaic.name or not is_raster(file):
            continue
        with open_raster(file) as piece:
            try:
                west, south, east, north = transform_bounds(piece.crs, mosaic.crs, *piece.bounds)
            except RasterioError:  # one of them has no CRS
                west, south, east, north = piece.bounds
                if piece.crs != mosaic.crs:
                    continue
            x, y = (side * PART_OF_PIXEL for side in mosaic.res)
            left, bottom, right, top = mosaic.bounds
            inside = left - x <= west and bottom - y <= south
            inside &= east <= right + x and north <= top + y
            # Pixels that the piece's own would be there.
            own = ((east - west) / piece.width, (north - south) / piece.height)
            fine = all(there <= here * COARSER for there, here in zip(mosaic.res, own, strict=True))
            if inside and fine and mosaic.count >= min(piece.count, len(COLOURS)):
                found.add(Path(file).resolve())
    return found


# --- STAC ------------------------------------------------------------------------------------


def _is_stac(name: str) -> bool:
    url = "://" in name
    path = urlsplit(name).path if url else name
    return path.lower().endswith((".json", ".geojson")) or (url and "/items/" in path)


def _stac_source(name: str, assets: Sequence[str], bands: int) -> Source:
    item = _read_item(name)
    chosen = [_asset(name, item, asset) for asset in assets] or _default_assets(name, item, bands)
    hrefs = [_href(asset) for asset in chosen]
    if len(hrefs) == 1:
        return Source(name, remote.gdal_name(hrefs[0]), item.id)
    return Source(name, stack(hrefs), item.id)


def _read_item(name: str) -> pystac.Item:
    try:
        import pystac
    except ImportError as error:
        raise LsmapError(f"{name}: STAC items need pystac: pip install 'lsmap[stac]'") from error
    try:
        values = json.loads(_read_text(name))
        kind = values.get("type")
        if kind != "Feature" or "assets" not in values:
            what = "collection" if kind == "FeatureCollection" else str(kind or "file").lower()
            raise LsmapError(
                f"{name}: this {what} is not a STAC item; give the items whose scenes are to be "
                "mapped, one by one"
            )
        # Assets lie beside this file, wherever it was published once.
        links = [link for link in values.get("links", ()) if link.get("rel") != "self"]
        item = pystac.Item.from_dict(values | {"links": links})
    except (ValueError, AttributeError, KeyError, TypeError, pystac.STACError) as error:
        raise LsmapError(f"{name}: this is not a STAC item ({one_line(error)})") from error
    item.set_self_href(name if "://" in name else os.path.abspath(name))
    return item


def _read_text(name: str) -> str:
    import pystac

    if not name.startswith(("http://", "https://")) and "://" in name:
        raise LsmapError(f"{name}: STAC items are read from files and http; download it first")
    if "://" not in name and not Path(name).is_file():
        raise LsmapError(f"{name}: there is no such file")
    try:
        return pystac.StacIO.default().read_text(name)
    except ValueError:  # not text
        raise
    except Exception as error:  # pystac wraps whatever happened to a request in a plain Exception
        cause = one_line(error.__cause__ or error)
        raise LsmapError(
            f"{name}: the STAC item cannot be read ({cause}); check the address and the network"
        ) from error


def _asset(name: str, item: pystac.Item, key: str) -> pystac.Asset:
    if key not in item.assets:
        raise LsmapError(f"{name}: there is no asset {key!r}; the item has: {_listed(item)}")
    return item.assets[key]


def _default_assets(name: str, item: pystac.Item, bands: int) -> list[pystac.Asset]:
    rasters = {key: asset for key, asset in item.assets.items() if _is_image(asset)}
    if "visual" in rasters and bands <= 3:
        return [rasters["visual"]]
    if len(rasters) == 1:
        return list(rasters.values())
    by_colour: dict[str, pystac.Asset] = {}
    for asset in rasters.values():
        colours = _colours(asset)
        if len(colours) == 1:
            by_colour.setdefault(colours[0], asset)
    wanted = COLOURS[:bands]
    if bands <= len(COLOURS) and all(colour in by_colour for colour in wanted):
        return [by_colour[colour] for colour in wanted]
    raise LsmapError(
        f"{name}: it is not clear which asset to map; say it with --asset NAME (or several, for "
        f"single bands: --asset red,green,blue); the item has: {_listed(item)}"
    )


def _is_image(asset: pystac.Asset) -> bool:
    if NO_IMAGE & set(asset.roles or ()):
        return False
    if asset.media_type:
        return asset.media_type.startswith(("image/tiff", "image/vnd.stac.geotiff", "image/jp2"))
    return Path(urlsplit(asset.href).path).suffix.lower() in (".tif", ".tiff", ".jp2", ".vrt")


def _colours(asset: pystac.Asset) -> list[Any]:
    """Common names of an asset's bands, from the EO extension or STAC 1.1's own field."""
    bands = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands") or ()
    known = [band for band in bands if isinstance(band, dict)]
    return [band.get("common_name") or band.get("eo:common_name") for band in known]


def _href(asset: pystac.Asset) -> str:
    return str(asset.get_absolute_href() or asset.href)


def _listed(item: pystac.Item) -> str:
    return ", ".join(item.assets) or "no assets"


# --- single bands as one raster ---------------------------------------------------------------


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


def check_no_input(
    made: Iterable[Path], scenes: Sequence[Scene], others: Iterable[str | None] = ()
) -> None:
    """Raise `LsmapError` where a file to be made is one that is read.

    Args:
        made: files to be made.
        scenes: with all their files: those behind a VRT, masks, overviews.
        others: further files that are read; None for none.
    """
    there = [path for path in made if path.exists()]
    if not there:
        return
    inputs = {Path(path).resolve() for path in others if path}
    for scene in scenes:
        inputs |= {Path(scene.path).resolve(), *files_of(scene)}
    for path in there:
        if path.resolve() in inputs:
            raise LsmapError(f"{path}: this is an input; lsmap never changes its inputs")


def files_of(scene: Scene) -> list[Path]:
    """All files on this machine that a scene is made of: behind a VRT, masks, overviews, metadata.

    Raises:
        LsmapError: it cannot be opened.
    """
    found: set[Path] = set()
    waiting: list[Scene | str] = [scene]
    while waiting:
        with open_raster(waiting.pop()) as raster:
            files = {Path(file).resolve() for file in raster.files if remote.is_local(file)}
        new = {file for file in files - found if file.is_file()}
        found |= new
        nested = [str(file) for file in new if file.suffix.lower() == ".vrt"]
        waiting += [file for file in nested if is_raster(file)]
    return sorted(found)
