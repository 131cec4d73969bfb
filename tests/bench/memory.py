"""Memory of `detect` on scenes of growing size: each in a process of its own.

The scenes are VRTs that repeat one real scene, so that they need no space on disk. The bundled
network is loaded, but a predictor that looks at one pixel answers. What counts is the most
memory in use, and that less what imports, the network and a first small run had taken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from common import (
    WINDOW,
    ChildFailed,
    detect_pixels,
    measured,
    print_table,
    run_child,
    smooth_scene,
)

from landslide_mapper.checkpoint import bundled_model
from landslide_mapper.predictors import load_predictor

SOURCE, WARM = 4096, 1024  # pixels a side of the scene that is repeated, and of the first run's
SIDES, FULL = (4096, 16384), 65536
LIMIT = 3600  # seconds


def repeat(source: Path, side: int, path: Path) -> Path:
    """Write a VRT of `side` × `side` pixels at `path` that repeats the square scene `source`."""
    path.write_text("\n".join(_lines(source, side)), encoding="utf-8")
    return path


def _lines(source: Path, side: int) -> Iterator[str]:
    with rasterio.open(source) as raster:
        size, count = raster.width, raster.count
        transform, crs = raster.transform.to_gdal(), raster.crs.to_string()
    yield f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">'
    yield f"<SRS>{crs}</SRS><GeoTransform>{', '.join(map(str, transform))}</GeoTransform>"
    colours = ("Red", "Green", "Blue")
    for band in range(1, count + 1):
        yield f'<VRTRasterBand dataType="Byte" band="{band}">'
        yield f"<ColorInterp>{colours[band - 1]}</ColorInterp>"
        for row in range(0, side, size):
            for col in range(0, side, size):
                yield (
                    f'<SimpleSource><SourceFilename relativeToVRT="1">{source.name}'
                    f"</SourceFilename><SourceBand>{band}</SourceBand>"
                    f'<SourceProperties RasterXSize="{size}" RasterYSize="{size}" '
                    'DataType="Byte" BlockXSize="256" BlockYSize="256"/>'
                    f'<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/>'
                    f'<DstRect xOff="{col}" yOff="{row}" xSize="{size}" ySize="{size}"/>'
                    "</SimpleSource>"
                )
        yield "</VRTRasterBand>"
    yield "</VRTDataset>"


def _child(scene: str, warm: str, folder: str) -> None:
    def work(path: str) -> int:
        return detect_pixels(path, Path(folder) / "slides.gpkg")

    # The network is there and has answered once, as in a real run; pixels of the scene are then
    # left to a predictor that costs nothing, or the largest scene would take hours.
    predict, info = load_predictor(bundled_model(), "cpu")
    predict(np.ones((1, info.band_count, info.tile_size, info.tile_size), np.uint8))
    print(json.dumps(measured(lambda: work(scene), lambda: work(warm))))
    del predict


def _opening(path: Path) -> float:
    """Seconds that it takes to open a raster."""
    began = time.perf_counter()
    with rasterio.open(path):
        return time.perf_counter() - began


def run(full: bool = False) -> None:
    """Print the table."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, warm = smooth_scene(folder, SOURCE), smooth_scene(folder, WARM)
        for side in (*SIDES, *((FULL,) if full else ())):
            scene = repeat(source, side, folder / f"{side}.vrt")
            opening = _opening(scene)
            try:
                found = run_child(__file__, scene, warm, folder, limit=LIMIT)
            except ChildFailed as error:
                rows.append((f"{side} x {side}", str(error), *"------"))
                continue
            above = found["peak"] - found["base"]
            first = first or found["peak"]
            cells = (
                f"{opening:.2f}",
                f"{found['base']:.0f}",
                f"{above:.0f}",
                f"{found['peak']:.0f}",
                f"{found['peak'] / first - 1:+.0%}",
                f"{found['cpu'] / side**2 * 1e6:.4f}",
                str(found["result"]),
            )
            rows.append((f"{side} x {side}", *cells))
    print_table(
        f"memory of detect, windows of {WINDOW}, VRTs of a {SOURCE} x {SOURCE} scene",
        (
            "scene",
            "open s",
            "imports + model MB",
            "above MB",
            "peak MB",
            "growth",
            "CPU s/Mpx",
            "polygons",
        ),
        rows,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help=f"{FULL} x {FULL} pixels as well")
    run(parser.parse_args().full)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(*sys.argv[2:])
    else:
        main()
