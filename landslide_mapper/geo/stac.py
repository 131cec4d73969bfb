"""STAC items as rasters; needs pystac (the extra `stac`)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from landslide_mapper.errors import LsmapError, one_line
from landslide_mapper.geo import remote
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.scene import Source

if TYPE_CHECKING:
    import pystac

LARGEST_ITEM = 10_000_000  # bytes; a larger JSON file holds features
COLOURS = ("red", "green", "blue", "nir")
NO_IMAGE = {"thumbnail", "overview", "metadata"}  # roles of assets


def is_item_name(name: str) -> bool:
    """Whether a name looks like that of a STAC item."""
    url = "://" in name
    path = urlsplit(name).path if url else name
    return path.lower().endswith((".json", ".geojson")) or (url and "/items/" in path)


def is_stac_item(name: str) -> bool:
    """Whether this names a STAC item; GeoJSON files of polygons have names like those."""
    if not is_item_name(name) or "://" in name:
        return is_item_name(name)
    path = Path(name)
    if not path.is_file() or path.stat().st_size > LARGEST_ITEM:
        return False
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(values, dict) and "stac_version" in values


def item_source(name: str, assets: Sequence[str], bands: int) -> Source:
    """The raster of a STAC item: of the asset that is chosen, or of several put together.

    Args:
        name: a file, or a URL of an API's item.
        assets: to use; none: "visual", else the only raster, else the bands with common names.
        bands: how many bands the model takes, when it comes to common names.

    Raises:
        LsmapError: it is none or cannot be read, there is no such asset, or pystac is missing.
    """
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
