"""Timing and tables. Only ratios within one run mean anything; seconds depend on the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from affine import Affine

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples" / "sichuan_015.tif"
LABELS = ROOT / "examples" / "sichuan_015_labels.gpkg"


def fastest(work: Callable[[], object], times: int) -> float:
    """Least wall time in seconds of `work` over `times` calls."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A title and aligned columns."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells), flush=True)


def mosaic(folder: Path, repeats: int) -> tuple[Path, Path]:
    """The bundled scene and its labels laid out `repeats` × `repeats` times, every other mirrored.

    Returns the GeoTIFF and the GeoPackage (in the scene's CRS).
    """
    with rasterio.open(SCENE) as raster:
        image, transform, crs = raster.read(), raster.transform, raster.crs
    side = image.shape[1]
    polygons = geopandas.read_file(LABELS).to_crs(crs).geometry
    polygons = polygons.affine_transform((~transform).to_shapely())
    large = np.empty((3, side * repeats, side * repeats), np.uint8)
    parts = []
    for row in range(repeats):
        for col in range(repeats):
            mirrored = (row + col) % 2 == 1
            part = image[:, :, ::-1] if mirrored else image
            large[:, row * side : (row + 1) * side, col * side : (col + 1) * side] = part
            place = Affine.translation(col * side, row * side)
            if mirrored:
                place = place * Affine(-1, 0, side, 0, 1, 0)
            parts.append(polygons.affine_transform((transform * place).to_shapely()))
    labels = geopandas.GeoDataFrame(geometry=np.concatenate(parts), crs=crs)
    labels.to_file(folder / "labels.gpkg", layer="landslides")
    profile = {
        "driver": "GTiff",
        "count": 3,
        "height": large.shape[1],
        "width": large.shape[2],
        "dtype": "uint8",
        "crs": crs,
        "transform": transform,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "jpeg",
        "photometric": "ycbcr",
    }
    with rasterio.open(folder / "scene.tif", "w", **profile) as raster:
        raster.write(large)
    return folder / "scene.tif", folder / "labels.gpkg"
