"""Mask and probability rasters: written strip by strip, delivered as cloud-optimised GeoTIFF.

Mask: 0 background, 1 landslide, 255 not seen. Probability: whole percent, 255 not seen. In both
255 is the nodata value, so it is transparent in a GIS and still there for whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.windows import Window

from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.style import MASK_COLOURS

UNSEEN = 255
BLOCK = 512  # pixels a side of a tile


class StripRaster:
    """A uint8 GeoTIFF on the scene's grid that is written from top to bottom.

    A finished part can be changed again (`burn`). A context manager; raises `OSError` when the
    disk does not take it.
    """

    def __init__(self, path: Path, scene: Scene) -> None:
        self.path = path
        with as_os_error():
            self._raster = rasterio.open(path, "w+", **_profile(scene))

    def __enter__(self) -> StripRaster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is still in memory and close the file."""
        with as_os_error():
            self._raster.close()

    def write(self, row: int, values: np.ndarray) -> None:
        """Write `values` (h, width) from pixel row `row` on."""
        window = Window(0, row, values.shape[1], values.shape[0])
        with as_os_error():
            self._raster.write(values, 1, window=window)

    def inside(self, polygon: shapely.Polygon) -> np.ndarray:
        """The values of the pixels inside a pixel-edge `polygon` (pixel coordinates)."""
        window, chosen = _footprint(polygon)
        values: np.ndarray = self._raster.read(1, window=window)
        return values[chosen]

    def burn(self, polygon: shapely.Polygon, value: int) -> None:
        """Give the pixels inside a pixel-edge `polygon` (pixel coordinates) this value."""
        window, chosen = _footprint(polygon)
        with as_os_error():
            values = self._raster.read(1, window=window)
            values[chosen] = value
            self._raster.write(values, 1, window=window)


def _footprint(polygon: shapely.Polygon) -> tuple[Window, np.ndarray]:
    left, top, right, bottom = (int(v) for v in polygon.bounds)
    chosen = rasterize(
        [(polygon, 1)],
        out_shape=(bottom - top, right - left),
        transform=Affine.translation(left, top),
        dtype="uint8",
    )
    return Window(left, top, right - left, bottom - top), chosen.astype(bool)


def _profile(scene: Scene) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": scene.width,
        "height": scene.height,
        "count": 1,
        "dtype": "uint8",
        "crs": scene.crs.to_wkt() if scene.crs is not None else None,
        "transform": scene.transform,
        "nodata": UNSEEN,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }


def classes(landslide: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mask values: 1 where `landslide`, 0 elsewhere, 255 where `valid` is false."""
    return np.where(valid, landslide.astype(np.uint8), np.uint8(UNSEEN))


def percent(probability: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Probabilities as uint8 percent, 255 where `valid` is false."""
    return np.where(valid, np.rint(probability * 100), UNSEEN).astype(np.uint8)


def outputs(path: Path) -> list[Path]:
    """Every file that comes with the raster `path`."""
    return [path.with_suffix(".qml"), path]


def leftovers(path: Path) -> list[Path]:
    """Files of an earlier raster `path` that would spoil a new one, e.g. its overviews."""
    return [path.with_name(path.name + part) for part in (".aux.xml", ".ovr", ".msk")]


def finish_mask(strips: Path, target: Path) -> None:
    """Make a COG with overviews and a colour table from the closed strip raster `strips`."""
    with as_os_error():
        with rasterio.open(strips, "r+") as raster:
            raster.write_colormap(1, MASK_COLOURS)
        _to_cog(strips, target, "MODE")


def finish_probability(strips: Path, target: Path) -> None:
    """Make a COG with averaged overviews from the closed strip raster `strips`."""
    with as_os_error():
        _to_cog(strips, target, "AVERAGE")


def _to_cog(source: Path, target: Path, resampling: str) -> None:
    rasterio.shutil.copy(
        source,
        target,
        driver="COG",
        COMPRESS="DEFLATE",
        BLOCKSIZE=BLOCK,
        RESAMPLING=resampling,
        OVERVIEWS="IGNORE_EXISTING",
        BIGTIFF="IF_SAFER",
        NUM_THREADS="ALL_CPUS",
    )


@contextmanager
def as_os_error() -> Iterator[None]:
    """GDAL's errors, which come through rasterio as several types, as `OSError` with one line."""
    try:
        with rasterio.Env():  # GDAL's own lines go to the log, not to the terminal
            yield
    except (RasterioError, CPLE_BaseError) as error:
        raise OSError(" ".join(str(error.__cause__ or error).split())[:200]) from error
