"""Rasters that are not files here: what GDAL calls them, how to read them, what may go wrong."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import rasterio
from rasterio.env import set_gdal_config
from rasterio.session import DummySession

from landslide_mapper.errors import one_line

CACHE_BYTES = 48 * 2**20  # decoded blocks that GDAL keeps; its own default is 5 % of all memory

_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_DRIVER = re.compile(r"[A-Za-z]\w+:")  # NETCDF:file.nc:rain and the like
_NETWORK = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsioss", "/vsiswift", "/vsiadls")

# What the user sets in the environment goes before these. A VRT here may lead to files elsewhere,
# so most of it counts for every raster.
_OPTIONS = {
    "GDAL_HTTP_MULTIRANGE": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds; doubles from try to try
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # a server that sends nothing for so long is gone
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
_REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no list of the folder, no search for sidecars
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # the head of a large COG in one request
}


def gdal_name(path: str) -> str:
    """What GDAL calls `path`: URLs become /vsi… names, everything else stays."""
    scheme, mark, rest = path.partition("://")
    prefix = _SCHEMES.get(scheme.lower()) if mark else None
    return prefix + rest if prefix else path


def is_remote(path: str) -> bool:
    """Whether reading `path` (a path, URL, /vsi… name or VRT as text) goes over a network."""
    name = gdal_name(path)
    if name.startswith("<"):
        return any(f">{prefix}" in name for prefix in _NETWORK)
    return name.startswith(_NETWORK)


def is_local(path: str) -> bool:
    """Whether `path` can only mean a file or folder on this machine.

    Names of files may have colons in them, as times do.
    """
    if "://" in path or path.startswith(("/vsi", "<")):
        return False
    return _DRIVER.match(path) is None or os.path.exists(path)


def no_such(path: str, what: str = "file") -> str:
    """One line on a local `path` where there is nothing; `what` was looked for."""
    file, sign, _ = path.partition("|")
    if sign and os.path.exists(file):
        return f"{path}: what QGIS adds from '|' on is no part of the name; give {file}"
    return f"{path}: there is no such {what}"


def shown_name(path: str) -> str:
    """File name without folder, and without the query of a URL."""
    where = urlsplit(path).path if "://" in path else path
    return Path(where).name or path


def without_query(path: str) -> str:
    """The address without its query, which may hold a signature that is nobody else's business."""
    return urlsplit(path)._replace(query="", fragment="").geturl() if "://" in path else path


def settings(path: str) -> rasterio.Env:
    """GDAL's settings for opening and reading `path`, as a context for the thread that does it.

    Credentials are GDAL's own business (AWS_ACCESS_KEY_ID, AWS_NO_SIGN_REQUEST, ~/.aws, …); only
    the endpoint that other S3 tools know as AWS_ENDPOINT_URL is handed on under GDAL's names.
    """
    options = _OPTIONS | _s3_endpoint() | (_REMOTE_OPTIONS if is_remote(path) else {})
    chosen = {name: value for name, value in options.items() if name not in os.environ}
    return rasterio.Env(session=DummySession(), **chosen)


@cache
def limit_cache() -> None:
    """Keep GDAL's cache of decoded blocks small, unless the user has set GDAL_CACHEMAX. Once."""
    if "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)


def _s3_endpoint() -> dict[str, str]:
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url or "AWS_S3_ENDPOINT" in os.environ:
        return {}
    parts = urlsplit(url if "://" in url else f"https://{url}")
    return {
        "AWS_S3_ENDPOINT": parts.netloc + parts.path.rstrip("/"),
        "AWS_HTTPS": "NO" if parts.scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",  # a server of one's own has no host name per bucket
    }


def open_error(path: str, error: Exception) -> str:
    """One line on why GDAL did not open the network raster `path`, and what to do."""
    said = one_line(error)
    low = said.lower()
    if any(sign in low for sign in ("code: 404", "does not exist", "no such key")):
        return f"{path}: there is no such file on the server ({said}); check the address"
    if any(sign in low for sign in ("resolve host", "connect to", "timed out", "timeout")):
        return f"{path}: the server cannot be reached ({said}); check the address and the network"
    if any(sign in low for sign in ("code: 401", "code: 403", "denied", "aws_", "signature")):
        return f"{path}: the server asks for credentials ({said}); {_credentials(path)}"
    if "response code" in low:
        return f"{path}: the server refused ({said}); try again later"
    return f"{path}: GDAL cannot read this as a raster ({said})"


def _credentials(path: str) -> str:
    if gdal_name(path).startswith("/vsis3"):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_NO_SIGN_REQUEST=YES for a "
            "public bucket, and AWS_ENDPOINT_URL for a server that is not Amazon's"
        )
    return "use a signed URL, or name a file with the header to send in GDAL_HTTP_HEADER_FILE"
