"""What `lsmap detect` is going to do, checked as a whole before any pixel is predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyproj
from affine import Affine

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo import rasters, vectors
from landslide_mapper.geo.blend import WindowGrid
from landslide_mapper.geo.features import Shaping
from landslide_mapper.geo.measure import WGS84, wgs84_transformer
from landslide_mapper.geo.scene import Scene, open_scene
from landslide_mapper.staging import check_targets

GSD_FACTOR = 1.5  # pixel sizes further off the training's than this are worth a warning


@dataclass(frozen=True)
class DetectConfig:
    """What was asked for. None: the model's value, or a default that is derived from it.

    Attributes:
        scenes: rasters, anything GDAL opens.
        output: polygon layer; its suffix names the format.
        model: model file or run folder; None: the newest run, else the bundled model.
        mask, probability, overlay: extra outputs; a file for one scene, a folder for several.
        threshold: probability from which a pixel is landslide, above 0 and up to 1.
        overlap: pixels that neighbouring windows share; None: a quarter of the window.
        min_area, fill_holes: m²; smaller landslides are left out, smaller holes filled.
        simplify: metres that an outline may move; None: half a pixel, 0: exact pixel edges.
        tta: mean over the 8 symmetries of each window.
        bands: bands of the scene, counted from 1; None: those the model was trained on.
        batch_size: windows predicted at once.
        device: auto, cpu, cuda or cuda:N.
        overwrite: replace outputs that exist.
    """

    scenes: tuple[str, ...]
    output: Path
    model: str | None = None
    mask: Path | None = None
    probability: Path | None = None
    overlay: Path | None = None
    threshold: float | None = None
    overlap: int | None = None
    min_area: float = 0.0
    fill_holes: float = 0.0
    simplify: float | None = None
    tta: bool = False
    bands: tuple[int, ...] | None = None
    batch_size: int | None = None
    device: str = "auto"
    overwrite: bool = False

    @property
    def shaping(self) -> Shaping:
        """The options that shape outlines."""
        return Shaping(self.min_area, self.fill_holes, self.simplify)

    def threshold_of(self, info: ModelInfo) -> float:
        """The threshold in use with this model."""
        return info.threshold if self.threshold is None else self.threshold

    def with_batch_size(self, batch_size: int) -> DetectConfig:
        """The same with a batch size."""
        return replace(self, batch_size=batch_size)


@dataclass(frozen=True)
class ScenePlan:
    """One scene, its windows, its way into the layer and its extra outputs."""

    scene: Scene
    grid: WindowGrid
    layer_crs: pyproj.CRS | None
    to_layer: pyproj.Transformer | None  # None: the layer has the scene's CRS
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
    vectors.check_suffix(config.output)
    scenes = [_open(path, config.bands, info) for path in config.scenes]
    extras = _extra_outputs(config, scenes)
    _check_outputs(config, extras)
    _check_metres(config, scenes)
    _compare_pixel_sizes(scenes, info)
    crs = _layer_crs(config.output, scenes)
    overlap = info.tile_size // 4 if config.overlap is None else config.overlap
    return [
        ScenePlan(
            scene=scene,
            grid=WindowGrid(scene.height, scene.width, info.tile_size, overlap),
            layer_crs=crs,
            to_layer=_way(scene, crs),
            **{kind: paths[number] for kind, paths in extras.items()},
        )
        for number, scene in enumerate(scenes)
    ]


def _check_numbers(config: DetectConfig, info: ModelInfo) -> None:
    if not config.scenes:
        raise LsmapError("No scene was given; name at least one raster, e.g. region.tif")
    if not 0 < config.threshold_of(info) <= 1:
        raise LsmapError(f"--threshold {config.threshold}: give a probability above 0, at most 1")
    if config.overlap is not None and not 0 <= config.overlap < info.tile_size:
        raise LsmapError(
            f"--overlap {config.overlap}: the windows of this model are {info.tile_size} pixels; "
            f"give 0 to {info.tile_size - 1}"
        )
    if config.batch_size is not None and config.batch_size < 1:
        raise LsmapError(f"--batch-size {config.batch_size}: give 1 or more")
    for name in ("min_area", "fill_holes", "simplify"):
        value = getattr(config, name)
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise LsmapError(f"--{name.replace('_', '-')} {value:g}: give 0 or more")


def _open(path: str, bands: Sequence[int] | None, info: ModelInfo) -> Scene:
    """The scene with the bands that go into the model."""
    if bands is not None and len(bands) != info.band_count:
        raise LsmapError(
            f"--bands names {len(bands)} bands; the model {info.name} takes {info.band_count}"
        )
    chosen = tuple(bands or info.bands)
    scene = open_scene(path)
    if max(chosen) > scene.count:
        hint = ",".join(["1"] * info.band_count)
        raise LsmapError(
            f"{path}: has {scene.count} band{'s' * (scene.count != 1)}; the model {info.name} was "
            f"trained on bands {_listed(info.bands)}; say which to use, e.g. --bands {hint}"
            if bands is None
            else f"{path}: has no band {max(chosen)}, only 1 to {scene.count} (see --bands)"
        )
    alpha = [band for band in chosen if band > 0 and scene.colorinterp[band - 1] == "alpha"]
    if alpha:
        raise LsmapError(
            f"{path}: band {alpha[0]} is transparency, and the model {info.name} takes "
            f"{info.band_count} bands of colour; say which to use with --bands"
        )
    scene = _where_qgis_has_it(open_scene(path, chosen))
    if info.radiometry == "none" and scene.dtype != "uint8":
        raise LsmapError(
            f"{path}: pixels are {scene.dtype}; the model {info.name} was trained without a "
            "stretch and takes 8-bit pixels only; convert the scene or use a model that was "
            "prepared with --stretch equalize"
        )
    return scene


def _where_qgis_has_it(scene: Scene) -> Scene:
    """A plain image, without any georeference, below the x axis: there QGIS shows it upright."""
    if scene.crs is None and scene.transform.is_identity:
        return replace(scene, transform=Affine.scale(1, -1))
    return scene


def _listed(bands: Sequence[int]) -> str:
    return ",".join(str(band) for band in bands)


def _extra_outputs(config: DetectConfig, scenes: Sequence[Scene]) -> dict[str, list[Path | None]]:
    """Per kind, the path for every scene: the file itself, or a name inside a folder."""
    found: dict[str, list[Path | None]] = {}
    for kind, suffixes in (
        ("mask", (".tif", ".tiff")),
        ("probability", (".tif", ".tiff")),
        ("overlay", (".png",)),
    ):
        given: Path | None = getattr(config, kind)
        if given is None:
            found[kind] = [None] * len(scenes)
        elif given.suffix.lower() in suffixes and not given.is_dir():
            if len(scenes) > 1:
                raise LsmapError(
                    f"--{kind} {given}: there are {len(scenes)} scenes; give a folder for one "
                    "file each"
                )
            found[kind] = [given]
        elif given.suffix and not given.is_dir():
            raise LsmapError(f"--{kind} {given}: give a {suffixes[0]} file, or a folder")
        else:
            names = _names([scene.name for scene in scenes])
            found[kind] = [given / f"{name}_{kind}{suffixes[0]}" for name in names]
    return found


def _names(files: Sequence[str]) -> list[str]:
    """File names without suffix; those that come twice are numbered."""
    names: list[str] = []
    for file in files:
        stem = name = Path(file).stem
        number = 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return names


def _check_outputs(config: DetectConfig, extras: dict[str, list[Path | None]]) -> None:
    check_targets(vectors.outputs(config.output), config.overwrite)
    made = list(vectors.outputs(config.output))
    for kind, paths in extras.items():
        for path in (path for path in paths if path):
            # The folder for several rasters is made on the way.
            exists = path.parent.exists() or path.parent == getattr(config, kind).parent
            targets = [path] if kind == "overlay" else rasters.outputs(path)
            check_targets(targets if exists else [path.parent], config.overwrite)
            made += targets
    twice = [path for path in made if made.count(path) > 1]
    if twice:
        raise LsmapError(f"{twice[0]}: two outputs would have this name; choose other names")
    inputs = {Path(scene).resolve() for scene in config.scenes}
    for path in made:
        if path.resolve() in inputs:
            raise LsmapError(f"{path}: this is an input; lsmap never changes its inputs")


def _check_metres(config: DetectConfig, scenes: Sequence[Scene]) -> None:
    for scene in scenes:
        if scene.gsd is None:
            for option in ("min_area", "fill_holes", "simplify"):
                if getattr(config, option):
                    name = option.replace("_", "-")
                    raise LsmapError(
                        f"{scene.path}: has no coordinate reference system, so --{name} "
                        "has no metres to go by; leave it out or assign a CRS (gdal_edit.py -a_srs)"
                    )
            warn(
                f"{scene.name}: no coordinate reference system; areas, lengths, lon and lat stay "
                "empty and polygons are in the raster's own coordinates"
            )
        elif wgs84_transformer(scene.crs) is None:
            warn(
                f"{scene.name}: its coordinate reference system has no way to longitude and "
                "latitude on Earth; lon and lat stay empty"
            )


def _compare_pixel_sizes(scenes: Sequence[Scene], info: ModelInfo) -> None:
    for scene in scenes:
        if info.gsd is None or scene.gsd is None:
            continue
        gsd = math.sqrt(scene.gsd[0] * scene.gsd[1])
        if not 1 / GSD_FACTOR <= gsd / info.gsd <= GSD_FACTOR:
            warn(
                f"{scene.name}: pixels are {gsd:.3g} m, the model was trained at {info.gsd:.3g} m; "
                "expect worse results, or resample the scene (gdalwarp -tr)"
            )


def _layer_crs(output: Path, scenes: Sequence[Scene]) -> pyproj.CRS | None:
    """CRS of the layer: the first scene's, or WGS 84 for GeoJSON, which knows no other."""
    without = [scene for scene in scenes if scene.crs is None]
    if without and len(without) < len(scenes):
        raise LsmapError(
            f"{without[0].path}: has no coordinate reference system and other scenes have one; "
            "run it on its own"
        )
    crs = scenes[0].crs
    if output.suffix.lower() == ".geojson" and crs is not None:
        if wgs84_transformer(crs) is None:
            raise LsmapError(
                f"{output}: GeoJSON is in longitude and latitude on Earth, and {scenes[0].name} "
                "cannot be brought there; write .gpkg instead"
            )
        if crs != WGS84:
            note(f"{output.name} is in WGS 84 (EPSG:4326), as GeoJSON has to be")
        return WGS84
    others = [scene.name for scene in scenes if scene.crs != crs]
    if others and crs is not None:
        note(f"{output.name} is in {crs.name} (the first scene); reprojected: {', '.join(others)}")
    return crs


def _way(scene: Scene, crs: pyproj.CRS | None) -> pyproj.Transformer | None:
    """From the scene's CRS to the layer's; None when they are the same."""
    if crs is None or scene.crs is None or scene.crs == crs:
        return None
    try:
        return pyproj.Transformer.from_crs(scene.crs, crs, always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise LsmapError(
            f"{scene.path}: cannot be brought into the layer's {crs.name}; run it on its own"
        ) from error
