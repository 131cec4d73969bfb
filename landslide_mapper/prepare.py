"""`lsmap prepare`: scenes and labels in, a data set of tiles out."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import geopandas
import numpy as np
import pyogrio
from tqdm import tqdm

from landslide_mapper import __version__
from landslide_mapper.config import SPLITS
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.data.footprints import common_crs, footprints, has_place
from landslide_mapper.data.layout import TileLayout, scene_layout
from landslide_mapper.data.manifest import (
    IMAGES,
    LAYER,
    MANIFEST,
    MASKS,
    SCHEMA_VERSION,
    TILES,
    is_dataset,
)
from landslide_mapper.data.pair_layout import pair_layout
from landslide_mapper.data.report import PrepareReport, landslide_area
from landslide_mapper.data.tiles import (
    ForEach,
    Plan,
    SceneSource,
    TileRecord,
    make_tile,
    run_parallel,
    worker_count,
)
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo.crs import crs_code
from landslide_mapper.geo.gdal import new_layer
from landslide_mapper.geo.remote import without_query
from landslide_mapper.geo.style import add_default_style, split_qml
from landslide_mapper.mask_values import IGNORE
from landslide_mapper.serving import ELONGATED, near_training
from landslide_mapper.shell import command_line
from landslide_mapper.staging import check_folder, check_letters, only_one, writing

__all__ = ["PrepareConfig", "PrepareReport", "prepare"]

LOOK_AT = 100  # windows of a split that are not drawn, to know how many of all show ground

A = TypeVar("A")
B = TypeVar("B")


def prepare(config: PrepareConfig) -> PrepareReport:
    """Make a data set. It appears at `config.output` when it is complete, or not at all.

    Raises `LsmapError` for input that cannot be used, `LsmapFailure` when the disk gives out.
    """
    _check_target(config)
    with only_one(config.output, "making"):
        return _prepare(config)


def _prepare(config: PrepareConfig) -> PrepareReport:
    workers = worker_count(config.workers)

    def for_each(work: Callable[[A], B], items: Sequence[A], what: str) -> list[B]:
        numbered = run_parallel(lambda pair: (pair[0], work(pair[1])), enumerate(items), workers)
        done = dict(tqdm(numbered, what, len(items), disable=None, leave=False))
        return [done[i] for i in range(len(items))]

    layout = (pair_layout if config.pairs else scene_layout)(config, for_each)
    if config.pairs and config.stretch != "none" and len(layout.sources) > 1:
        note(
            f"--stretch {config.stretch} is fitted on each image by itself; where the images are "
            "parts of one scene, a scene that is mapped later is stretched as a whole"
        )
    with (
        writing(config.output, "the data set"),
        _whole_or_not_at_all(config.output) as folder,
    ):
        records, dropped, undrawn = _write_tiles(config, layout, folder, for_each)
        written = [record for record in records if record.written]
        if not any(record.landslide_px for record in written):
            raise LsmapError(
                "No tile has a landslide pixel: the polygons lie under nodata or ignored "
                "ground, or are smaller than a pixel"
            )
        _write_footprints(folder / TILES, layout, written)
        _warn_of_sizes(config, layout, written)
        _warn_of_elongated(layout)
        info = _info(config, layout, records, dropped, undrawn)
        (folder / MANIFEST).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    return PrepareReport(config.output, info)


def _check_target(config: PrepareConfig) -> None:
    target = config.output
    check_letters(target.resolve())
    above = next(folder for folder in target.resolve().parents if folder.exists())
    check_folder(above)
    if not target.exists():
        return
    if not config.overwrite:
        raise LsmapError(
            f"{target}: exists already; choose another with -o, or replace it with --overwrite"
        )
    if not is_dataset(target) and not (target.is_dir() and not any(target.iterdir())):
        raise LsmapError(f"{target}: is not a data set of lsmap, so --overwrite leaves it alone")
    _check_alone(target)
    inputs = [*config.scenes, config.labels, config.aoi, config.split_file, *chain(*config.pairs)]
    for path in inputs:
        if path is not None and Path(path).resolve().is_relative_to(target.resolve()):
            raise LsmapError(
                f"{path}: this is an input and lies in {target}, which --overwrite replaces; "
                "choose another -o"
            )


def _check_alone(target: Path) -> None:
    """Raise `LsmapError` where a data set's folder holds what `prepare` has not put there."""
    others = sorted(
        path.name
        for path in target.iterdir()
        if path.name not in (MANIFEST, IMAGES, MASKS) and not path.name.startswith((TILES, "."))
    )
    if others:
        raise LsmapError(
            f"{target}: also holds {', '.join(others[:3])}{', …' * (len(others) > 3)}, which "
            "--overwrite would delete; move that away, or choose another -o"
        )


@contextmanager
def _whole_or_not_at_all(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes it at the end, and vanishes on an error.

    What a killed run left is removed first; an old `target` stays until the new one is complete.
    """
    target = target.resolve()
    part = target.parent / f".{target.name}.partial"
    old = target.parent / f".{target.name}.old"
    if old.exists() and not target.exists():  # stopped between the two renames below
        old.rename(target)
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name in (IMAGES, MASKS):
            (part / name).mkdir(parents=True)
        yield part
        if target.exists():
            target.rename(old)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write_tiles(
    config: PrepareConfig, layout: TileLayout, folder: Path, for_each: ForEach
) -> tuple[list[TileRecord], dict[str, int], dict[str, int]]:
    """Write every tile with landslide, then the negatives that are drawn, split by split.

    Returns:
        What was looked at, how many windows were left out by reason, and by split about how many
        of those that were not drawn have valid pixels, which takes a look at some of them.
    """

    def make(plan: Plan, wanted: Callable[[TileRecord], bool]) -> TileRecord:
        return make_tile(layout.sources[plan.source], plan, config.tile_size, folder, wanted)

    records = for_each(partial(make, wanted=_positive), layout.positives, "tiles")
    candidates = list(layout.negatives)
    if config.sampling == "grid":  # a window that only touches a polygon's edge is a negative
        candidates += [r.plan for r in records if not r.written and r.valid_px]
    rng = np.random.default_rng(config.seed)
    unused, undrawn = 0, {}
    for split in SPLITS:
        mine = sorted((p for p in candidates if p.split == split), key=lambda p: p.tile_id)
        mine = [mine[i] for i in rng.permutation(len(mine))]
        positives = sum(r.written and r.plan.split == split for r in records)
        wanted = config.negatives_per_landslide * positives if positives else 0
        quota = round(min(len(mine), wanted))
        while quota and mine:
            now, mine = mine[:quota], mine[quota:]
            now.sort(key=lambda p: p.tile_id)  # neighbours share blocks of the file
            made = for_each(partial(make, wanted=_negative), now, f"negatives ({split})")
            records += made
            quota -= sum(r.written for r in made)
        look_at = sorted(mine[:LOOK_AT], key=lambda p: p.tile_id)
        left = for_each(partial(make, wanted=_neither), look_at, f"not drawn ({split})")
        seen = sum(r.valid_px > 0 for r in left)
        undrawn[split] = round(len(mine) * seen / max(len(left), 1))
        unused += len(mine)
    dropped = {
        "empty": sum(not r.valid_px for r in records),
        "overlapping": layout.facts["dropped_overlapping"],
        "unused_negatives": unused,
    }
    # A window tried as a positive and then drawn as a negative is there twice; the last counts.
    records = list({record.plan.tile_id: record for record in records}.values())
    return records, dropped, undrawn


def _positive(record: TileRecord) -> bool:
    return record.landslide_px > 0


def _negative(record: TileRecord) -> bool:
    return record.landslide_px == 0


def _neither(record: TileRecord) -> bool:
    return False


def _pixel_sizes(layout: TileLayout, records: Sequence[TileRecord], tile: int = 0) -> list[float]:
    """Metres, as far as they are known: of each record's source or, given a `tile`'s side, of the
    tile, which may be resampled."""
    return [
        pixel * (record.plan.span / tile if tile else 1)
        for record in records
        if (pixel := layout.gsd[record.plan.source]) is not None
    ]


def _warn_of_sizes(
    config: PrepareConfig, layout: TileLayout, records: Sequence[TileRecord]
) -> None:
    """Say that a network would learn landslides of several sizes, where the pixels have them.

    Crops that are centred on landslides have them on purpose.
    """

    def several(sizes: Sequence[float]) -> bool:
        return bool(sizes) and not near_training(max(sizes) / min(sizes))

    given = _pixel_sizes(layout, records)
    made = _pixel_sizes(layout, records, config.tile_size) if config.pairs else given
    if several(made):
        advice = "bring them to one first, with gdalwarp -tr for example"
        if not several(given):
            advice = "--pairs-fit crop cuts images up instead of scaling them down"
        warn(
            f"pixels of these tiles are {min(made):.2g} to {max(made):.2g} m, and detect shows a "
            f"model one size only; {advice}"
        )


def _warn_of_elongated(layout: TileLayout) -> None:
    """Say that a network would learn ground that is drawn out, which detect does not show it."""
    scenes = [source.scene for source in layout.sources if source.scene.elongation >= ELONGATED]
    if not scenes:
        return
    size = " x ".join(f"{side:.2g}" for side in scenes[0].gsd or ())
    warn(
        f"{scenes[0].name}: pixels are {size} m, so ground is drawn out in its tiles, which detect "
        "shows a model with square pixels; bring the scene to a CRS in metres first, with gdalwarp "
        f"-t_srs for example{f' ({len(scenes)} scenes are so)' * (len(scenes) > 1)}"
    )


def _write_footprints(path: Path, layout: TileLayout, records: Sequence[TileRecord]) -> None:
    plans = [record.plan for record in records]
    crs, together = common_crs([source.scene.crs for source in layout.sources])
    shapes: Any = [None] * len(plans)
    if not together:
        note(f"{path.name} has no outlines: the scenes have CRS with no way between them")
    elif all(has_place(source) for source in layout.sources):
        shapes = footprints(plans, layout.sources, crs)
    columns = {
        "tile_id": [plan.tile_id for plan in plans],
        "split": [plan.split for plan in plans],
        "landslide_fraction": [r.landslide_px / r.valid_px for r in records],
        "landslide_px": [r.landslide_px for r in records],
        "valid_px": [r.valid_px for r in records],
        "positive": [int(r.landslide_px > 0) for r in records],
        "source": [layout.sources[plan.source].name for plan in plans],
    }
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    frame = frame.sort_values("tile_id", ignore_index=True)
    with new_layer():
        pyogrio.write_dataframe(
            frame,
            path,
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            layer_options={"GEOMETRY_NAME": "geom"},
        )
        add_default_style(path, LAYER, "geom", split_qml(), "split", "lsmap: split of each tile")


def _info(
    config: PrepareConfig,
    layout: TileLayout,
    records: Sequence[TileRecord],
    dropped: dict[str, int],
    undrawn: dict[str, int],
) -> dict[str, Any]:
    written = [record for record in records if record.written]
    stride = config.step
    split = layout.facts["split"]
    single = stride == config.tile_size or split.get("block_px") == config.tile_size
    comparable = config.sampling == "grid" and single
    first = layout.sources[0]
    negatives = config.negatives_per_landslide
    options = {name: value for name, value in vars(config).items() if name != "command"}
    area = landslide_area(layout.sources, records, config.tile_size)
    sizes = _pixel_sizes(layout, written, config.tile_size)
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "lsmap_version": __version__,
        "command": command_line(*map(without_query, config.command)),
        "tile_size": config.tile_size,
        "stride": stride,
        "sampling": config.sampling,
        "bands": list(first.scene.bands),
        "band_count": len(first.scene.bands),
        "dtype": "uint8",
        "nodata": 0,
        "ignore": IGNORE,
        "radiometry": {"rule": config.stretch},
        "gsd": statistics.median(sizes) if sizes else None,
        "seed": config.seed,
        "split": split,
        "negatives": "all" if math.isinf(negatives) else negatives,
        "labels": layout.facts["labels"],
        "options": {name: _plain(value) for name, value in options.items()},
        "counts": {split: _counts(split, written, undrawn[split]) for split in SPLITS},
        "dropped": dropped,
        "landslide_area": area and area | {"comparable": comparable},
        "sources": [_source_info(layout, i) for i in range(len(layout.sources))],
    }


def _counts(split: str, written: Sequence[TileRecord], undrawn: int) -> dict[str, int]:
    mine = [record for record in written if record.plan.split == split]
    return {
        "tiles": len(mine),
        "positive_tiles": sum(record.landslide_px > 0 for record in mine),
        "valid_px": sum(record.valid_px for record in mine),
        "landslide_px": sum(record.landslide_px for record in mine),
        "middle_px": sum(record.middle_px for record in mine),
        "ignored_px": sum(record.ignored_px for record in mine),
        "undrawn_negatives": undrawn,
    }


def _source_info(layout: TileLayout, index: int) -> dict[str, Any]:
    source = layout.sources[index]
    info: dict[str, Any] = {
        "name": source.name,
        "path": without_query(source.scene.path),
        "crs": crs_code(source.scene.crs),
        "gsd": layout.gsd[index],
    }
    if source.scene.crs is None:  # area of a pixel in the units of its transform, which are unknown
        info["determinant"] = abs(source.scene.transform.determinant)
    if isinstance(source, SceneSource):
        # Images of a folder are fitted one by one; their curves would outweigh the manifest.
        info["radiometry"] = source.radiometry.to_dict()
        info["landslides"] = len(source.landslides.polygons)
    return info


def _plain(value: Any) -> Any:
    """A setting as JSON has it; addresses without what may be a signature."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return without_query(str(value)) if isinstance(value, str | Path) else value
