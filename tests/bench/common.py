"""Timing and tables. Only ratios within one run mean anything; seconds depend on the machine."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas
import numpy as np
import rasterio
from affine import Affine

if TYPE_CHECKING:
    from landslide_mapper.checkpoint import ModelInfo

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples" / "sichuan_015.tif"
LABELS = ROOT / "examples" / "sichuan_015_labels.gpkg"

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # what libraries read of the environment

WINDOW = 512  # of the model that looks at single pixels
LANDSLIDE = 170  # value of the first band from which that model sees a landslide
THRESHOLD = (LANDSLIDE - 0.5) / 255  # between two values: no rounding decides
OVERLAP = WINDOW // 4
BOX = 9  # pixels of the box that smooths a scene, applied twice


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


def smooth_scene(folder: Path, side: int) -> Path:
    """A GeoTIFF of `side` × `side` pixels: the bundled scene, smoothed, repeated and mirrored.

    Where its first band reaches `LANDSLIDE` there are about 40 blobs per 1024 × 1024 pixels, so
    that a predictor which looks at single pixels gives as many polygons as a network would.
    """
    with rasterio.open(SCENE) as raster:
        image, transform, crs = raster.read(), raster.transform, raster.crs
    image = np.stack([_boxed(_boxed(band)) for band in image]).round().astype(np.uint8)
    step = image.shape[1]
    repeats = -(-side // step)
    plain = np.tile(np.concatenate([image, image[:, :, ::-1]], axis=2), (1, 1, -(-repeats // 2)))
    path = folder / f"smooth_{side}.tif"
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    layout |= {"compress": "deflate", "predictor": 2}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8",
        crs=crs, transform=transform, **layout,
    ) as raster:  # fmt: skip
        for number in range(repeats):
            rows = min(step, side - number * step)
            part = plain[:, ::-1] if number % 2 else plain
            window = rasterio.windows.Window(0, number * step, side, rows)
            raster.write(part[:, :rows, :side], window=window)
    return path


def _boxed(band: np.ndarray) -> np.ndarray:
    """Means of boxes of `BOX` × `BOX` pixels, (h, w)."""
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (BOX // 2 + 1, BOX // 2)
        sums = np.pad(band.astype(np.float64), padding, mode="edge").cumsum(axis)
        size = band.shape[axis]
        band = (sums.take(range(BOX, BOX + size), axis) - sums.take(range(size), axis)) / BOX
    return band


def pixel_model() -> tuple[Callable[[np.ndarray], np.ndarray], ModelInfo]:
    """A predictor that costs next to nothing, and its description: the first band / 255."""
    from landslide_mapper.checkpoint import ModelInfo
    from landslide_mapper.config import ModelConfig

    info = ModelInfo(
        name="pixel",
        model=ModelConfig(),
        bands=(1, 2, 3),
        radiometry="none",
        tile_size=WINDOW,
        gsd=0.5,
        threshold=THRESHOLD,
    )
    return lambda windows: windows[:, 0] / np.float32(255), info


def detect_pixels(scene: Path | str, output: Path) -> int:
    """Number of polygons that `detect` finds with `pixel_model` and writes to `output`."""
    from landslide_mapper.detect import DetectConfig, detect_with

    predict, info = pixel_model()
    config = DetectConfig(scenes=(str(scene),), output=output, overlap=OVERLAP, overwrite=True)
    return detect_with(config, predict, info).landslides


class ChildFailed(Exception):
    """A child process ended without a result; its text says why."""


def run_child(
    script: Path | str, *arguments: object, python: Path | str = sys.executable, limit: int = 900
) -> dict[str, Any]:
    """Run ``python script child ARGUMENT...`` on one thread; the JSON of its last line.

    Raises `ChildFailed` when it takes longer than `limit` seconds or dies.
    """
    command = [str(python), str(script), "child", *map(str, arguments)]
    environment = os.environ | ONE_THREAD
    try:
        done = subprocess.run(
            command, env=environment, timeout=limit, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"not ready after {limit} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ChildFailed(lines[-1] if lines else f"died of signal {-done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(work: Callable[[], object], warm_up: Callable[[], object]) -> dict[str, Any]:
    """CPU seconds (user and system, children too), wall seconds and memory in MB of `work`.

    `warm_up` runs before, so that imports and what libraries set up once do not count. `base`
    is the memory in use after it, `peak` the most since the process began.
    """
    warm_up()
    base, before, began = _status("VmRSS"), _cpu(), time.perf_counter()
    result = work()
    wall, cpu = time.perf_counter() - began, _cpu() - before
    return {"result": result, "cpu": cpu, "wall": wall, "base": base, "peak": _status("VmHWM")}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _status(field: str) -> float:
    """A field of /proc/self/status that is in kB, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def available_memory() -> int:
    """Bytes of memory that are free for use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next(line for line in lines if line.startswith("MemAvailable:"))
    return int(found.split()[1]) * 1024
