"""From parts to outputs: one pass over the parts of a scene, in order, whoever made them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.errors import LsmapFailure
from landslide_mapper.geo import rasters, style, vector_formats, vectors
from landslide_mapper.geo.features import Landslides, Pieces
from landslide_mapper.geo.joining import Joiner
from landslide_mapper.geo.overlay import Overlay
from landslide_mapper.geo.rasters import TAG
from landslide_mapper.geo.vectorize import Components
from landslide_mapper.mapping import parts
from landslide_mapper.mapping.config import DetectConfig, provenance
from landslide_mapper.mapping.outputs import style_of_a_scene
from landslide_mapper.mapping.overlaps import Overlaps
from landslide_mapper.mapping.plan import ScenePlan
from landslide_mapper.mapping.store import Store
from landslide_mapper.mapping.work import SceneWork
from landslide_mapper.staging import Staging

SMALL = 100.0  # m²; below, nothing that the bundled model mapped on its test sites was right

MASK, PROBABILITY = "mask.tif", "probability.tif"  # rasters of a scene before they are finished

# Takes outlines in the CRS of the layer and what is said of each.
Write = Callable[[np.ndarray, dict[str, Any]], None]


class Joined(NamedTuple):
    """What the outputs hold."""

    landslides: int
    small: int  # of them, below `SMALL`
    area: float  # m², of all landslides
    seen: int  # valid pixels


def join_all(
    config: DetectConfig,
    info: ModelInfo,
    works: Sequence[SceneWork],
    plans: Sequence[ScenePlan],
    store: Store,
    staging: Staging,
) -> Joined:
    """Stage all outputs; landslides that several scenes show where they overlap become one."""
    said = provenance(config, info)
    description = "lsmap: " + ", ".join(f"{name} {value}" for name, value in said.items())
    target = vector_formats.VectorTarget(config.output, plans[0].layer_crs, description)
    tags = {f"{TAG}{name.upper().replace('-', '_')}": value for name, value in said.items()}
    hidden = staging.folder(config.output)
    names = store.names()
    overlays: dict[int, Overlay] = {}
    areas: list[float] = []
    small = seen = 0
    overlaps = Overlaps(plans, config.shaping)

    def strips(number: int) -> Path:
        return hidden / f"strips-{number}"

    def finish(number: int) -> None:
        plan = plans[number]
        if plan.overlay:
            overlays.pop(number).save(_stage(staging, plan.overlay), tags)
        _finish(plan, staging, strips(number), config.overwrite, tags)

    with vectors.PolygonWriter(target, hidden, info.threshold_or(config.threshold)) as writer:

        def write(outlines: np.ndarray, columns: dict[str, Any]) -> None:
            nonlocal small
            if len(outlines):
                areas.append(float(columns["area_m2"].sum()))
                small += int((columns["area_m2"] < SMALL).sum())
                writer.write(outlines, columns | {"model": info.name})

        for number, (work, plan) in enumerate(zip(works, plans, strict=True)):
            _check_parts(work, names, store)
            wait = partial(overlaps.add, number)
            overlay, valid = join_scene(work, plan, store, strips(number), write, wait)
            seen += valid
            if overlay:
                overlays[number] = overlay
                overlay.pack()
            if plan.shared is None:
                finish(number)
        masks = (lambda number: strips(number) / MASK) if any(w.mask for w in works) else None
        for outlines, columns, scenes in overlaps.landslides(masks):
            shown = [", ".join(plans[number].scene.name for number in some) for some in scenes]
            write(outlines, columns | {"scene": shown})
            for number in overlays.keys() & set(chain.from_iterable(scenes)):
                here = np.array([number in some for some in scenes])
                overlays[number].draw(overlaps.in_pixels(number, outlines[here]))
                overlays[number].pack()
    for number, plan in enumerate(plans):
        if plan.shared is not None:
            finish(number)
    for path in (*vector_formats.leftovers(config.output), *vector_formats.outputs(config.output)):
        if path.suffix == ".qml":
            if not style_of_a_scene(path, [plan.scene for plan in plans]):
                staging.stage_sidecar(path, config.overwrite)
        else:
            staging.stage(path, optional=path != config.output)
    return Joined(writer.count, small, sum(areas), seen)


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
    store: Store,
    strips: Path,
    write: Write,
    wait: Callable[[Pieces], None],
) -> tuple[Overlay | None, int]:
    """Hand the landslides of a scene to `write`, and to `wait` what may go on in another scene.

    Returns the picture with the outlines of the former, and the number of valid pixels.

    Landslides that reach over blocks are put together, shaped and measured here. Memory holds
    one part and the components that are not yet complete. The scene's rasters are left in the
    folder `strips`, row by row.

    Raises:
        LsmapFailure: a part is damaged. OSError: something cannot be written.
    """
    frame = work.layout.frame
    landslides = Landslides(plan.scene, work.shaping, plan.to_layer, plan.shared)
    overlay = Overlay(plan.scene, frame) if plan.overlay else None
    seen = 0
    strips.mkdir(exist_ok=True)
    with ExitStack() as stack:

        def raster(name: str, needed: bool) -> rasters.StripRaster | None:
            if not needed:
                return None
            return stack.enter_context(rasters.StripRaster(strips / name, plan.scene, frame))

        mask = raster(MASK, work.mask)
        percent = raster(PROBABILITY, plan.probability is not None)
        joiner = Joiner(work.layout.columns)

        def hand_on(outlines: np.ndarray, columns: dict[str, np.ndarray], pieces: Pieces) -> None:
            if len(outlines):
                write(landslides.on_map(outlines), columns | {"scene": plan.scene.name})
            wait(pieces)
            if overlay:
                overlay.draw(outlines)

        def join(complete: Components) -> None:
            # Next to the sides of blocks nobody knew how much room there was to simplify.
            room = np.zeros(len(complete))
            complete, outlines, pieces = landslides.shape(complete, mask, room)
            hand_on(outlines, landslides.columns(complete, outlines), pieces)

        blocks = list(work.blocks())
        for block in tqdm(blocks, f"joining {plan.scene.name}", disable=None, leave=False):
            part = _read(store, work.part_name(block))
            seen += part.seen
            for target, values in ((mask, part.mask), (percent, part.percent)):
                if target and values is not None:
                    target.write(block.frame.row, block.frame.col, values)
            hand_on(part.outlines, part.columns, part.pieces)
            join(joiner.add(block.band, block.column, part.open, part.sides))
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
    plan: ScenePlan, staging: Staging, strips: Path, replace: bool, tags: dict[str, str]
) -> None:
    """Turn the strips of a scene into its outputs."""
    if plan.mask:
        rasters.finish_mask(strips / MASK, _stage(staging, plan.mask), tags)
        _style(staging, plan.mask, style.mask_qml(), replace)
    if plan.probability:
        rasters.finish_probability(strips / PROBABILITY, _stage(staging, plan.probability), tags)
        _style(staging, plan.probability, style.probability_qml(), replace)
    shutil.rmtree(strips)


def _stage(staging: Staging, target: Path) -> Path:
    for path in rasters.leftovers(target):
        staging.stage(path, optional=True)
    return staging.stage(target)


def _style(staging: Staging, target: Path, qml: str, replace: bool) -> None:
    staging.stage_sidecar(target.with_suffix(".qml"), replace).write_text(qml, "utf-8")
