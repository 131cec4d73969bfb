"""Tiles: the plan of one, the rendering of its pixels, the two files it becomes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import affine
import numpy as np
import rasterio
import shapely

from landslide_mapper.config import SPLITS
from landslide_mapper.data.manifest import IMAGES, MASKS
from landslide_mapper.data.split import SplitBlock
from landslide_mapper.geo import style
from landslide_mapper.geo.placing import burn
from landslide_mapper.geo.radiometry import Radiometry
from landslide_mapper.geo.rasters import as_os_error
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.mask_values import BACKGROUND, IGNORE, LANDSLIDE

TILE_COLOURS = {
    BACKGROUND: (0, 0, 0, 0),
    LANDSLIDE: (*style.LANDSLIDE_COLOUR, 255),
    IGNORE: (*style.IGNORED_COLOUR, 255),
}

# `for_each(work, items, what)`: results of `work` in the items' order, with a bar named `what`.
ForEach = Callable[[Callable[[Any], Any], Sequence[Any], str], list[Any]]

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Plan:
    """A tile to be made: a square of `span` source pixels that starts at `row`, `col`.

    The square may reach outside its source; a `span` other than the tile size is resampled.
    """

    tile_id: str
    source: int
    row: int
    col: int
    span: int
    split: str


@dataclass(frozen=True)
class Rendered:
    """Pixels of a tile: image uint8 (B, T, T), mask uint8 (T, T), and how many landslide pixels
    there were before nodata and other splits' territory were taken out."""

    image: np.ndarray
    mask: np.ndarray
    labelled_px: int


@dataclass(frozen=True)
class TileRecord:
    """A tile that was looked at; `written` tells whether it is on disk.

    `middle_px` of its `landslide_px` lie in the middle quarter, the half of both axes, of what was
    seen: small images lie in the middle of their tiles, and training moves them.
    """

    plan: Plan
    valid_px: int
    landslide_px: int
    middle_px: int
    ignored_px: int
    labelled_px: int
    written: bool = False


class TileSource(Protocol):
    """Where tiles come from: a scene with polygons, or an image with its mask."""

    @property
    def name(self) -> str: ...
    @property
    def scene(self) -> Scene: ...
    def render(self, plan: Plan, tile: int) -> Rendered:
        """The pixels of a planned tile."""
        ...


@dataclass(frozen=True)
class PolygonLayer:
    """Polygons in one scene's CRS, found by window."""

    polygons: np.ndarray
    tree: shapely.STRtree

    @classmethod
    def of(cls, polygons: np.ndarray) -> PolygonLayer:
        """Index `polygons`."""
        return cls(polygons, shapely.STRtree(polygons))

    def near(self, scene: Scene, row: float, col: float, span: float) -> np.ndarray:
        """The polygons that touch a window."""
        window = shapely.Polygon(scene.corners(row, col, span, span))
        return self.polygons[self.tree.query(window, predicate="intersects")]


@dataclass(frozen=True)
class Territory:
    """The split of every block of one source: `owner` (block rows, block columns) holds indices
    into SPLITS, blocks have `side` pixels."""

    side: int
    owner: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[SplitBlock], splits: Sequence[str], side: int) -> Territory:
        """From the blocks of one source and their splits."""
        shape = (max(b.top for b in blocks) // side + 1, max(b.left for b in blocks) // side + 1)
        owner = np.zeros(shape, dtype=np.int8)
        for block, split in zip(blocks, splits, strict=True):
            owner[block.top // side, block.left // side] = SPLITS.index(split)
        return cls(side, owner)

    def split_at(self, row: float, col: float) -> str:
        """The split that the pixel at `row`, `col` belongs to."""
        return SPLITS[int(self.owner[self._block(row, 0), self._block(col, 1)])]

    def own(self, plan: Plan, tile: int) -> np.ndarray:
        """Pixels (T, T) of a tile none of whose source pixels is another split's."""
        scale = plan.span / tile
        cells = np.arange(tile)
        row, col = plan.row + np.floor(cells * scale), plan.col + np.floor(cells * scale)
        last = np.ceil((cells + 1) * scale) - 1
        own = np.ones((tile, tile), dtype=bool)
        for r in (row, plan.row + last):
            for c in (col, plan.col + last):
                owner = self.owner[np.ix_(self._block(r, 0), self._block(c, 1))]
                own &= owner == SPLITS.index(plan.split)
        return own

    def _block(self, position: np.ndarray | float, axis: int) -> np.ndarray:
        block = np.floor_divide(position, self.side).astype(int)
        return np.clip(block, 0, self.owner.shape[axis] - 1)


@dataclass(frozen=True)
class SceneSource:
    """A scene with its radiometry and polygons; `aoi` None means all of it counts."""

    name: str
    scene: Scene
    radiometry: Radiometry
    landslides: PolygonLayer
    ignored: PolygonLayer
    aoi: PolygonLayer | None
    territory: Territory | None = None

    def mask(self, row: int, col: int, span: int, tile: int) -> np.ndarray:
        """Mask (T, T) from the polygons alone, without a look at the scene's pixels."""
        transform = window_transform(self.scene.transform, row, col, span / tile)
        near = [
            layer.near(self.scene, row, col, span) if layer is not None else None
            for layer in (self.landslides, self.ignored, self.aoi)
        ]
        assert near[0] is not None
        assert near[1] is not None
        return burn((tile, tile), transform, near[0], near[1], near[2])

    def render(self, plan: Plan, tile: int) -> Rendered:
        """The pixels of a planned tile."""
        mask = self.mask(plan.row, plan.col, plan.span, tile)
        mask[~_covered(plan, tile, self.scene)] = IGNORE
        labelled = int((mask == LANDSLIDE).sum())
        if (mask == IGNORE).all():  # outside the AOI: no need to read the scene
            image = np.zeros((len(self.scene.bands), tile, tile), dtype=np.uint8)
            return Rendered(image, mask, labelled)
        reader = _reader(self.scene)
        data, valid = reader.read(plan.row, plan.col, plan.span, plan.span, (tile, tile))
        if self.territory is not None:
            valid &= self.territory.own(plan, tile)
        mask[~valid] = IGNORE
        return Rendered(self.radiometry.apply(data, valid), mask, labelled)


def _covered(plan: Plan, tile: int, scene: Scene) -> np.ndarray:
    """Pixels (T, T) of a tile whose centre lies in the scene; the rest is padding."""
    centres = (np.arange(tile) + 0.5) * plan.span / tile
    rows, cols = plan.row + centres, plan.col + centres
    in_rows = (rows > 0) & (rows < scene.height)
    in_cols = (cols > 0) & (cols < scene.width)
    return in_rows[:, None] & in_cols[None, :]


_local = threading.local()


def _reader(scene: Scene) -> SceneReader:
    """This thread's reader of `scene`; only the last scene's file stays open."""
    held: SceneReader | None = getattr(_local, "reader", None)
    if held is None or held.scene is not scene:
        if held is not None:
            held.close()
        held = _local.reader = SceneReader(scene)
    return held


def window_transform(
    transform: affine.Affine, row: float, col: float, scale: float
) -> affine.Affine:
    """Transform of a window that starts at `row`, `col`, with pixels `scale` times as large."""
    return transform * affine.Affine.translation(col, row) * affine.Affine.scale(scale)


def make_tile(
    source: TileSource, plan: Plan, tile: int, folder: Path, wanted: Callable[[TileRecord], bool]
) -> TileRecord:
    """Render one tile and, if its record is `wanted`, write its image and mask under `folder`.

    Each mask has a style: palettes of TIFF have 256 entries, all opaque, and QGIS shows them all.
    """
    pixels = source.render(plan, tile)
    ignored = int((pixels.mask == IGNORE).sum())
    landslide = pixels.mask == LANDSLIDE
    seen: np.ndarray = np.any(pixels.image, axis=0)
    record = TileRecord(
        plan=plan,
        valid_px=pixels.mask.size - ignored,
        landslide_px=int(landslide.sum()),
        middle_px=int(landslide[_middle(seen)].sum()),
        ignored_px=ignored,
        labelled_px=pixels.labelled_px,
    )
    if record.valid_px == 0 or not wanted(record):
        return record
    scene = source.scene
    transform = window_transform(scene.transform, plan.row, plan.col, plan.span / tile)
    crs = None if scene.crs is None else scene.crs.to_wkt()
    _write(folder / IMAGES / f"{plan.tile_id}.tif", pixels.image, transform, crs, nodata=0)
    mask = folder / MASKS / f"{plan.tile_id}.tif"
    _write(mask, pixels.mask[None], transform, crs, nodata=None)
    mask.with_suffix(".qml").write_text(style.mask_qml(ignored=True), "utf-8")
    return replace(record, written=True)


def _middle(seen: np.ndarray) -> tuple[slice, slice]:
    """The half of both axes of what was seen of a tile, (H, W) bool; nothing where that is none."""
    parts = []
    for filled in seen.nonzero():
        first, end = int(filled.min(initial=len(seen))), int(filled.max(initial=-1)) + 1
        parts.append(slice(first + (end - first) // 4, end - (end - first) // 4))
    return parts[0], parts[1]


def _write(
    path: Path,
    pixels: np.ndarray,
    transform: affine.Affine,
    crs: str | None,
    nodata: int | None,
) -> None:
    bands, height, width = pixels.shape
    georeference = {"transform": transform} if crs or not transform.is_identity else {}
    with (
        as_os_error(),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=bands,
            dtype="uint8",
            crs=crs,
            nodata=nodata,
            compress="deflate",
            predictor=1 if nodata is None else 2,
            photometric="rgb" if bands == 3 else "minisblack",
            **georeference,
        ) as raster,
    ):
        if nodata is None:
            raster.write_colormap(1, TILE_COLOURS)
        raster.write(pixels)


def worker_count(wanted: int | None) -> int:
    """Threads to use: as wanted, else one per processor."""
    return wanted or os.cpu_count() or 1


def run_parallel(work: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`work(item)` for every item, in threads, as results come; only a few are in flight.

    GDAL and numpy let go of the interpreter lock while they read, compress and compute.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[B]] = {pool.submit(work, i) for i in islice(waiting, 4 * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for item in islice(waiting, len(done)):
                    running.add(pool.submit(work, item))
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()
