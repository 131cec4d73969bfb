"""From pixels to parts: predict blocks of a scene, vectorise each and keep it.

This is the work that can be done anywhere: in this process, or by the workers of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import numpy as np
import shapely

from landslide_mapper.geo import blend, rasters, remote
from landslide_mapper.geo.aoi import Aoi
from landslide_mapper.geo.blocks import Block, Layout
from landslide_mapper.geo.features import Landslides, Shaping
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.radiometry import Radiometry, sample_digest
from landslide_mapper.geo.reading import scene_rows
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_files import files_of
from landslide_mapper.geo.simplify import room_inside
from landslide_mapper.geo.vectorize import vectorize_block
from landslide_mapper.mapping import parts
from landslide_mapper.mapping.store import Store

# Makes the predictor where it is used; picklable.
Loader = Callable[[], blend.Predictor]


@dataclass(frozen=True)
class SceneWork:
    """All that mapping a block of one scene takes, but for the predictor. Small and picklable.

    Attributes:
        number: which of the scenes of this stack.
        scene, layout, aoi: the pixels to work on; `aoi` None: all that is valid.
        radiometry: the scene's, fitted once.
        threshold, shaping: what is a landslide.
        mask, percent: whether parts carry these rasters.
        shared: what other scenes show as well, in pixels; None for nothing.
        batch_size: windows predicted at once; None: what the predictor says.
        run: says of which run the parts are. A worker of a cluster may finish one when its client
            has long gone and another run has begun in the same place.
    """

    number: int
    scene: Scene
    layout: Layout
    aoi: Aoi | None
    radiometry: Radiometry
    threshold: float
    shaping: Shaping
    mask: bool
    percent: bool
    shared: shapely.Geometry | None
    batch_size: int | None
    run: str = ""

    def part_name(self, block: Block) -> str:
        """Under which its part is kept."""
        return f"{self.number:04d}-{block.band:06d}-{block.column:04d}-{self.run}.part"

    def blocks(self) -> Iterator[Block]:
        """The blocks in which something is wanted."""
        for block in self.layout:
            frame = block.frame
            if self.aoi is None or self.aoi.inside(*astuple(frame)).any():
                yield block

    def sized(self, predict: blend.Predictor) -> SceneWork:
        """The same with a batch size, that of the predictor unless one was asked for."""
        return replace(self, batch_size=self.batch_size or getattr(predict, "batch_size", 1))

    def windows(self, stack: Sequence[Block]) -> int:
        """Number of windows that `map_stack` goes through."""
        return self._span(stack).count

    def _span(self, stack: Sequence[Block]) -> blend.Span:
        first, last = stack[0].frame, stack[-1].frame
        frame = Frame(first.row, first.col, last.bottom - first.row, first.width)
        return self.layout.grid.span(frame).whole_batches(self.batch_size or 1)

    def map_stack(
        self,
        stack: Sequence[Block],
        predict: blend.Predictor,
        store: Store,
        on_windows: Callable[[int], object] | None = None,
    ) -> None:
        """Map blocks that lie below each other and write their parts to `store`.

        Raises:
            LsmapFailure: pixels that cannot be read. OSError: a part that cannot be written.
        """
        span = self._span(stack)
        rows = scene_rows(self.scene, self.radiometry, span, self.aoi)
        # One block is vectorised while the next one is predicted; not more, for the memory.
        with closing(rows), ThreadPoolExecutor(1, "lsmap-vectorise") as behind:
            before: Future[None] | None = None
            waiting = list(stack)
            canvas = _Canvas(waiting[0], span.left, self.threshold, self.percent)
            for strip in blend.blend(rows, predict, span, self.batch_size or 1, on_windows):
                while waiting and canvas.take(strip):
                    if before:
                        before.result()
                    before = behind.submit(self._keep, canvas, store)
                    waiting.pop(0)
                    if waiting:
                        canvas = _Canvas(waiting[0], span.left, self.threshold, self.percent)
            if before:
                before.result()

    def _keep(self, canvas: _Canvas, store: Store) -> None:
        store.write(self.part_name(canvas.block), parts.to_bytes(self._part(canvas)))

    def _part(self, canvas: _Canvas) -> parts.Part:
        block, frame = canvas.block, canvas.block.frame
        components = vectorize_block(
            canvas.mask == 1, np.concatenate(canvas.values), frame.row, frame.col, block.inner
        )
        room = room_inside(components.whole.polygons, frame, block.inner)
        drawn = rasters.ArrayCanvas(canvas.mask, frame.row, frame.col)
        landslides = Landslides(self.scene, self.shaping, shared=self.shared)
        whole, outlines, pieces = landslides.shape(
            components.whole, drawn if self.mask else None, room, components.open.polygons
        )
        return parts.Part(
            outlines=outlines,
            columns=landslides.columns(whole, outlines),
            pieces=pieces,
            open=components.open,
            sides=components.sides,
            seen=int(np.count_nonzero(canvas.mask != rasters.UNSEEN)),
            mask=canvas.mask if self.mask else None,
            percent=canvas.percent,
        )


class _Canvas:
    """What is kept of a block's pixels while it is filled strip by strip.

    Of the probabilities only those of landslides: they are few, and nothing else asks for them.
    """

    def __init__(self, block: Block, left: int, threshold: float, percent: bool) -> None:
        self.block = block
        self._cols = slice(block.frame.col - left, block.frame.right - left)
        self._threshold = np.float32(threshold)
        shape = (block.frame.height, block.frame.width)
        self.mask = np.full(shape, rasters.UNSEEN, dtype=np.uint8)
        self.values: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
        self.percent = self.mask.copy() if percent else None

    def take(self, strip: blend.Strip) -> bool:
        """Take what is in the block; returns whether the block is complete with it."""
        frame = self.block.frame
        bottom = strip.row + len(strip.valid)
        first, last = max(strip.row, frame.row), min(bottom, frame.bottom)
        if first < last:
            source = (slice(first - strip.row, last - strip.row), self._cols)
            target = slice(first - frame.row, last - frame.row)
            # The weights of a pixel's windows sum to 1 within rounding.
            probability = np.minimum(strip.values[source], np.float32(1))
            valid = strip.valid[source]
            found = valid & (probability >= self._threshold)
            self.mask[target] = rasters.classes(found, valid)
            self.values.append(probability[found])
            if self.percent is not None:
                self.percent[target] = rasters.percent(probability, valid)
        return bottom >= frame.bottom


def identify(work: SceneWork) -> dict[str, Any]:
    """What tells whether a scene is still the same, as JSON values.

    Its size, place and curves, which follow its pixels; size in bytes and time of the last
    change of every file that it is made of; of what lies elsewhere, pixels all over the scene.
    """
    scene = asdict(work.scene) | {"crs": work.scene.crs and work.scene.crs.to_wkt()}
    found: dict[str, Any] = {name: repr(value) for name, value in scene.items()}
    found["radiometry"] = work.radiometry.to_dict()
    if work.aoi is not None:
        polygons = () if work.aoi.polygons is None else work.aoi.polygons
        found["aoi"] = [repr(work.aoi.frame), *(polygon.wkb_hex for polygon in polygons)]
    files = files_of(work.scene)
    found["files"] = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    if not files or remote.is_remote(work.scene.gdal):
        found["pixels"] = sample_digest(work.scene)
    return found
