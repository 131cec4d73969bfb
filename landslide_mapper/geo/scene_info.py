"""What a scene is: its size, bands, place on the map and pixel size in metres."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import affine
import numpy as np
import pyproj
import shapely

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import remote
from landslide_mapper.geo.crs import geodetic, unit_metres

RASTER_SUFFIXES = (
    ".tif", ".tiff", ".vrt", ".jp2", ".img", ".ecw", ".sid", ".ntf", ".png", ".jpg", ".jpeg",
)  # fmt: skip

MOST_ENLARGED = 1024  # times; more is a slip of the keyboard, and would never end
SAME_SIZE = 0.01  # pixel sizes that differ by less are the same; neat factors are preferred
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Source:
    """A raster as it was asked for: `path` for people, GDAL's name where that is another."""

    path: str
    opened: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class Scene:
    """What one raster is: path, size in pixels, bands to read, CRS and pixel size in metres.

    A scene that is worked on at another pixel size than its file's (`at_pixel_size`) describes
    the working pixels, has `step` pixels of the file in one of them (x, y), and the scene as it
    is in the file as `native`.
    """

    path: str
    width: int
    height: int
    count: int
    dtype: str
    crs: pyproj.CRS | None
    transform: affine.Affine
    bands: tuple[int, ...]
    gsd: tuple[float, float] | None
    colorinterp: tuple[str, ...]  # of every band, as GDAL names it
    opened: str | None = None
    title: str | None = None
    native: Scene | None = None
    step: tuple[float, float] = (1.0, 1.0)
    colours: tuple[str, ...] = ()  # as `colorinterp`, or what the band's description says

    @property
    def name(self) -> str:
        """File name without folder, or what the catalogue calls it, as shown to people."""
        return self.title or remote.shown_name(self.path)

    @property
    def stem(self) -> str:
        """The name without the suffix of a raster, as a name for files.

        That of a STAC item may have dots of its own, and slashes, which must lead nowhere.
        """
        has_suffix = self.name.lower().endswith(RASTER_SUFFIXES)
        stem = PurePath(self.name).stem if has_suffix else self.name
        return re.sub(r"[/\\\0]|^\.{1,2}$", "_", stem)

    @property
    def gdal(self) -> str:
        """What GDAL is asked to open: a path, a /vsi… name or the text of a VRT."""
        return self.opened or remote.gdal_name(self.path)

    def anywhere(self) -> Scene:
        """The same, to be opened by processes that work in other folders."""
        if not remote.is_local(self.gdal):
            return self
        opened = str(Path(self.gdal).absolute())
        return replace(self, opened=opened, native=self.native and self.native.anywhere())

    @property
    def placed(self) -> bool:
        """Whether its coordinates say where it lies; those of a plain image do not."""
        return self.crs is not None or not is_plain(self.transform)

    @property
    def rgb(self) -> tuple[int, ...] | None:
        """Numbers of the red, the green and the blue band; None unless the file tells all three."""
        if not set(COLOURS) <= set(self.colours):
            return None
        return tuple(self.colours.index(colour) + 1 for colour in COLOURS)

    @property
    def chosen_colours(self) -> list[str]:
        """What `colours` has of the bands to read."""
        return [self.colours[band - 1] for band in self.bands]

    @property
    def pixel_side(self) -> float | None:
        """Side in metres of the square that has a pixel's area; None where it is not known."""
        return None if self.gsd is None else math.sqrt(self.gsd[0] * self.gsd[1])

    @property
    def elongation(self) -> float:
        """A pixel's long side over its short one; 1 where they are not known."""
        return 1.0 if self.gsd is None else max(self.gsd) / min(self.gsd)

    def corners(
        self, row: float, col: float, height: float, width: float
    ) -> list[tuple[float, float]]:
        """Map coordinates of a window's four corners, in the scene's CRS, as a ring."""
        pixels = ((col, row), (col + width, row), (col + width, row + height), (col, row + height))
        return [self.transform * pixel for pixel in pixels]

    @property
    def outline(self) -> shapely.Polygon:
        """All of it, in its CRS."""
        return shapely.Polygon(self.corners(0, 0, self.height, self.width))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north end, in its CRS, also where rows go north or are turned."""
        xs, ys = zip(*self.corners(0, 0, self.height, self.width), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def pixel_size(self, row: float, col: float) -> tuple[float, float] | None:
        """Geodesic size in metres (x, y) of the pixel at `row`, `col`; None without a CRS."""
        return pixel_size(self.crs, self.transform, row, col)


def at_pixel_size(scene: Scene, metres: float) -> Scene:
    """The scene with pixels of `metres` a side, read on the fly; same CRS and upper left corner.

    Pixels at the far edges belong to it when at least half of them is in the file. Factors near
    a whole number, or one over it, are taken as that (`SAME_SIZE`); the file's own pixels stay
    when theirs is the size. Raises `LsmapError` when the scene's pixel size is not known, or
    more than `MOST_ENLARGED` times as large.
    """
    native = scene.native or scene
    if native.gsd is None:
        raise LsmapError(
            f"{scene.path}: has no pixel size in metres, so it cannot be read at {metres:g} m; "
            "assign a CRS (gdal_edit.py -a_srs) or leave out --gsd"
        )
    if metres * MOST_ENLARGED < min(native.gsd):
        raise LsmapError(
            f"{scene.path}: pixels of {metres:g} m are less than 1/{MOST_ENLARGED} of its own "
            f"({min(native.gsd):.3g} m); give a larger --gsd"
        )
    x, y = (_neat(metres / size) for size in native.gsd)
    if x == y == 1:
        return native
    return replace(
        native,
        width=max(1, math.floor(native.width / x + 0.5)),
        height=max(1, math.floor(native.height / y + 0.5)),
        transform=native.transform * affine.Affine.scale(x, y),
        gsd=(native.gsd[0] * x, native.gsd[1] * y),
        native=native,
        step=(x, y),
    )


def unnamed(scene: Scene, taken: Sequence[int]) -> str | None:
    """That nothing says which bands of a scene without `rgb` are the colours, if it has others too.

    Files of four bands are blue, green, red, near infrared as often as red, green, blue and that.
    """
    known = sum(kind != "alpha" for kind in scene.colorinterp)
    if known <= len(taken):
        return None
    return (
        f"nothing says which of its {known} bands are red, green and blue; "
        f"{band_list(taken)} are taken (others: --bands)"
    )


def _neat(factor: float) -> float:
    whole = float(round(factor)) if factor >= 1 else 1 / round(1 / factor)
    return whole if abs(factor / whole - 1) < SAME_SIZE else factor


def is_plain(transform: affine.Affine) -> bool:
    """Whether it only counts pixels, as that of a picture does, down or (for QGIS) up."""
    return transform in (affine.Affine.identity(), affine.Affine.scale(1, -1))


def pixel_size(
    crs: pyproj.CRS | None, transform: affine.Affine, row: float, col: float
) -> tuple[float, float] | None:
    """Geodesic size in metres (x, y) of one pixel; None where it cannot be known."""
    if crs is None:
        return None
    known = geodetic(crs)
    if known is None:  # a local engineering grid: its unit is all there is to know
        unit = unit_metres(crs) or 1.0
        return (
            math.hypot(transform.a, transform.d) * unit,
            math.hypot(transform.b, transform.e) * unit,
        )
    ends = [(col - 0.5, row), (col + 0.5, row), (col, row - 0.5), (col, row + 0.5)]
    xs, ys = zip(*(transform * end for end in ends), strict=True)
    lon, lat = np.asarray(known.there.transform(xs, ys)) * known.degrees
    if not np.all(np.isfinite([*lon, *lat])):
        return None
    starts, stops = ([lon[0], lon[2]], [lat[0], lat[2]]), ([lon[1], lon[3]], [lat[1], lat[3]])
    _, _, metres = known.geod.inv(*starts, *stops)
    return float(metres[0]), float(metres[1])


def band_list(bands: Sequence[int]) -> str:
    """Bands as options take them."""
    return ",".join(str(band) for band in bands)
