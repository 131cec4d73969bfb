"""Which tiles to make of scenes: sources, their blocks, the split, windows and crops."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from landslide_mapper.data.bands import check_bands
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.data.footprints import same_ground, settle
from landslide_mapper.data.label_set import LabelSet, read_label_set
from landslide_mapper.data.names import unique_names
from landslide_mapper.data.split import (
    SplitBlock,
    block_factor,
    blocks_of,
    draw_groups,
    read_split_file,
)
from landslide_mapper.data.tiles import (
    ForEach,
    Plan,
    PolygonLayer,
    SceneSource,
    Territory,
    TileSource,
)
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo import grid
from landslide_mapper.geo.aoi import bounds_text
from landslide_mapper.geo.crs import crs_name
from landslide_mapper.geo.fill import fit_and_look, told
from landslide_mapper.geo.labels import Labels
from landslide_mapper.geo.placing import ground_near, in_scene_crs, near_scene
from landslide_mapper.geo.scene import Scene, open_scene
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.mask_values import LANDSLIDE

Range = tuple[float, float]

FILL = 0.8  # a centred crop shows at least a fifth of surroundings


@dataclass(frozen=True)
class TileLayout:
    """Tiles that hold landslide (`positives`), those that may serve as negatives, and facts."""

    sources: tuple[TileSource, ...]
    positives: tuple[Plan, ...]
    negatives: tuple[Plan, ...]
    gsd: tuple[float | None, ...]  # metres per source pixel, by source
    facts: dict[str, Any]


def scene_layout(config: PrepareConfig, for_each: ForEach) -> TileLayout:
    """The layout for scenes with label polygons."""
    assert config.labels is not None
    scenes = [open_scene(source, config.bands) for source in expand_sources(config.scenes)]
    again, times = Counter(os.path.realpath(scene.gdal) for scene in scenes).most_common(1)[0]
    if times > 1:  # its tiles would count twice
        raise LsmapError(f"{again}: is given twice; name every scene once")
    check_bands(scenes, config.bands)
    labels = read_label_set(config)
    by_file = _split_by_file(config.split_file, scenes) if config.split_file else None
    polygons, where = _place(labels.landslides, scenes)
    sources = _scene_sources(config, scenes, labels, polygons, for_each)
    split = by_file or _split_by_blocks(config, sources, for_each)
    if config.step < config.tile_size and split.side <= config.tile_size:
        note(
            f"--stride {config.stride} changes nothing: too few blocks hold landslides, so those "
            "of the split are single tiles; add scenes or give a --split-file"
        )
    windows = _windows(config, sources, split)
    crops: list[Plan] = []
    if config.sampling == "centered":
        sources = _with_territory(sources, split)
        crops = _crops(config.tile_size, sources)
    plans, dropped = settle([*crops, *windows], sources)
    slides = {p.tile_id for p in plans if _touches(sources[p.source], p)}
    is_crop = {p.tile_id for p in crops}
    wanted = is_crop if crops else slides
    return TileLayout(
        sources=tuple(sources),
        positives=tuple(p for p in plans if p.tile_id in wanted),
        negatives=tuple(p for p in plans if p.tile_id not in slides | is_crop),
        gsd=tuple(scene.pixel_side for scene in scenes),
        facts={
            "labels": labels.to_dict() | where,
            "split": split.facts,
            "dropped_overlapping": dropped,
        },
    )


def _place(
    labels: Labels, scenes: Sequence[Scene]
) -> tuple[list[np.ndarray], dict[str, int | None]]:
    """The landslides of each scene, in its CRS, and how many lie outside of all or were lost.

    Raises:
        LsmapError: there is none in any scene.
    """
    bounds = shapely.bounds(labels.polygons)
    inside = np.zeros(len(labels.polygons), dtype=bool)
    placed, lost = [], 0
    for scene in scenes:
        near = near_scene(labels, bounds, scene)
        polygons, untransformed = in_scene_crs(labels.only(near), scene)
        lost = max(lost, untransformed)
        hits = shapely.intersects(polygons, scene.outline)
        if not untransformed:
            inside[np.flatnonzero(near)[hits]] = True
        placed.append(polygons[hits])
    if not any(map(len, placed)):
        raise LsmapError(_no_overlap(scenes[0], in_scene_crs(labels, scenes[0])[0], labels))
    return placed, {"outside": int((~inside).sum()) if not lost else None, "lost": lost}


def _scene_sources(
    config: PrepareConfig,
    scenes: Sequence[Scene],
    labels: LabelSet,
    placed: Sequence[np.ndarray],
    for_each: ForEach,
) -> list[SceneSource]:
    names = unique_names([scene.stem for scene in scenes])
    looked = for_each(lambda it: fit_and_look(it, config.stretch), list(scenes), "radiometry")
    for line in told([(s, fill) for s, (_, fill) in zip(scenes, looked, strict=True) if fill]):
        warn(line)
    ignored, aoi = labels.ignored, labels.aoi
    empty = PolygonLayer.of(np.zeros(0, dtype=object))
    return [
        SceneSource(
            name=name,
            scene=scene,
            radiometry=rule,
            landslides=PolygonLayer.of(polygons),
            ignored=empty if ignored is None else PolygonLayer.of(ground_near(ignored, scene)),
            aoi=None if aoi is None else PolygonLayer.of(ground_near(aoi, scene)),
        )
        for name, scene, polygons, (rule, _) in zip(names, scenes, placed, looked, strict=True)
    ]


def _no_overlap(scene: Scene, polygons: np.ndarray, labels: Labels) -> str:
    if not len(polygons):
        theirs = bounds_text(tuple(shapely.total_bounds(labels.polygons)))
        return (
            f"{labels.path}: no landslide polygon can be brought into the CRS of {scene.name} "
            f"({crs_name(scene.crs)}). The coordinates, {theirs}, do not fit the layer's CRS "
            f"({crs_name(labels.crs)}): are x and y swapped, or is it another CRS (see "
            "--labels-crs)?"
        )
    theirs = bounds_text(tuple(shapely.total_bounds(polygons)))
    return (
        f"{labels.path}: no landslide polygon lies in a scene. {scene.name} spans "
        f"{bounds_text(scene.bounds)}, the polygons {theirs} in the same CRS "
        f"({crs_name(scene.crs)}); check the CRS of both (labels: {crs_name(labels.crs)}, "
        "see --labels-crs)"
    )


@dataclass(frozen=True)
class _Split:
    """Blocks of all scenes with the split of each, the blocks' side in pixels, and facts."""

    blocks: list[SplitBlock]
    splits: list[str]
    side: int
    facts: dict[str, Any]


def _split_by_file(path: Path, scenes: Sequence[Scene]) -> _Split:
    """Every scene is a block, of the split that the file gives it."""
    splits = read_split_file(path, [scene.name for scene in scenes])
    blocks = [SplitBlock(i, 0, s.height, 0, s.width) for i, s in enumerate(scenes)]
    side = max(max(scene.height, scene.width) for scene in scenes)
    return _Split(blocks, splits, side, {"method": "file", "file": str(path)})


def _split_by_blocks(
    config: PrepareConfig, sources: Sequence[SceneSource], for_each: ForEach
) -> _Split:
    """Blocks are drawn, so that landslide area is shared out as it should be."""
    tile = config.tile_size
    cells = [
        Plan("", i, row, col, tile, "train")
        for i, source in enumerate(sources)
        for row in grid.axis_starts(source.scene.height, tile, tile)
        for col in grid.axis_starts(source.scene.width, tile, tile)
    ]
    cells = [cell for cell in cells if _touches(sources[cell.source], cell)]

    def count(cell: Plan) -> int:
        mask = sources[cell.source].mask(cell.row, cell.col, tile, tile)
        return int((mask == LANDSLIDE).sum())

    px = [(cell, n) for cell, n in zip(cells, for_each(count, cells, "labels"), strict=True) if n]
    factor = block_factor([(c.source, c.row // tile, c.col // tile) for c, _ in px])
    side = factor * tile
    weight: Counter[tuple[int, int, int]] = Counter()
    for cell, n in px:
        weight[cell.source, cell.row // side * side, cell.col // side * side] += n
    blocks = [
        block
        for i, source in enumerate(sources)
        for block in blocks_of(i, source.scene.height, source.scene.width, side)
    ]
    weights = [weight[block.source, block.top, block.left] for block in blocks]
    splits = draw_groups(same_ground(blocks, sources), weights, config.seed)
    facts = {
        "method": "blocks",
        "block_px": side,
        "blocks": len(blocks),
        "blocks_with_landslide": len(weight),
    }
    return _Split(blocks, splits, side, facts)


def _touches(source: SceneSource, plan: Plan) -> bool:
    return len(source.landslides.near(source.scene, plan.row, plan.col, plan.span)) > 0


def _windows(config: PrepareConfig, sources: Sequence[SceneSource], split: _Split) -> list[Plan]:
    tile, stride = config.tile_size, config.step
    plans = []
    for block, own in zip(split.blocks, split.splits, strict=True):
        source = sources[block.source]
        scene = source.scene
        for row in grid.block_starts(block.top, block.bottom, scene.height, tile, stride):
            for col in grid.block_starts(block.left, block.right, scene.width, tile, stride):
                name = f"{source.name}_r{row:05d}_c{col:05d}"
                plans.append(Plan(name, block.source, row, col, tile, own))
    return plans


def _with_territory(sources: Sequence[SceneSource], split: _Split) -> list[SceneSource]:
    own: dict[int, list[int]] = {}
    for index, block in enumerate(split.blocks):
        own.setdefault(block.source, []).append(index)

    def territory(source: int) -> Territory:
        blocks = [split.blocks[k] for k in own[source]]
        return Territory.of(blocks, [split.splits[k] for k in own[source]], split.side)

    return [replace(source, territory=territory(i)) for i, source in enumerate(sources)]


def _crops(tile: int, sources: Sequence[SceneSource]) -> list[Plan]:
    """One crop around the middle of each landslide; large ones are shrunk to `FILL` of the tile.

    Of a polygon in several parts that a tile does not hold each part has its crop: in a dissolved
    layer all landslides are one. At the scene's edge a crop is moved inward, not padded; one larger
    than the scene has it in the middle and is padded.
    """
    plans = []
    for i, source in enumerate(sources):
        scene, territory = source.scene, source.territory
        assert territory is not None
        inside = shapely.intersection(source.landslides.polygons, scene.outline)
        for number, seen in enumerate(inside):
            boxes = [box for part in _wholes(seen, scene, tile) if (box := _pixel_box(part, scene))]
            for part, (rows, cols) in enumerate(boxes):
                row, col = sum(rows) / 2, sum(cols) / 2
                span = _span(tile, rows, cols)
                suffix = f"_{part}" if len(boxes) > 1 else ""
                plans.append(
                    Plan(
                        tile_id=f"{source.name}_s{number:05d}{suffix}",
                        source=i,
                        row=_inward(row, span, scene.height),
                        col=_inward(col, span, scene.width),
                        span=span,
                        split=territory.split_at(row, col),
                    )
                )
    return plans


def _wholes(seen: BaseGeometry, scene: Scene, tile: int) -> Iterable[BaseGeometry]:
    """A landslide, or its parts where a tile does not hold them all at full size."""
    box = _pixel_box(seen, scene)
    if box is None or _span(tile, *box) == tile:
        return [seen]
    parts = shapely.get_parts(seen)
    return parts[shapely.area(parts) > 0]


def _pixel_box(shape: BaseGeometry, scene: Scene) -> tuple[Range, Range] | None:
    """First and last row, and column, of a shape in the scene's pixels; None of nothing."""
    points = shapely.get_coordinates(shape)
    if not len(points):
        return None
    cols, rows = ~scene.transform * (points[:, 0], points[:, 1])
    return (rows.min(), rows.max()), (cols.min(), cols.max())


def _span(tile: int, rows: Range, cols: Range) -> int:
    """Side of the square of pixels of which a tile is made, so that it holds these."""
    return max(tile, int(np.ceil(max(rows[1] - rows[0], cols[1] - cols[0]) / FILL)))


def _inward(centre: float, span: int, size: int) -> int:
    start = round(centre - span / 2)
    return min(max(start, 0), size - span) if span <= size else -((span - size) // 2)
