"""A picture of the scene with the landslides drawn on it, to look at without a GIS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.rasters import as_os_error
from landslide_mapper.geo.scene import Scene, SceneReader
from landslide_mapper.geo.style import LANDSLIDE

MAX_SIDE = 2048  # pixels


class Overlay:
    """Collects outlines (pixel coordinates of the scene) and draws them over the scene."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        shrink = max(1.0, max(scene.height, scene.width) / MAX_SIDE)
        self._shape = (max(1, round(scene.height / shrink)), max(1, round(scene.width / shrink)))
        self._lines = np.zeros(self._shape, dtype=np.uint8)

    def draw(self, outlines: np.ndarray) -> None:
        """Add the outlines of polygons."""
        if len(outlines) == 0:
            return
        rows, cols = self._shape
        place = Affine.scale(self._scene.width / cols, self._scene.height / rows)
        lines = ((line, 1) for line in shapely.boundary(outlines))
        rasterize(lines, out=self._lines, transform=place, all_touched=True)

    def save(self, path: Path) -> None:
        """Write the PNG; pixels that were not seen are transparent. Raises `OSError`."""
        image, valid = self._picture()
        line = _thicker(self._lines > 0)
        halo = _thicker(line) & ~line
        for band, colour in zip(image, LANDSLIDE, strict=True):
            band[halo] = band[halo] // 3
            band[line] = colour
        alpha = np.where(valid | line, 255, 0).astype(np.uint8)
        rows, cols = self._shape
        profile = {"driver": "PNG", "width": cols, "height": rows, "count": 4, "dtype": "uint8"}
        with as_os_error(), rasterio.open(path, "w", **profile) as picture:
            picture.write(np.concatenate([image, alpha[None]]))

    def _picture(self) -> tuple[np.ndarray, np.ndarray]:
        """The scene as RGB uint8 (3, h, w): as it is if it is 8 bit, else stretched."""
        scene = self._scene
        with SceneReader(scene) as reader:
            data, valid = reader.read(0, 0, scene.height, scene.width, self._shape)
        if data.dtype != np.uint8:
            data = fit(scene, "percentile").apply(data, valid)
        return data[[min(band, len(data) - 1) for band in range(3)]], valid


def _thicker(lines: np.ndarray) -> np.ndarray:
    """A bool picture whose true pixels have spread by one pixel to all sides."""
    padded = np.pad(lines, 1)
    rows, cols = lines.shape
    shifts = [padded[r : r + rows, c : c + cols] for r in range(3) for c in range(3)]
    return np.logical_or.reduce(shifts)
