"""What `lsmap detect` is going to do, checked as a whole before any pixel is predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyproj
import shapely

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo import vector_formats
from landslide_mapper.geo.aoi import Aoi, AskedArea, nothing_asked, place, read_area
from landslide_mapper.geo.blend import WindowGrid
from landslide_mapper.geo.crs import (
    WGS84,
    check_shift,
    crs_name,
    geodetic,
    mover,
    same_crs,
    transformer,
    wgs84_transformer,
)
from landslide_mapper.geo.features import Shaping
from landslide_mapper.geo.grid import Frame, default_overlap
from landslide_mapper.geo.measure import reproject, to_map, to_pixels
from landslide_mapper.geo.merge import SLACK, neighbours
from landslide_mapper.geo.placing import beyond_the_antimeridian
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.outputs import check_outputs, extra_outputs
from landslide_mapper.serving import open_for, working_scene

EDGE_PIECES = 32  # of the longer side of an outline, which is bent in another CRS
SHARED_MARGIN = 2.0  # pixels by which what other scenes show is taken to be larger, at least
TORN = 0.25  # of a step that bends: its middle is not so far off; half of it off is a jump


@dataclass(frozen=True)
class ScenePlan:
    """One scene, its windows, its way into the layer and its extra outputs.

    Attributes:
        scene: at the pixel size that is worked at.
        grid: the windows of the whole scene.
        frame: the pixels that the outputs have.
        aoi: what is mapped of them; None: all that is valid.
        layer_crs: CRS of the polygon layer.
        to_layer: the way there; None: the layer has the scene's CRS.
        footprint: what is mapped of it, in the layer's CRS; empty for a picture without a place.
        shared: what other scenes show as well, in pixels; None for nothing.
        mask, probability, overlay: extra outputs.
    """

    scene: Scene
    grid: WindowGrid
    frame: Frame
    aoi: Aoi | None
    layer_crs: pyproj.CRS | None
    to_layer: pyproj.Transformer | None
    footprint: shapely.Polygon
    shared: shapely.Geometry | None
    mask: Path | None
    probability: Path | None
    overlay: Path | None


def plan_detection(config: DetectConfig, info: ModelInfo) -> list[ScenePlan]:
    """Check everything that can be checked beforehand; one plan per scene.

    Raises:
        LsmapError: options out of range, outputs that exist or cannot be made, scenes that are
            missing or that the model cannot serve.
    """
    _check_numbers(config, info)
    vector_formats.check_suffix(config.output)
    area = read_area(config.bbox, config.bbox_crs, config.aoi)
    sources = expand_sources(config.scenes, config.asset, info.band_count)
    files = [open_for(source, config.bands, info) for source in sources]
    chosen = _inside([working_scene(scene, info, config.gsd) for scene in files], area)
    scenes = [scene for scene, _ in chosen]
    extras = extra_outputs(config, scenes)
    check_outputs(config, extras, files)
    _check_metres(config, scenes)
    crs = _layer_crs(config.output, scenes)
    ways = [_way(scene, aoi, crs) for scene, aoi in chosen]
    overlap = default_overlap(info.tile_size) if config.overlap is None else config.overlap
    plans = [
        ScenePlan(
            scene=scene,
            grid=WindowGrid(scene.height, scene.width, info.tile_size, overlap),
            frame=_frame(scene, aoi),
            aoi=aoi,
            layer_crs=crs,
            to_layer=way,
            footprint=_footprint(scene, aoi, way),
            shared=None,
            **{kind: paths[number] for kind, paths in extras.items()},
        )
        for number, ((scene, aoi), way) in enumerate(zip(chosen, ways, strict=True))
    ]
    return _with_shared_ground(plans, config.shaping)


def _inside(scenes: Sequence[Scene], area: AskedArea | None) -> list[tuple[Scene, Aoi | None]]:
    """The scenes of which something is asked for, with that part of them."""
    if area is None:
        return [(scene, None) for scene in scenes]
    if area.bounds and area.bounds_crs is None:
        _check_one_crs(scenes)
    placed = [(scene, place(area, scene)) for scene in scenes]
    outside = [scene for scene, aoi in placed if aoi is None]
    if len(outside) == len(scenes):
        raise LsmapError(nothing_asked(area, outside))
    if outside:
        note(f"left out, nothing of them was asked for: {', '.join(s.name for s in outside)}")
    return [(scene, aoi) for scene, aoi in placed if aoi is not None]


def _check_one_crs(scenes: Sequence[Scene]) -> None:
    """Raise `LsmapError` where a rectangle without a CRS is not the same ground in every scene."""
    first = scenes[0]
    for scene in scenes[1:]:
        if not same_crs(scene.crs, first.crs):
            raise LsmapError(
                f"--bbox: {first.name} is in {crs_name(first.crs)} and {scene.name} in "
                f"{crs_name(scene.crs)}; say which one it is in with --bbox-crs"
            )


def _check_numbers(config: DetectConfig, info: ModelInfo) -> None:
    if not config.scenes:
        raise LsmapError("No scene was given; name at least one raster, e.g. region.tif")
    info.threshold_or(config.threshold)
    if config.overlap is not None and not 0 <= config.overlap < info.tile_size:
        raise LsmapError(
            f"--overlap {config.overlap}: the windows of this model are {info.tile_size} pixels; "
            f"give 0 to {info.tile_size - 1}"
        )
    for name in ("batch_size", "workers"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise LsmapError(f"--{name.replace('_', '-')} {value}: give 1 or more")
    if config.workers is not None and config.dask is not None:
        raise LsmapError("--workers starts processes here, --dask uses a cluster: give one of them")
    for name in ("min_area", "fill_holes", "simplify"):
        value = getattr(config, name)
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise LsmapError(f"--{name.replace('_', '-')} {value:g}: give 0 or more")


def _check_metres(config: DetectConfig, scenes: Sequence[Scene]) -> None:
    for scene in scenes:
        lacks = _what_metres_lack(scene)
        asked = ["min_area", "fill_holes"] + ["simplify"] * (scene.gsd is None)
        for option in asked if lacks else ():
            if getattr(config, option):
                raise LsmapError(
                    f"{scene.path}: {lacks}, so --{option.replace('_', '-')} has no metres to go "
                    "by; leave it out or assign a CRS (gdal_edit.py -a_srs)"
                )
        if scene.crs is None:
            warn(
                f"{scene.name}: no coordinate reference system; areas, lengths, lon and lat stay "
                "empty and polygons are in the raster's own coordinates"
            )
        elif lacks:
            warn(f"{scene.name}: {lacks}; areas, lengths, lon and lat stay empty")
        elif wgs84_transformer(scene.crs) is None:
            warn(
                f"{scene.name}: its coordinate reference system has no way to longitude and "
                "latitude on Earth; lon and lat stay empty"
            )


def _what_metres_lack(scene: Scene) -> str | None:
    """Why areas of this scene cannot be measured; None when they can."""
    if scene.crs is None:
        return "has no coordinate reference system"
    if geodetic(scene.crs) is None:
        return f"its coordinate reference system ({crs_name(scene.crs)}) has no ellipsoid"
    if scene.gsd is None:
        return f"its middle lies outside of where {crs_name(scene.crs)} is defined"
    return None


def _layer_crs(output: Path, scenes: Sequence[Scene]) -> pyproj.CRS | None:
    """CRS of the layer: the first scene's, or WGS 84 for GeoJSON, which knows no other."""
    without = [scene for scene in scenes if scene.crs is None]
    if without and len(without) < len(scenes):
        raise LsmapError(
            f"{without[0].path}: has no coordinate reference system and other scenes have one; "
            "run it on its own"
        )
    crs = scenes[0].crs
    if output.suffix.lower() == ".geojson":
        if crs is None:
            raise LsmapError(
                f"{output}: GeoJSON is in longitude and latitude, and {scenes[0].name} has no "
                "coordinate reference system; write .gpkg instead"
            )
        if wgs84_transformer(crs) is None:
            raise LsmapError(
                f"{output}: GeoJSON is in longitude and latitude on Earth, and {scenes[0].name} "
                "cannot be brought there; write .gpkg instead"
            )
        if any(beyond_the_antimeridian(scene) for scene in scenes):
            raise LsmapError(
                f"{output}: GeoJSON ends at longitudes of ±180 degrees and the scene goes on; "
                "write .gpkg instead"
            )
        if not same_crs(crs, WGS84):
            note(f"{output.name} is in WGS 84 (EPSG:4326), as GeoJSON has to be")
        return WGS84
    if output.suffix.lower() == ".shp" and crs is not None and crs.is_bound:
        warn(
            f"{output.name}: a shapefile does not say how the datum of {scenes[0].name} is shifted "
            "to WGS 84 (TOWGS84), so it may be shown hundreds of metres off; .gpkg says it"
        )
    others = [scene.name for scene in scenes if not same_crs(scene.crs, crs)]
    if others and crs is not None:
        note(f"{output.name} is in {crs.name} (the first scene); reprojected: {', '.join(others)}")
    return crs


def _frame(scene: Scene, aoi: Aoi | None) -> Frame:
    return aoi.frame if aoi else Frame.whole(scene.height, scene.width)


def _footprint(scene: Scene, aoi: Aoi | None, way: pyproj.Transformer | None) -> shapely.Polygon:
    """What is mapped of a scene, in the layer's CRS; empty for a picture, which lies nowhere."""
    if not scene.placed:
        return shapely.Polygon()
    placed = to_map(outline(_frame(scene, aoi)), scene.transform)
    return (reproject(placed, way) if way else placed)[0]


def smallest_pixel(plans: Sequence[ScenePlan]) -> float:
    """Side of the smallest pixel in units of the layer; 1 where no scene has a place."""
    sides = [math.sqrt(p.footprint.area / (p.frame.height * p.frame.width)) for p in plans]
    return min((side for side in sides if side), default=1.0)


def _with_shared_ground(plans: Sequence[ScenePlan], shaping: Shaping) -> list[ScenePlan]:
    """The plans with what other scenes show as well.

    Landslides there are shaped together, so the ground is as wide as they may move in that.
    """
    slack = SLACK * smallest_pixel(plans)
    found: list[ScenePlan] = []
    for plan, others in zip(plans, neighbours([p.footprint for p in plans], slack), strict=True):
        if others is not None and plan.to_layer is not None:
            assert plan.layer_crs is not None
            assert plan.scene.crs is not None
            back = transformer(plan.layer_crs, plan.scene.crs)
            (others,) = reproject(np.array([others]), back)
        if others is not None:
            (others,) = to_pixels(np.array([others]), plan.scene.transform)
            margin = max(SHARED_MARGIN, 2 * shaping.in_pixels(plan.scene))
            others = shapely.buffer(others, margin)
        found.append(replace(plan, shared=others))
    return found


def outline(frame: Frame) -> np.ndarray:
    """The frame as one polygon (1,) in pixels, its edges in short pieces."""
    box = shapely.box(frame.col, frame.row, frame.right, frame.bottom)
    return np.array([shapely.segmentize(box, max(frame.height, frame.width) / EDGE_PIECES)])


def _way(scene: Scene, aoi: Aoi | None, crs: pyproj.CRS | None) -> pyproj.Transformer | None:
    """From the scene's CRS to the layer's; None when they are the same.

    Raises `LsmapError` when there is none, or not for the whole of what is mapped: outside of
    where a CRS is defined, and where its coordinates jump.
    """
    if crs is None or scene.crs is None or same_crs(scene.crs, crs):
        return None
    cannot = f"{scene.path}: cannot be brought into the layer's {crs.name}"
    try:
        way = transformer(scene.crs, crs)
    except pyproj.exceptions.ProjError as error:
        raise LsmapError(f"{cannot}; run it on its own") from error
    ring = shapely.get_coordinates(to_map(outline(_frame(scene, aoi)), scene.transform))
    if not np.isfinite(way.transform(*ring.T)).all():
        raise LsmapError(
            f"{cannot}: it lies outside of where that is defined; run it on its own, as .gpkg"
        )
    if _jumps(way, ring):
        raise LsmapError(
            f"{cannot}: it reaches over the antimeridian or a pole, where coordinates jump; run it "
            "on its own, as .gpkg"
        )
    check_shift(way, scene.crs, crs, way.transform(*ring[0]))
    return way


def _jumps(way: pyproj.Transformer, ring: np.ndarray) -> bool:
    """Whether the way tears the steps of a ring (n, 2) apart.

    The middle of a short step comes to lie near the middle of where its ends come to lie, unless
    they come to lie at opposite sides of the map.
    """
    move = mover(way)
    ends, middles = move(ring), move((ring[1:] + ring[:-1]) / 2)
    steps = np.linalg.norm(ends[1:] - ends[:-1], axis=1)
    off = np.linalg.norm(middles - (ends[1:] + ends[:-1]) / 2, axis=1)
    return bool((~(off <= TORN * steps)).any())
