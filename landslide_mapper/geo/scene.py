"""Scenes: anything GDAL opens, described once and read window by window with its validity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import affine
import numpy as np
import pyproj
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from landslide_mapper.errors import LsmapError

# A raster without georeference is a normal input here (image folders); lsmap says so itself.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

STRIP_PIXELS = 4_000_000  # of a mask that are looked at together


@dataclass(frozen=True)
class Scene:
    """What one raster is: path, size in pixels, bands to read, CRS and pixel size in metres."""

    path: str
    width: int
    height: int
    count: int
    dtype: str
    crs: pyproj.CRS | None
    transform: affine.Affine
    bands: tuple[int, ...]
    gsd: tuple[float, float] | None
    colorinterp: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name without folder, as shown to people."""
        return Path(self.path).name

    def corners(
        self, row: float, col: float, height: float, width: float
    ) -> list[tuple[float, float]]:
        """Map coordinates of a window's four corners, in the scene's CRS, as a ring."""
        pixels = ((col, row), (col + width, row), (col + width, row + height), (col, row + height))
        return [self.transform * pixel for pixel in pixels]

    def pixel_size(self, row: float, col: float) -> tuple[float, float] | None:
        """Geodesic size in metres (x, y) of the pixel at `row`, `col`; None without a CRS."""
        return _pixel_size(self.crs, self.transform, row, col)


def open_scene(path: str, bands: Sequence[int] | None = None) -> Scene:
    """Describe the raster at `path` (file, VRT, /vsi…, URL).

    `bands` are 1-based; by default the first three that are not alpha (all if fewer).
    Raises `LsmapError` when it is missing, not a raster, or has no such band.
    """
    path = str(path)
    try:
        with rasterio.open(path) as raster:
            return _describe(path, raster, bands)
    except RasterioError as error:
        raise LsmapError(_open_error(path, error)) from error


def _open_error(path: str, error: Exception) -> str:
    local = "://" not in path and ":" not in path[2:] and not path.startswith("/vsi")
    if local and not Path(path).exists():
        return f"{path}: there is no such file."
    if local and Path(path).is_dir():
        return f"{path}: this is a folder; give the raster files in it (e.g. {path}/*.tif)."
    return f"{path}: GDAL cannot read this as a raster ({' '.join(str(error).split())})."


def _describe(path: str, raster: rasterio.DatasetReader, bands: Sequence[int] | None) -> Scene:
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
            "(see --bands)."
        )
    if not chosen:
        raise LsmapError(f"{path}: the only band is an alpha band; there is no image to read.")
    if interp[chosen[0] - 1] == ColorInterp.palette:
        raise LsmapError(
            f"{path}: band {chosen[0]} holds palette numbers, not colours; "
            "convert it with: gdal_translate -expand rgb INPUT OUTPUT.tif"
        )
    dtype = np.result_type(*(raster.dtypes[b - 1] for b in chosen))
    if dtype.kind not in "uif":
        raise LsmapError(
            f"{path}: pixels of type {dtype} cannot be used (integer or float needed)."
        )
    crs = _crs(path, raster)
    centre = (raster.height / 2, raster.width / 2)
    return Scene(
        path=path,
        width=raster.width,
        height=raster.height,
        count=raster.count,
        dtype=str(dtype),
        crs=crs,
        transform=raster.transform,
        bands=chosen,
        gsd=_pixel_size(crs, raster.transform, *centre),
        colorinterp=tuple(c.name for c in interp),
    )


def _crs(path: str, raster: rasterio.DatasetReader) -> pyproj.CRS | None:
    if not raster.crs:
        return None
    try:
        return pyproj.CRS.from_user_input(raster.crs)
    except pyproj.exceptions.CRSError as error:
        raise LsmapError(f"{path}: its coordinate reference system cannot be used.") from error


@lru_cache(maxsize=64)
def _to_geodetic(crs: pyproj.CRS) -> tuple[pyproj.Transformer, pyproj.Geod] | None:
    geod, geodetic = crs.get_geod(), crs.geodetic_crs
    if geod is None or geodetic is None:
        return None
    return pyproj.Transformer.from_crs(crs, geodetic, always_xy=True), geod


def _pixel_size(
    crs: pyproj.CRS | None, transform: affine.Affine, row: float, col: float
) -> tuple[float, float] | None:
    if crs is None:
        return None
    pair = _to_geodetic(crs)
    if pair is None:  # a local engineering grid: its unit is all there is to know
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return (
            math.hypot(transform.a, transform.d) * unit,
            math.hypot(transform.b, transform.e) * unit,
        )
    transformer, geod = pair
    ends = [(col - 0.5, row), (col + 0.5, row), (col, row - 0.5), (col, row + 0.5)]
    xs, ys = zip(*(transform * end for end in ends), strict=True)
    lon, lat = transformer.transform(xs, ys)
    if not np.all(np.isfinite([*lon, *lat])):
        return None
    _, _, metres = geod.inv([lon[0], lon[2]], [lat[0], lat[2]], [lon[1], lon[3]], [lat[1], lat[3]])
    return float(metres[0]), float(metres[1])


class SceneReader:
    """Reads windows of one scene. Holds one GDAL handle: use one reader per thread."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        try:
            self._raster = rasterio.open(scene.path)
        except RasterioError as error:
            raise LsmapError(_open_error(scene.path, error)) from error
        self._alpha = [i + 1 for i, c in enumerate(scene.colorinterp) if c == "alpha"]
        flags = [f for b in scene.bands for f in self._raster.mask_flag_enums[b - 1]]
        self._all_valid = not self._alpha and all(f == MaskFlags.all_valid for f in flags)

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the GDAL handle."""
        self._raster.close()

    def read(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        out_shape: tuple[int, int] | None = None,
        nearest: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the window that starts at `row`, `col` (may lie partly or wholly outside).

        Returns `(data, valid)`: data (B, h, w) in the scene's dtype and valid (h, w) bool.
        Outside the scene data is 0 and invalid. With `out_shape` = (h, w) the window is decimated
        (mean of the valid pixels; valid where all of the source is) or enlarged (bilinear);
        `nearest` takes single source pixels instead of means. Raises `LsmapError` when a
        block of the file cannot be read.
        """
        h, w = out_shape or (height, width)
        data = np.zeros((len(self.scene.bands), h, w), dtype=self.scene.dtype)
        valid = np.zeros((h, w), dtype=bool)
        rows, source_rows = _inside(row, height, h, self.scene.height)
        cols, source_cols = _inside(col, width, w, self.scene.width)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return data, valid
        window = Window.from_slices(source_rows, source_cols)
        part = (rows.stop - rows.start, cols.stop - cols.start)
        resampling = Resampling.nearest
        if (h, w) != (height, width) and not nearest:
            shrinks = h * w < height * width
            resampling = Resampling.average if shrinks else Resampling.bilinear
        try:
            data[:, rows, cols], valid[rows, cols] = self._read(window, part, resampling)
        except RasterioError as error:
            cause = " ".join(str(error.__cause__ or error).split())
            raise LsmapError(
                f"{self.scene.path}: pixels at row {row}, column {col} cannot be read ({cause}); "
                "the file may be cut short or damaged."
            ) from error
        return data, valid

    def _read(
        self, window: Window, shape: tuple[int, int], resampling: Resampling
    ) -> tuple[np.ndarray, np.ndarray]:
        bands = list(self.scene.bands)
        data = self._raster.read(
            bands, window=window, out_shape=(len(bands), *shape), resampling=resampling
        )
        if resampling == Resampling.average:
            valid = self._shrunk_valid(window, shape)
            data[:, ~valid] = 0
        else:
            valid = self._valid(window, shape, data if resampling == Resampling.nearest else None)
            if data.dtype.kind == "f":
                valid &= np.isfinite(data).all(axis=0)
                data[:, ~np.isfinite(data).all(axis=0)] = 0
        return data, valid

    def _valid(self, window: Window, shape: tuple[int, int], data: np.ndarray | None) -> np.ndarray:
        """Validity (h, w) of a window, from single source pixels; `data` saves a second read."""
        valid = np.ones(shape, dtype=bool)
        bands = list(self.scene.bands)
        if not self._all_valid:
            # A pixel is seen when any of its bands is: black in one band is not a hole.
            masks = self._raster.read_masks(bands, window=window, out_shape=(len(bands), *shape))
            valid &= (masks > 0).any(axis=0)
            for alpha in self._alpha:
                valid &= self._raster.read(alpha, window=window, out_shape=shape) > 0
        if np.dtype(self.scene.dtype).kind == "f":
            if data is None:
                data = self._raster.read(bands, window=window, out_shape=(len(bands), *shape))
            valid &= np.isfinite(data).all(axis=0)
        return valid

    def _shrunk_valid(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Validity (h, w) of a decimated window: true where every source pixel is valid.

        GDAL decimates masks by picking single pixels, so they are read whole, strip by strip.
        """
        if self._all_valid and np.dtype(self.scene.dtype).kind != "f":
            return np.ones(shape, dtype=bool)
        tops, bottoms = _cells(window.row_off, window.height, shape[0], self.scene.height)
        lefts, rights = _cells(window.col_off, window.width, shape[1], self.scene.width)
        first, width = lefts[0], rights[-1] - lefts[0]
        valid = np.empty(shape, dtype=bool)
        at_once = max(1, int(STRIP_PIXELS / (width * window.height / shape[0])))
        for start in range(0, shape[0], at_once):
            part = slice(start, min(start + at_once, shape[0]))
            top, height = tops[part][0], bottoms[part][-1] - tops[part][0]
            strip = self._valid(Window(first, top, width, height), (height, width), None)
            holes = np.zeros((height + 1, width + 1), dtype=np.int64)
            holes[1:, 1:] = (~strip).cumsum(axis=0).cumsum(axis=1)
            rows, cols = (tops[part] - top, bottoms[part] - top), (lefts - first, rights - first)
            inside = holes[np.ix_(rows[1], cols[1])] - holes[np.ix_(rows[0], cols[1])]
            inside += holes[np.ix_(rows[0], cols[0])] - holes[np.ix_(rows[1], cols[0])]
            valid[part] = inside == 0
        return valid


def _cells(start: float, length: float, out: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last-plus-one source pixel that each of `out` cells along an axis touches."""
    edges = start + np.arange(out + 1) * (length / out)
    first = np.floor(edges[:-1] + 1e-6).astype(int)
    last = np.ceil(edges[1:] - 1e-6).astype(int)
    return np.clip(first, 0, size - 1), np.clip(np.maximum(last, first + 1), 1, size)


def _inside(start: int, length: int, out: int, size: int) -> tuple[slice, slice]:
    """Output cells of one axis that lie wholly inside the scene, and the source they cover."""
    scale = length / out
    first = max(0, math.ceil(-start / scale - 1e-9))
    last = min(out, math.floor((size - start) / scale + 1e-9))
    low, high = start + first * scale, start + last * scale
    if length == out:
        return slice(first, last), slice(round(low), round(high))
    return slice(first, last), slice(max(0.0, low), min(float(size), high))
