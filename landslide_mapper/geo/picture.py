"""Scenes as pictures to look at: decimated colours, and outlines on a panel of matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_reader import SceneReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def picture_shape(frame: Frame, largest: int) -> tuple[int, int]:
    """Rows and columns of a picture of `frame` with at most `largest` pixels a side."""
    shrink = max(1.0, max(frame.height, frame.width) / largest)
    return max(1, round(frame.height / shrink)), max(1, round(frame.width / shrink))


def read_colours(
    scene: Scene, frame: Frame, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A part of the scene as RGB uint8 (3, h, w), and which of its pixels are valid.

    8-bit scenes as they are, others stretched.

    Raises:
        LsmapFailure: it cannot be read.
    """
    with SceneReader(scene) as reader:
        data, valid = reader.read(frame.row, frame.col, frame.height, frame.width, shape)
    if data.dtype != np.uint8:
        data = fit(scene, "percentile").apply(data, valid)
    return as_rgb(data), valid


def as_rgb(bands: np.ndarray) -> np.ndarray:
    """Three bands (3, h, w) of as many as there are (B, h, w); the last one again if few."""
    return bands[[min(band, len(bands) - 1) for band in range(3)]]


def draw_outlines(panel: Axes, polygons: np.ndarray, colour: str, width: float) -> None:
    """Draw the outlines of polygons (n,), with a dark halo that sets them off from any ground."""
    from matplotlib.collections import LineCollection

    lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]
    panel.add_collection(LineCollection(lines, colors=["black"], linewidths=2 * width, alpha=0.6))
    panel.add_collection(LineCollection(lines, colors=[colour], linewidths=width))
