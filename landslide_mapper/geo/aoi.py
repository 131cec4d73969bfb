"""The part of a scene that is asked for: a rectangle (`--bbox`), polygons (`--aoi`), or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyproj
import shapely
from affine import Affine
from pyproj.exceptions import CRSError
from rasterio.features import rasterize

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.crs import crs_name, repaired, same_crs
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.labels import LabelCounts, Labels, read_aoi
from landslide_mapper.geo.measure import to_pixels
from landslide_mapper.geo.placing import areas, ground_near
from landslide_mapper.geo.scene import Scene

# Vertices lie on this part of a pixel, so that shifting them to a window loses nothing and a
# pixel is inside or not whatever the window it is seen through.
VERTEX_STEPS = 256
WIDEST = 1e12  # no map is wider, in whatever unit

Bounds = tuple[float, float, float, float]  # west, south, east, north


@dataclass(frozen=True)
class AskedArea:
    """What was asked for, on the map. Bounds and polygons are each in a CRS of their own.

    Attributes:
        bounds: a rectangle, None for none; in `bounds_crs`, None: each scene's own.
        polygons: None for none.
    """

    bounds: Bounds | None
    bounds_crs: pyproj.CRS | None
    polygons: Labels | None

    def extent(self) -> str:
        """The asked extents in words."""
        said = []
        if self.bounds:
            known = crs_name(self.bounds_crs) if self.bounds_crs else "the same CRS, see --bbox-crs"
            where = f" ({known})"
            said.append(f"--bbox spans {bounds_text(self.bounds)}{where}")
        if self.polygons:
            box = shapely.total_bounds(self.polygons.polygons)
            where = f" ({crs_name(self.polygons.crs)})" if self.polygons.crs else ""
            said.append(f"{self.polygons.path} spans {bounds_text(tuple(box))}{where}")
        return " and ".join(said)


@dataclass(frozen=True, eq=False)
class Aoi:
    """The asked part of one scene, in its pixels. A pixel belongs to it when its centre does.

    Attributes:
        frame: the rectangle of whole pixels around it, inside the scene.
        polygons: in pixel coordinates (column, row); None: all of `frame`.
    """

    frame: Frame
    polygons: np.ndarray | None = None

    def inside(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """Which pixels of a window (may lie partly or wholly outside the scene) belong, bool."""
        found = np.zeros((height, width), dtype=bool)
        part = self.frame.common(Frame(row, col, height, width))
        if part:
            rows = slice(part.row - row, part.bottom - row)
            found[rows, part.col - col : part.right - col] = self._inside(part)
        return found

    def _inside(self, part: Frame) -> np.ndarray | bool:
        if self.polygons is None or self._tree is None:
            return True
        box = shapely.box(part.col, part.row, part.right, part.bottom)
        near = self._tree.query(box, predicate="intersects")
        if len(near) == 0:
            return False
        if len(self._tree.query(box, predicate="within")):
            return True
        burnt = rasterize(
            [(polygon, 1) for polygon in self.polygons[near]],
            out_shape=(part.height, part.width),
            transform=Affine.translation(part.col, part.row),
            dtype="uint8",
        )
        return burnt > 0

    @cached_property
    def _tree(self) -> shapely.STRtree | None:
        return None if self.polygons is None else shapely.STRtree(self.polygons)


def bounds_text(bounds: Bounds) -> str:
    """Bounds in words."""
    west, south, east, north = (f"{value:.7g}" for value in bounds)
    return f"x {west} to {east}, y {south} to {north}"


def read_area(bounds: Bounds | None, bounds_crs: str | None, aoi: str | None) -> AskedArea | None:
    """What `--bbox`, `--bbox-crs` and `--aoi` ask for; None when they were not given.

    Raises `LsmapError` for bounds that are none, an unknown CRS and a file without polygons.
    """
    if bounds is None and bounds_crs is not None:
        raise LsmapError(f"--bbox-crs {bounds_crs}: there is no --bbox that it could belong to")
    if bounds is None and aoi is None:
        return None
    crs = _crs(bounds_crs)
    if bounds is not None:
        bounds = west, south, east, north = _across_180(bounds, crs)
        on_a_map = all(abs(value) < WIDEST for value in bounds)  # nan is not
        if not (on_a_map and west < east and south < north):
            raise LsmapError(
                f"--bbox {','.join(f'{value:g}' for value in bounds)}: give west,south,east,north "
                "with west below east and south below north"
            )
    return AskedArea(bounds, crs, read_aoi(aoi) if aoi else None)


def _across_180(bounds: Bounds, crs: pyproj.CRS | None) -> Bounds:
    """In degrees, a west side that is east of the other means the way across 180° (RFC 7946).

    Not if that is more than halfway around: then the two were mixed up.
    """
    west, south, east, north = bounds
    degrees = crs is not None and crs.is_geographic and crs.axis_info[0].unit_name == "degree"
    across = east < west <= 180 and east + 360 - west < 180
    return (west, south, east + 360, north) if degrees and across else bounds


def _crs(given: str | None) -> pyproj.CRS | None:
    try:
        return pyproj.CRS.from_user_input(given) if given else None
    except CRSError as error:
        raise LsmapError(
            f"--bbox-crs: {given!r} is not a coordinate reference system; try EPSG:4326"
        ) from error


def nothing_asked(area: AskedArea, scenes: Sequence[Scene]) -> str:
    """One line on scenes of which `area` asks for no pixel."""
    first = scenes[0]
    more = f" (nor {len(scenes) - 1} more)" if len(scenes) > 1 else ""
    return (
        f"{first.path}: no pixel of it{more} lies in what was asked for: it spans "
        f"{bounds_text(first.bounds)} "
        f"({crs_name(first.crs)}), {area.extent()}"
    )


def place(area: AskedArea, scene: Scene) -> Aoi | None:
    """The part of `scene` that `area` asks for; None when no pixel of it is.

    Raises `LsmapError` when there is no way from a CRS of the area to the scene's.
    """
    everything = Frame.whole(scene.height, scene.width)
    frame: Frame | None = everything
    polygons = None
    if area.polygons:
        polygons = _in_pixels(area.polygons, scene)
    if area.bounds:
        box = _bounds_in_pixels(area.bounds, area.bounds_crs or scene.crs, scene)
        straight = same_crs(area.bounds_crs or scene.crs, scene.crs)
        if straight and _is_upright(scene):
            frame = _around(box, everything)
        else:
            whole = shapely.union_all(box)
            polygons = box if polygons is None else shapely.intersection(polygons, whole)
    if polygons is not None and frame is not None:
        polygons = _on_grid(polygons)
        frame = _around(polygons, frame)
    if polygons is not None and frame is not None:
        inner = shapely.box(frame.col, frame.row, frame.right, frame.bottom)
        if not shapely.intersects(polygons, inner).any():  # it lies in a hole
            return None
    return None if frame is None else Aoi(frame, polygons)


def _is_upright(scene: Scene) -> bool:
    """Whether rows and columns run along the axes of the map, to a part of a pixel.

    Affine's own answer is yes for any turn where pixels are less than 1e-5 units, as in degrees.
    """
    a, b, _, d, e, _ = map(abs, tuple(scene.transform)[:6])
    small = max(a, b, d, e) / VERTEX_STEPS / max(scene.height, scene.width)
    return max(b, d) < small or max(a, e) < small


def _bounds_in_pixels(bounds: Bounds, crs: pyproj.CRS | None, scene: Scene) -> np.ndarray:
    box = np.array([shapely.box(*bounds)], dtype=object)
    return _in_pixels(Labels("--bbox", "", crs, box, LabelCounts()), scene)


def _in_pixels(area: Labels, scene: Scene) -> np.ndarray:
    """The polygons that meet the scene, cut off near its edges, in its pixel coordinates."""
    if (area.crs is None) != (scene.crs is None):
        lacks, other = (area.path, scene.path) if area.crs is None else (scene.path, area.path)
        raise LsmapError(
            f"{lacks}: has no coordinate reference system and {other} has one, so the two cannot "
            "be laid over each other; assign it first"
        )
    moved = to_pixels(ground_near(area, scene), scene.transform)
    around = shapely.box(-1, -1, scene.width + 1, scene.height + 1)
    return areas(shapely.intersection(moved, around))


def _on_grid(polygons: np.ndarray) -> np.ndarray:
    """The polygons with their vertices on `VERTEX_STEPS`, still valid."""
    moved = np.asarray(
        shapely.transform(areas(polygons), lambda p: np.rint(p * VERTEX_STEPS) / VERTEX_STEPS)
    )
    return areas(repaired(moved))


def _around(polygons: np.ndarray, frame: Frame) -> Frame | None:
    """The pixels of `frame` whose centres lie in the bounds of `polygons`; None without any."""
    if not len(polygons):
        return None
    bounds = shapely.total_bounds(polygons).tolist()
    left, top, right, bottom = (math.ceil(value - 0.5) for value in bounds)
    return frame.common(Frame(top, left, bottom - top, right - left))
