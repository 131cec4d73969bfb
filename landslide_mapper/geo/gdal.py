"""GDAL's errors, whichever library they come through, as one kind; texts of any encoding."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio._err import CPLE_BaseError  # rasterio lets it through when a write fails
from rasterio.errors import RasterioError

from landslide_mapper.errors import one_line

ERRORS = (RasterioError, CPLE_BaseError, DataSourceError, DataLayerError, sqlite3.Error)
ANY_BYTES = "ISO-8859-1"  # has a letter for every byte


def read_info(vector: str | bytes, **options: Any) -> dict[str, Any]:
    """`pyogrio.read_info`, also of a layer whose texts are not in the encoding that it names."""
    return _in_any_encoding(pyogrio.read_info, vector, options)


def read_raw(vector: str | bytes, **options: Any) -> tuple[dict[str, Any], Any, Any, Any]:
    """`pyogrio.raw.read`, also of a layer whose texts are not in the encoding that it names."""
    return _in_any_encoding(pyogrio.raw.read, vector, options)


def _in_any_encoding(read: Callable[..., Any], vector: str | bytes, options: dict[str, Any]) -> Any:
    try:
        return read(vector, **options)
    except UnicodeDecodeError:  # shapes are of use whatever the names of fields are
        return read(vector, **options, encoding=ANY_BYTES)


@contextmanager
def as_os_error(*others: type[Exception]) -> Iterator[None]:
    """A context in which a file is written: what goes wrong is an `OSError` with one line.

    `others` are errors that mean the same there.
    """
    try:
        yield
    except (*ERRORS, *others) as error:
        raise OSError(one_line(error.__cause__ or error)) from error


@contextmanager
def new_layer(**settings: str) -> Iterator[None]:
    """A context in which pyogrio writes a layer that nobody else knows yet; errors are `OSError`.

    GeoPackages are written without SQLite's locks, which not every network drive has. `settings`
    are further ones of GDAL.
    """
    settings |= {"SQLITE_USE_OGR_VFS": "YES"}
    before = {name: pyogrio.get_gdal_config_option(name) for name in settings}
    pyogrio.set_gdal_config_options(settings)
    try:
        with as_os_error():
            yield
    finally:
        pyogrio.set_gdal_config_options(before)
