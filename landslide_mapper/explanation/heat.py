"""The files of ``lsmap explain``: heat as georeferenced rasters, pictures and figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import shapely
from rasterio.enums import Resampling

from landslide_mapper.geo import rasters
from landslide_mapper.geo.aoi import Aoi
from landslide_mapper.geo.blend import Strip
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.picture import draw_outlines, picture_shape, read_colours
from landslide_mapper.geo.scene import Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGE = 8.0  # pixels to both sides of an outline: one feature point, the least that maps resolve
CUT = 0.5  # pixels; an outline that is as near to the frame is where the frame cuts
ZONES = ("inside", "edge", "interior", "outside")  # the last three cover all, once
LARGEST, SMALLEST = 2048, 768  # pixels of a picture's longer side
PANEL = 4.0  # inches, and 150 dots each
OUTLINE = "#00e5ff"  # told apart from the heat's black, purple, orange and yellow


@dataclass(frozen=True)
class Zones:
    """Landslides that are known, in pixels of the scene.

    Attributes:
        frame: where the labels hold.
        outlines: polygons.
        ignored: bool of the frame's size, where the labels say nothing; None: nowhere.
    """

    frame: Frame
    outlines: np.ndarray
    ignored: np.ndarray | None = None

    def split(self, row: int, col: int, valid: np.ndarray) -> dict[str, np.ndarray]:
        """Which pixels of a window are in which of `ZONES`, bool of the shape of `valid`.

        The edge is what is at most `EDGE` pixels from an outline, on both sides; where the frame
        cuts a landslide there is none. The interior is the inside without the edge, the outside
        what is neither inside nor edge.
        """
        shape = valid.shape
        counted = valid.copy()
        if self.ignored is not None:
            top, left = row - self.frame.row, col - self.frame.col
            counted &= ~self.ignored[top : top + shape[0], left : left + shape[1]]
        inside = self._inside.inside(row, col, *shape)
        edge = self._edge.inside(row, col, *shape)
        found = (inside, edge, inside & ~edge, ~inside & ~edge)
        return {name: zone & counted for name, zone in zip(ZONES, found, strict=True)}

    @cached_property
    def _inside(self) -> Aoi:
        return Aoi(self.frame, self.outlines)

    @cached_property
    def _edge(self) -> Aoi:
        frame = self.frame
        uncut = shapely.box(frame.col + CUT, frame.row + CUT, frame.right - CUT, frame.bottom - CUT)
        lines = shapely.intersection(shapely.boundary(self.outlines), uncut)
        return Aoi(frame, shapely.buffer(lines[~shapely.is_empty(lines)], EDGE))


def _on_disk(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """An array in a new file that has all its space: on a full disk a hole would end the process.

    Raises:
        OSError: the disk is full.
    """
    made = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on every system
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return made


class HeatStore:
    """Maps of a frame, strip by strip on disk, with what is known of each once all are there.

    A context: after it the files are closed and can be removed, which Windows needs.
    """

    def __init__(
        self, folder: Path, frame: Frame, names: Sequence[str], zones: Zones | None
    ) -> None:
        self.names = tuple(names)
        self._frame = frame
        self._zones = zones
        shape = (len(names), frame.height, frame.width)
        self._values = _on_disk(folder / "heat.npy", np.float32, shape)
        self._valid = _on_disk(folder / "seen.npy", bool, shape[1:])
        self._maximum = np.zeros(len(names))
        self._sums = np.zeros((len(names), len(ZONES)))
        self._pixels = np.zeros(len(ZONES))

    def __enter__(self) -> HeatStore:
        return self

    def __exit__(self, *_: object) -> None:
        del self._values, self._valid  # the only references; without them the files are closed

    def write(self, strip: Strip, left: int) -> None:
        """Keep the positive part of a strip of all maps, in logits.

        The strip begins at column `left` of the scene; what is off the frame is left out.
        """
        frame = self._frame
        top = max(strip.row, frame.row)
        bottom = min(strip.row + len(strip.valid), frame.bottom)
        if top >= bottom:
            return
        source = (
            ...,
            slice(top - strip.row, bottom - strip.row),
            slice(frame.col - left, frame.right - left),
        )
        rows = slice(top - frame.row, bottom - frame.row)
        valid = strip.valid[source]
        heat = np.maximum(strip.values[source], 0)
        self._values[:, rows], self._valid[rows] = heat, valid
        self._maximum = np.maximum(self._maximum, heat.max(axis=(1, 2), where=valid, initial=0))
        if self._zones is not None:
            zones = self._zones.split(top, frame.col, valid).values()
            for index, zone in enumerate(zones):
                self._sums[:, index] += heat[:, zone].sum(axis=1, dtype=np.float64)
                self._pixels[index] += zone.sum()

    def figures(self) -> dict[str, dict[str, float | None]]:
        """Per map its maximum in logits and, with labels, the mean heat of each zone.

        Means are shares of the map's own maximum; ``heat_inside`` is the share of all heat that
        lies inside the labels. None where there is no such pixel or no heat.
        """
        found: dict[str, dict[str, float | None]] = {}
        for name, maximum, sums in zip(self.names, self._maximum, self._sums, strict=True):
            one: dict[str, float | None] = {"maximum_logit": float(maximum)}
            if self._zones is not None:
                for zone, total, pixels in zip(ZONES, sums, self._pixels, strict=True):
                    known = pixels > 0 and maximum > 0
                    one[f"mean_{zone}"] = float(total / pixels / maximum) if known else None
                inside, *disjoint = sums.tolist()
                everything = sum(disjoint)
                one["heat_inside"] = inside / everything if everything > 0 else None
            found[name] = one
        return found

    def write_raster(
        self, index: int, scene: Scene, strips: Path, target: Path, tags: dict[str, str]
    ) -> None:
        """One map as a COG: percent of its own maximum, 255 where nothing was seen.

        `strips` is where an intermediate raster may be made, `tags` is its metadata. Raises
        `OSError`.
        """
        frame = self._frame
        scale = self._maximum[index] or 1.0
        with rasters.StripRaster(strips, scene, frame) as raster:
            for top in range(0, frame.height, rasters.BLOCK):
                rows = slice(top, top + rasters.BLOCK)
                share = np.minimum(self._values[index, rows] / np.float32(scale), np.float32(1))
                percent = rasters.percent(share, self._valid[rows])
                raster.write(frame.row + top, frame.col, percent)
        rasters.finish_probability(strips, target, tags)
        strips.unlink()


@dataclass(frozen=True)
class Picture:
    """What pictures show: a scene's pixels as RGBA (h, w, 4) in 0..1, and outlines in them."""

    colours: np.ndarray
    outlines: np.ndarray | None

    @classmethod
    def of(cls, scene: Scene, frame: Frame, outlines: np.ndarray | None) -> Picture:
        """Read `frame` of `scene`, at most `LARGEST` pixels a side; `outlines` are the scene's."""
        shape = picture_shape(frame, LARGEST)
        rgb, valid = read_colours(scene, frame, shape)
        colours = np.moveaxis(np.concatenate([rgb / 255, valid[None]]), 0, -1)
        if outlines is not None:
            step = np.array([shape[1] / frame.width, shape[0] / frame.height])
            origin = np.array([frame.col, frame.row])
            outlines = np.asarray(
                shapely.transform(outlines, lambda points: (points - origin) * step)
            )
        return cls(colours, outlines)

    def heated(self, cog: Path) -> Picture:
        """The same under the heat of a raster of `HeatStore.write_raster`. Raises `OSError`."""
        from matplotlib import colormaps

        shape = self.colours.shape[:2]
        with rasters.as_os_error(), rasterio.open(cog) as raster:
            percent = raster.read(1, out_shape=shape, masked=True, resampling=Resampling.average)
        heat = np.asarray(percent.filled(0), dtype=np.float64)[..., None] / 100
        # A dim image under an even cover: a bright pixel must not pass for a hot one.
        grey = 0.7 * self.colours[..., :3].mean(axis=-1, keepdims=True)
        cover = 0.7 * np.minimum(1, heat / 0.1)
        shown = (1 - cover) * grey + cover * colormaps["inferno"](heat[..., 0])[..., :3]
        colours = np.concatenate([shown, self.colours[..., 3:]], axis=-1)
        return Picture(colours, self.outlines)

    def save(self, path: Path) -> None:
        """Write a PNG, enlarged if it is small."""
        height, width = self.colours.shape[:2]
        side = max(height, width)
        enlarged = max(1, -(-SMALLEST // side))
        figure = _figure((width * enlarged / 100, height * enlarged / 100), 100)
        panel = figure.add_axes((0, 0, 1, 1))
        self.draw(panel)
        _save(figure, path)

    def draw(self, panel: Axes) -> None:
        """Show it on a panel without axes."""
        height, width = self.colours.shape[:2]
        panel.set_axis_off()
        panel.imshow(self.colours, interpolation="nearest", extent=(0, width, height, 0))
        if self.outlines is not None:
            draw_outlines(panel, self.outlines, OUTLINE, 1.5)
        panel.set(xlim=(0, width), ylim=(height, 0))


def save_overview(titled: Sequence[tuple[str, Picture]], caption: str, path: Path) -> None:
    """Pictures of one size side by side, each with its title, as a PNG."""
    height, width = titled[0][1].colours.shape[:2]
    panel_height = PANEL * min(3.0, max(1 / 3, height / width))
    figure = _figure((PANEL * len(titled), panel_height + 0.6), 150)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(titled), squeeze=False).ravel()
    for panel, (title, picture) in zip(panels, titled, strict=True):
        picture.draw(panel)
        panel.set_title(title, fontsize=9)
    figure.supxlabel(caption, fontsize=8)
    _save(figure, path)


def _figure(size: tuple[float, float], dpi: int) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    return Figure(figsize=size, dpi=dpi, facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    options: dict[str, Any] = {"format": "png", "metadata": {"Software": None}}
    if len(figure.axes) == 1:  # one picture: transparent where nothing was seen
        options["transparent"] = True
    figure.savefig(path, **options)
