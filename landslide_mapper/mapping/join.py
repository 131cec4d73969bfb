"""From parts to outputs: one pass over the parts of a scene, in order, whoever made them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.geo import rasters, style, vectors
from landslide_mapper.geo.features import Landslides
from landslide_mapper.geo.merge import Merger
from landslide_mapper.geo.overlay import Overlay
from landslide_mapper.geo.sources import TAG
from landslide_mapper.geo.vectorize import BlockComponents, Components, Joiner
from landslide_mapper.mapping import parts
from landslide_mapper.mapping.config import DetectConfig, provenance
from landslide_mapper.mapping.plan import ScenePlan
from landslide_mapper.mapping.store import Store
from landslide_mapper.mapping.work import SceneWork
from landslide_mapper.staging import Staging

# Takes outlines in pixels of the scene and what is said of each.
Emit = Callable[[np.ndarray, dict[str, np.ndarray]], None]


def join_all(
    config: DetectConfig,
    info: ModelInfo,
    works: Sequence[SceneWork],
    plans: Sequence[ScenePlan],
    store: Store,
    staging: Staging,
) -> tuple[int, float, int]:
    """Stage all outputs; returns the number of landslides, their area in m², and of valid pixels.

    Landslides that several scenes show where they overlap are put together.
    """
    said = provenance(config, info)
    description = "lsmap: " + ", ".join(f"{name} {value}" for name, value in said.items())
    target = vectors.VectorTarget(config.output, plans[0].layer_crs, description)
    tags = {f"{TAG}{name.upper().replace('-', '_')}": value for name, value in said.items()}
    hidden = staging.folder(config.output)
    names = store.names()
    areas: list[float] = []
    seen = 0
    shapers = [Landslides(plan.scene, config.shaping, plan.to_layer, plan.shared) for plan in plans]
    merger = Merger([plan.footprint for plan in plans], _pixel(plans), plans[0].layer_crs)
    with vectors.PolygonWriter(target, hidden, info.threshold_or(config.threshold)) as writer:

        def write(polygons: np.ndarray, columns: dict[str, np.ndarray]) -> None:
            if config.min_area and len(polygons):  # those on overlaps have not been asked yet
                large = ~(columns["area_m2"] < config.min_area)
                polygons = polygons[large]
                columns = {name: values[large] for name, values in columns.items()}
            if len(polygons):
                areas.append(float(columns["area_m2"].sum()))
                writer.write(polygons, columns)

        def emit(number: int, outlines: np.ndarray, columns: dict[str, np.ndarray]) -> None:
            named: dict[str, Any] = {"scene": plans[number].scene.name, "model": info.name}
            write(*merger.add(number, shapers[number].on_map(outlines), columns | named))

        for number, (work, plan) in enumerate(zip(works, plans, strict=True)):
            _check_parts(work, names, store)
            overlay, valid = join_scene(
                work, plan, shapers[number], store, hidden, partial(emit, number)
            )
            seen += valid
            _finish(plan, staging, hidden, overlay, config.overwrite, tags)
        write(*merger.finish())
    for path in (*vectors.leftovers(config.output), *vectors.outputs(config.output)):
        if path.suffix == ".qml":
            staging.stage_sidecar(path, config.overwrite)
        else:
            staging.stage(path, optional=path != config.output)
    return writer.count, sum(areas), seen


def _pixel(plans: Sequence[ScenePlan]) -> float:
    """Side of the smallest pixel in units of the layer; 1 where no scene has a place."""
    sides = [math.sqrt(p.footprint.area / (p.frame.height * p.frame.width)) for p in plans]
    return min((side for side in sides if side), default=1.0)


def _check_parts(work: SceneWork, names: Collection[str], store: Store) -> None:
    """Raise `LsmapFailure` unless all parts of a scene are among `names`."""
    lost = [block for block in work.blocks() if work.part_name(block) not in names]
    if lost:
        raise LsmapFailure(
            f"{store.url}: {len(lost)} finished parts of {work.scene.name} have been removed by "
            "somebody else; run the same command again to make them anew"
        )


def join_scene(
    work: SceneWork,
    plan: ScenePlan,
    landslides: Landslides,
    store: Store,
    hidden: Path,
    emit: Emit,
) -> tuple[Overlay | None, int]:
    """Hand every landslide of a scene to `emit`.

    Returns the picture with their outlines, and the number of valid pixels.

    Landslides that reach over blocks are put together, shaped and measured here. Memory holds
    one part and the components that are not yet complete. The scene's rasters are left in the
    folder `hidden`, row by row.

    Raises:
        LsmapFailure: a part is damaged. OSError: something cannot be written.
    """
    frame = work.layout.frame
    overlay = Overlay(plan.scene, frame) if plan.overlay else None
    seen = 0
    with ExitStack() as stack:

        def raster(name: str, needed: bool) -> rasters.StripRaster | None:
            path = hidden / f"strips-{name}.tif"
            if not needed:
                return None
            return stack.enter_context(rasters.StripRaster(path, plan.scene, frame))

        mask = raster("mask", work.mask)
        percent = raster("probability", plan.probability is not None)
        joiner = Joiner(work.layout.columns)

        def hand_on(outlines: np.ndarray, columns: dict[str, np.ndarray]) -> None:
            if len(outlines):
                emit(outlines, columns)
                if overlay:
                    overlay.draw(outlines[~(columns["area_m2"] < work.shaping.min_area)])

        def join(complete: Components) -> None:
            # Next to the sides of blocks nobody knew how much room there was to simplify.
            room = np.zeros(len(complete))
            complete, outlines = landslides.shape(complete, mask, room)
            hand_on(outlines, landslides.columns(complete, outlines))

        blocks = list(work.blocks())
        for block in tqdm(blocks, f"joining {plan.scene.name}", disable=None, leave=False):
            part = _read(store, work.part_name(block))
            seen += part.seen
            for target, values in ((mask, part.mask), (percent, part.percent)):
                if target and values is not None:
                    target.write(block.frame.row, block.frame.col, values)
            hand_on(part.outlines, part.columns)
            border = BlockComponents(Components.empty(), part.open, part.sides)
            join(joiner.add(block.band, block.column, border))
        join(joiner.finish())
    return overlay, seen


def _read(store: Store, name: str) -> parts.Part:
    content = store.read(name)
    try:
        return parts.from_bytes(content)
    except ValueError as error:
        store.delete(name)
        raise LsmapFailure(
            f"{store.url}/{name}: this part was damaged and has been removed; run the same "
            "command again to make it anew"
        ) from error


def _finish(
    plan: ScenePlan,
    staging: Staging,
    hidden: Path,
    overlay: Overlay | None,
    replace: bool,
    tags: dict[str, str],
) -> None:
    """Turn the strips of this scene into its outputs."""
    if plan.mask:
        rasters.finish_mask(hidden / "strips-mask.tif", _stage(staging, plan.mask), tags)
        _style(staging, plan.mask, style.mask_qml(), replace)
    if plan.probability:
        strips = hidden / "strips-probability.tif"
        rasters.finish_probability(strips, _stage(staging, plan.probability), tags)
        _style(staging, plan.probability, style.probability_qml(), replace)
    if plan.overlay and overlay:
        overlay.save(_stage(staging, plan.overlay))
    for strips in hidden.glob("strips-*"):
        strips.unlink()


def _stage(staging: Staging, target: Path) -> Path:
    for path in rasters.leftovers(target):
        staging.stage(path, optional=True)
    return staging.stage(target)


def _style(staging: Staging, target: Path, qml: str, replace: bool) -> None:
    staging.stage_sidecar(target.with_suffix(".qml"), replace).write_text(qml, "utf-8")
