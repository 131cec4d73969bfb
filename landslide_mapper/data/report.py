"""What was prepared, in figures and as the lines that the command prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine

from landslide_mapper.config import SPLITS, TrainConfig
from landslide_mapper.data.config import LEAST_TILE, TILE_STEP
from landslide_mapper.data.manifest import MOVE_THEM, Dataset
from landslide_mapper.data.tiles import SceneSource, TileRecord
from landslide_mapper.geo.crs import unit_metres
from landslide_mapper.geo.measure import Measurer
from landslide_mapper.geo.placing import areas
from landslide_mapper.geo.scene import Scene
from landslide_mapper.shell import command_line

NO_AREA = 1e-6  # of the polygons' area: what rounding leaves is not worth a line


@dataclass(frozen=True)
class PrepareReport:
    """A finished data set: where it is and its dataset.json."""

    root: Path
    info: dict[str, Any]

    def lines(self) -> list[str]:
        """The report, ready to print; the last line is the next command."""
        info = self.info
        width = max(len(str(counts["tiles"])) for counts in info["counts"].values()) + 2
        head = (
            f"{'split':<7}{'tiles':>{max(width, 7)}}{'with landslide':>16}{'landslide share':>17}"
        )
        out = [
            f"{self.root}: {sum(c['tiles'] for c in info['counts'].values())} tiles of "
            f"{info['tile_size']}×{info['tile_size']} pixels, {info['band_count']} band(s)",
            "",
            head,
        ]
        for split in SPLITS:
            counts = info["counts"][split]
            share = counts["landslide_px"] / counts["valid_px"] if counts["valid_px"] else 0.0
            out.append(
                f"{split:<7}{counts['tiles']:>{max(width, 7)}}{counts['positive_tiles']:>16}"
                f"{share:>17.2%}"
            )
        notes = [*_area_lines(info), *_left_out_lines(info), *self._middle()]
        empty = [split for split in SPLITS if not info["counts"][split]["tiles"]]
        if empty:
            notes.append(f"No tiles in {' and '.join(empty)}: {_why_empty(info['split'])}.")
        return [*out, *([""] if notes else []), *notes, "", *self._next()]

    @property
    def _dataset(self) -> Dataset:
        """What was prepared, without its tiles."""
        return Dataset(self.root, self.info, ())

    def _middle(self) -> list[str]:
        """Why the next command moves the tiles, where it does."""
        if not self._dataset.centred():
            return []
        return [
            f"{self._dataset.middle_in_words()}; trained without {MOVE_THEM} a network learns to "
            "look there only."
        ]

    def _next(self) -> list[str]:
        """The next command, as far as there are tiles for it."""
        if command := train_command(self._dataset):
            return [f"Next: {command}"]
        if self.info["counts"]["train"]["positive_tiles"] < 2:
            options = self.info["options"]
            half = self.info["tile_size"] // (2 * TILE_STEP) * TILE_STEP
            scaled = options["pairs"] and options["pairs_fit"] == "scale"  # to a tile of any size
            helps = half >= LEAST_TILE and not scaled
            smaller = f" or make tiles smaller, e.g. --tile-size {half}" * helps
            more = "images" if options["pairs"] else "scenes"
            return [f"Too few tiles with landslide to train on: add {more}{smaller}"]
        return ["Not enough for lsmap train, which chooses its best epoch on val: see above"]


def train_command(dataset: Dataset) -> str | None:
    """What to type to train on a data set; None where too few of its tiles have landslide."""
    train, val = dataset.counts("train"), dataset.counts("val")
    if train.get("positive_tiles", 0) < 2 or not val.get("positive_tiles"):
        return None
    root = str(dataset.root)
    target = "" if (root,) == TrainConfig.datasets else f" {command_line(root)}"
    few = " --batch-size 2" if train["tiles"] < TrainConfig.batch_size else ""
    shift = f" {MOVE_THEM}" if dataset.centred() else ""
    return f"lsmap train{target}{few}{shift}"


def _why_empty(split: dict[str, Any]) -> str:
    """Why a split may have no tiles, and what to do."""
    if split["method"] == "file":
        return (
            f"{split['file']} puts nothing there that has tiles with landslide; list more scenes "
            "or images with landslide for it"
        )
    if split["method"] == "images":
        return "too few images hold landslides; add images or give a --split-file"
    return (
        "too few blocks hold landslides; add scenes, make tiles smaller (--tile-size) or give a "
        "--split-file"
    )


def _area_lines(info: dict[str, Any]) -> list[str]:
    area = info["landslide_area"]
    if area is None:
        return []
    unit, factor = ("km²", 1e6) if area["unit"] == "m²" else ("pixels", 1.0)
    own, tiles = area["polygons"] / factor, area["tiles"] / factor
    line = f"Landslide area in the scenes: polygons {own:.6g} {unit}"
    if not area["comparable"]:
        return [f"{line}; tiles overlap, so theirs is not compared."]
    share = tiles / own if own else 0.0
    out = [f"{line}, tiles {tiles:.6g} {unit} ({share:.2%})."]
    for part, where in ((area["hidden"], "under nodata"), (area["left_out"], _out_of_play(info))):
        if part > NO_AREA * area["polygons"]:
            out.append(f"  {part / factor:.3g} {unit} of it lies {where}.")
    return out


def _out_of_play(info: dict[str, Any]) -> str:
    """Where there is neither landslide nor background, as far as it was asked for."""
    given = {"aoi": "outside the AOI", "ignore": "on ignored ground"}
    return " or ".join(words for key, words in given.items() if key in info["labels"])


def _left_out_lines(info: dict[str, Any]) -> list[str]:
    labels, out = info["labels"], []
    if "features" in labels:
        words = {
            "repaired": "repaired",
            "null_or_empty": "null or empty, left out",
            "not_polygon": "not polygons, left out",
            "degenerate": "without area, left out",
            "outside": "outside every scene",
            "lost": "lost in reprojection",
        }
        parts = [f"{labels[key]} {text}" for key, text in words.items() if labels.get(key)]
        parts = parts or ["none repaired or left out"]
        out.append(f"Labels: {labels['features']} features read: {', '.join(parts)}.")
        if "ignore" in labels:
            out.append(f"Ignored ground: {labels['ignore']['polygons']} polygons (--ignore-where).")
    windows = {
        "empty": "without valid pixels, skipped",
        "overlapping": "dropped because another split's scene shows the same ground",
        "unused_negatives": "without landslide, not drawn (--negatives)",
    }
    parts = [
        f"{info['dropped'][key]} {text}" for key, text in windows.items() if info["dropped"][key]
    ]
    if parts:
        out.append(f"Windows: {'; '.join(parts)}.")
    return out


def landslide_area(
    sources: Sequence[Any], records: Sequence[TileRecord], tile: int
) -> dict[str, Any] | None:
    """Landslide area of the polygons inside the scenes and of the tiles (m², geodesic; pixels
    where there is no CRS). None for sources without polygons.

    What the tiles lack is `hidden` under nodata or `left_out` by the AOI and the ignored ground.
    """
    if not all(isinstance(source, SceneSource) for source in sources):
        return None
    metric = all(source.scene.gsd is not None for source in sources)
    unions = [_in_scene(source.landslides.polygons, source.scene) for source in sources]
    scenes = [source.scene for source in sources]
    polygons = sum(_area(u, s, metric) for u, s in zip(unions, scenes, strict=True))
    lost = [_left_out(union, source) for union, source in zip(unions, sources, strict=True)]
    left_out = sum(_area(part, s, metric) for part, s in zip(lost, scenes, strict=True))
    tiles = hidden = 0.0
    for record in records:
        pixel = _pixel_area(sources[record.plan.source], record, tile, metric)
        tiles += record.landslide_px * pixel * record.written
        hidden += (record.labelled_px - record.landslide_px) * pixel
    return {
        "unit": "m²" if metric else "px",
        "polygons": polygons,
        "tiles": tiles,
        "hidden": hidden,
        "left_out": left_out,
    }


def _pixel_area(source: SceneSource, record: TileRecord, tile: int, metric: bool) -> float:
    plan = record.plan
    scale = (plan.span / tile) ** 2
    middle = plan.span / 2
    size = source.scene.pixel_size(plan.row + middle, plan.col + middle) if metric else (1.0, 1.0)
    size = size or source.scene.gsd or (1.0, 1.0)
    return scale * size[0] * size[1]


def _in_scene(polygons: np.ndarray, scene: Scene) -> shapely.Geometry:
    """The union of polygons, clipped to the scene; polygons only, without lines where they touch.

    Polygons that were valid in their own CRS need not be in the scene's.
    """
    seen = shapely.intersection(shapely.make_valid(polygons), scene.outline)
    return shapely.union_all(areas(seen))


def _left_out(slides: shapely.Geometry, source: SceneSource) -> shapely.Geometry:
    """The part of a scene's landslides that is on ignored ground or outside the AOI."""
    ignored = _in_scene(source.ignored.polygons, source.scene)
    if source.aoi is None:
        return shapely.intersection(slides, ignored)
    aoi = _in_scene(source.aoi.polygons, source.scene)
    return shapely.difference(slides, shapely.difference(aoi, ignored))


def _area(shape: shapely.Geometry, scene: Scene, metric: bool) -> float:
    if not metric:
        return float(shapely.area(shape) / abs(scene.transform.determinant))
    unit = unit_metres(scene.crs)
    measurer = Measurer(scene.crs, Affine.identity(), unit)
    if not measurer.metric:
        return float(shapely.area(shape)) * (unit or 1.0) ** 2
    return float(measurer.area(areas(np.array([shape]))).sum())
