"""Bytes that `detect` reads of a remote COG when only a part of the scene is asked for.

The scene is a cloud-optimised GeoTIFF (JPEG, overviews) of 16384 × 16384 pixels that repeats the
bundled scene. It is served by a web server on this machine that counts what it sends. The stretch
of the model needs a look at the whole scene, which the overviews give.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import rasterio
import shapely
from common import SCENE, pixel_model, print_table
from memory import repeat
from rasterio.shutil import copy as gdal_copy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from range_server import serve

from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.config import DetectConfig

SIDE = 16384
ASKED = 1024  # pixels a side of the part that is asked for


def run(side: int = SIDE) -> None:
    """Print the table for a scene of `side` × `side` pixels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cog = _cog(folder, side)
        rows = [
            _measure(folder, cog, option, window)
            for option in ("bbox", "aoi")
            for window in (256, 512)
        ]
    head = ["option", "window", "sent kB", "requests", "file kB", "share of the file"]
    print_table(f"remote: {ASKED}² of {side}² pixels", head, rows)


def _cog(folder: Path, side: int) -> Path:
    source = folder / SCENE.name
    source.write_bytes(SCENE.read_bytes())
    mosaic = repeat(source, side, folder / "mosaic.vrt")
    cog = folder / "cog.tif"
    options = {"compress": "jpeg", "quality": 85, "overview_resampling": "average"}
    gdal_copy(mosaic, cog, driver="COG", num_threads="all_cpus", **options)
    return cog


def _measure(folder: Path, cog: Path, option: str, window: int) -> list[str]:
    with rasterio.open(cog) as raster:
        col, row = 0.6 * (raster.width - ASKED), 0.3 * (raster.height - ASKED)
        west, north = raster.transform * (col, row)
        east, south = raster.transform * (col + ASKED, row + ASKED)
        crs = raster.crs
    if option == "aoi":  # the circle in that square
        circle = shapely.box(west, south, east, north).centroid.buffer((east - west) / 2)
        aoi = folder / "aoi.gpkg"
        geopandas.GeoDataFrame(geometry=[circle], crs=crs).to_file(aoi)
        where: dict[str, Any] = {"aoi": str(aoi)}
    else:
        where = {"bbox": (west, south, east, north)}
    predict, info = pixel_model()
    info = replace(info, tile_size=window, radiometry="equalize")
    with serve(folder) as traffic:
        config = DetectConfig(
            scenes=(f"{traffic.url}/{cog.name}",),
            output=folder / f"slides_{option}_{window}.gpkg",
            mask=folder / f"mask_{option}_{window}.tif",
            **where,
        )
        detect_with(config, predict, info)
        sent, requests = traffic.sent, len(traffic.requests)
    with rasterio.open(folder / f"mask_{option}_{window}.tif") as raster:
        assert raster.shape == (ASKED, ASKED)
    size = cog.stat().st_size
    share = f"{sent / size:.2%}"
    return [
        f"--{option}",
        str(window),
        f"{sent / 1e3:.0f}",
        str(requests),
        f"{size / 1e3:.0f}",
        share,
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=SIDE, help="pixels a side of the scene")
    run(parser.parse_args().side)
