"""Stand-ins for scenes and models, small enough to be checked by eye."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from affine import Affine
from rasterio.features import rasterize

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.config import ModelConfig

UTM = Affine(0.5, 0.0, 300000.0, 0.0, -0.5, 3500000.0)


def model_info(**changes: Any) -> ModelInfo:
    """A model without a stretch on one window of 64 pixels, threshold 0.5."""
    count = changes.pop("band_count", 3)
    values: dict[str, Any] = {
        "name": "fake",
        "model": ModelConfig(band_count=count),
        "bands": tuple(range(1, count + 1)),
        "radiometry": "none",
        "tile_size": 64,
        "gsd": 0.5,
        "threshold": 0.5,
    }
    return ModelInfo(**(values | changes))


def brightness(windows: np.ndarray) -> np.ndarray:
    """A predictor that looks at one pixel: the first band, 1..255, as probability."""
    return windows[:, 0].astype(np.float32) / 255


class Ahead:
    """A predictor that takes all batches before it gives the first answer."""

    batch_size = 3

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        return brightness(windows)

    def stream(self, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        yield from [self(batch) for batch in batches]


def write_scene(
    path: Path,
    band: np.ndarray,
    crs: str | None = "EPSG:32648",
    transform: Affine = UTM,
    count: int = 3,
    **profile: Any,
) -> str:
    """A GeoTIFF whose bands all are `band` (h, w); returns its path as text."""
    height, width = band.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=count,
        dtype=band.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as raster:
        raster.write(np.stack([band] * count))
    return str(path)


def blobs(seed: int, shape: tuple[int, int], share: float = 0.3, smooth: int = 2) -> np.ndarray:
    """A bool mask with blobs, holes, pinch points and specks."""
    noise = np.random.default_rng(seed).random(shape)
    for _ in range(smooth):
        padded = np.pad(noise, 1, mode="edge")
        shifts = [padded[r : r + shape[0], c : c + shape[1]] for r in range(3) for c in range(3)]
        noise = np.mean(shifts, axis=0)
    mask: np.ndarray = noise >= np.quantile(noise, 1 - share)
    return mask


def grey(mask: np.ndarray) -> np.ndarray:
    """Landslides bright (200 / 255), the rest dark."""
    return np.where(mask, 200, 50).astype(np.uint8)


def detect_brightness(
    scene: str | list[str], output: Path, info: ModelInfo | None = None, **options: Any
) -> Any:
    """Run `detect` with the predictor `brightness`."""
    from landslide_mapper.detect import detect_with
    from landslide_mapper.mapping.config import DetectConfig

    scenes = (scene,) if isinstance(scene, str) else tuple(scene)
    config = DetectConfig(scenes, output, **options)
    return detect_with(config, brightness, info or model_info())


def read(path: Path, **options: Any) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    if path.suffix == ".gpkg":
        options.setdefault("layer", "landslides")
    return geopandas.read_file(path, **options)


def burnt(layer: geopandas.GeoDataFrame, like: Path) -> np.ndarray:
    with rasterio.open(like) as raster:
        if len(layer) == 0:
            return np.zeros(raster.shape, bool)
        shapes = layer.to_crs(raster.crs).geometry if raster.crs else layer.geometry
        return rasterize(shapes, out_shape=raster.shape, transform=raster.transform).astype(bool)


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)
