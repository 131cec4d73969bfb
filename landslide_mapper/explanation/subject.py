"""What `lsmap explain` works on: a scene or part of one, or a tile of a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.errors import RasterioIOError

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.data.manifest import IMAGES, Dataset, is_dataset, load_dataset
from landslide_mapper.errors import LsmapError, LsmapFailure, note, one_line, warn
from landslide_mapper.explanation.config import ExplainConfig
from landslide_mapper.explanation.heat import Zones
from landslide_mapper.geo.aoi import Aoi, nothing_asked, place, read_area
from landslide_mapper.geo.blend import WindowGrid
from landslide_mapper.geo.grid import Frame, default_overlap
from landslide_mapper.geo.labels import OptionNames
from landslide_mapper.geo.measure import to_pixels
from landslide_mapper.geo.placing import in_scene_crs
from landslide_mapper.geo.radiometry import Radiometry, fit
from landslide_mapper.geo.review import read_unrejected
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.sources import expand_sources
from landslide_mapper.geo.vectorize import vectorize_block
from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.serving import odd_size, open_for, working_scene


@dataclass(frozen=True)
class Subject:
    """What is explained: pixels, windows, and the landslides that are known of it.

    `unseen` is the model's (`landslide_mapper.config.ModelConfig`).
    """

    scene: Scene
    frame: Frame
    aoi: Aoi | None
    grid: WindowGrid
    radiometry: Radiometry
    unseen: str
    zones: Zones | None


def find_subject(config: ExplainConfig, info: ModelInfo) -> Subject:
    """Open what `config` names, for this model.

    Raises:
        LsmapError: no such scene or tile, one that does not suit the model, nothing of it in
            what was asked for, or labels that cannot be laid over it.
    """
    dataset = _dataset_of(config.source)
    if dataset is not None:
        return _tile(config, info, dataset)
    sources = expand_sources([config.source], config.asset, info.band_count)
    if len(sources) != 1:
        raise LsmapError(f"{config.source}: {len(sources)} rasters; explain one at a time")
    scene = working_scene(open_for(sources[0], config.bands, info), info, config.gsd)
    return _placed(config, info, scene, info.tile_size, fit(scene, info.radiometry))


def _dataset_of(source: str) -> Dataset | None:
    """The data set that an image belongs to, if it is one of a data set's tiles."""
    root = Path(source).parent.parent
    if Path(source).parent.name != IMAGES or not is_dataset(root):
        return None
    return load_dataset(root)


def _tile(config: ExplainConfig, info: ModelInfo, dataset: Dataset) -> Subject:
    """A tile is one window, was stretched when it was made, and brings its mask."""
    known = [tile for tile in dataset.tiles if tile.tile_id == Path(config.source).stem]
    if not known:
        raise LsmapError(f"{config.source}: {dataset.root} has no such tile")
    if dataset.band_count != info.band_count:
        raise LsmapError(
            f"{config.source}: has {dataset.band_count} bands, the model {info.name} takes "
            f"{info.band_count}"
        )
    if dataset.radiometry_rule != info.radiometry:
        warn(
            f"{dataset.root} was prepared with --stretch {dataset.radiometry_rule}, the model "
            f"{info.name} was trained with {info.radiometry}"
        )
    if odd := odd_size(dataset.gsd, info):
        warn(f"{dataset.root}: {odd}")
    for option in ("gsd", "bands", "asset"):
        if getattr(config, option):
            raise LsmapError(f"--{option} has no meaning for a tile of a data set; leave it out")
    (source,) = expand_sources([config.source])
    scene = open_for(source, tuple(range(1, dataset.band_count + 1)), info)
    subject = _placed(config, info, scene, dataset.tile_size, fit(scene, "none"))
    if subject.zones is not None:
        return subject
    try:
        with rasterio.open(known[0].mask) as raster:
            mask = raster.read(1)
    except RasterioIOError as error:
        raise LsmapFailure(f"{known[0].mask}: cannot be read ({one_line(error)})") from error
    if mask.shape != (scene.height, scene.width):
        raise LsmapError(
            f"{config.source}: has {scene.width} x {scene.height} pixels, its mask "
            f"{mask.shape[1]} x {mask.shape[0]}; run lsmap prepare again"
        )
    landslide = mask == LANDSLIDE
    found = vectorize_block(landslide, np.ones(np.count_nonzero(landslide), np.float32))
    whole = Frame.whole(scene.height, scene.width)
    zones = Zones(whole, found.whole.polygons, mask == IGNORE)
    return replace(subject, zones=zones)


def _placed(
    config: ExplainConfig, info: ModelInfo, scene: Scene, tile: int, radiometry: Radiometry
) -> Subject:
    area = read_area(config.bbox, config.bbox_crs, config.aoi)
    aoi = place(area, scene) if area else None
    if area is not None and aoi is None:
        raise LsmapError(nothing_asked(area, [scene]))
    whole = Frame.whole(scene.height, scene.width)
    zones = None
    if config.labels is not None:
        zones = Zones(whole, _outlines(config.labels, scene))
    grid = WindowGrid(scene.height, scene.width, tile, default_overlap(tile))
    frame = aoi.frame if aoi else whole
    return Subject(scene, frame, aoi, grid, radiometry, info.model.unseen, zones)


def _outlines(path: str, scene: Scene) -> np.ndarray:
    """The polygons of a layer in pixels of the scene."""
    labels = read_unrejected(path, None, OptionNames())
    if not len(labels.polygons):
        raise LsmapError(f"{path}: there is no polygon in it")
    polygons = shapely.get_parts(in_scene_crs(labels, scene)[0])
    moved = to_pixels(polygons, scene.transform)
    near = moved[shapely.intersects(moved, shapely.box(0, 0, scene.width, scene.height))]
    if not len(near):
        note(f"{path}: none of its polygons lies on {scene.name}")
    return near
