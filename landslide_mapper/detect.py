"""``lsmap detect``: landslide polygons of one or more scenes, streamed from pixels to polygons."""

from __future__ import annotations

import math
import shlex
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError
from tqdm import tqdm

from landslide_mapper.checkpoint import (
    ModelInfo,
    choose_device,
    find_model,
    load_predictor,
    read_info,
)
from landslide_mapper.detect_plan import DetectConfig, ScenePlan, plan_detection
from landslide_mapper.errors import LsmapFailure, note
from landslide_mapper.geo import blend, rasters, style, vectors
from landslide_mapper.geo.features import Landslides
from landslide_mapper.geo.overlay import Overlay
from landslide_mapper.geo.radiometry import Radiometry, fit
from landslide_mapper.geo.vectorize import Components, StripVectorizer
from landslide_mapper.staging import Staging

CUDA_BATCH = 16
FULL = 1_000_000  # bytes; with less than that left, a disk is full


@dataclass(frozen=True)
class DetectReport:
    """What was found and written."""

    landslides: int
    area: float  # m², of all landslides; NaN where the scene has no metres
    megapixels: float
    seconds: float
    polygons: Path
    files: tuple[Path, ...]
    scenes: tuple[str, ...]

    def summary(self) -> str:
        """The result in a few lines, for the terminal."""
        what = "1 landslide" if self.landslides == 1 else f"{self.landslides} landslides"
        area = "" if math.isnan(self.area) else f", {_area(self.area)}"
        speed = self.megapixels / max(self.seconds, 1e-9)
        lines = [
            f"{what}{area}; {self.megapixels:.1f} Mpx in {self.seconds:.1f} s ({speed:.2f} Mpx/s)"
        ]
        return "\n".join([*lines, *(f"  {path}" for path in self.files)])

    def qgis_command(self) -> str:
        """The command that shows the polygons over the scenes in QGIS."""
        return shlex.join(["qgis", *self.scenes[:3], str(self.polygons)])


def _area(area: float) -> str:
    return f"{area / 1e6:.3f} km²" if area >= 1e4 else f"{area:.0f} m²"


def detect(config: DetectConfig) -> DetectReport:
    """Find the model, map the landslides of all scenes and write what `config` asks for.

    Raises `LsmapError` for bad options, scenes that do not suit the model and outputs that
    exist, before any work; `LsmapFailure` when the work cannot be finished (disk full).
    Nothing is left behind then.
    """
    path, why = find_model(config.model)
    info = read_info(path)
    plans = plan_detection(config, info)
    note(f"model {info.name} ({why}: {path}), threshold {config.threshold_of(info):g}")
    predict, info = load_predictor(path, config.device)
    if config.batch_size is None:
        cuda = choose_device(config.device).type == "cuda"
        config = config.with_batch_size(CUDA_BATCH if cuda else 1)
    return _run(config, plans, predict, info)


def detect_with(config: DetectConfig, predict: blend.Predictor, info: ModelInfo) -> DetectReport:
    """`detect` with a predictor that is at hand: any callable from windows to probabilities."""
    return _run(config, plan_detection(config, info), predict, info)


def _run(
    config: DetectConfig, plans: Sequence[ScenePlan], predict: blend.Predictor, info: ModelInfo
) -> DetectReport:
    if config.tta:
        predict = blend.average_symmetries(predict)
    started = time.monotonic()
    try:
        with Staging() as staging:
            count, area = _map_and_publish(config, plans, predict, info, staging)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise LsmapFailure(
            f"The device ran out of memory; give a smaller --batch-size ({config.batch_size or 1} "
            "now) or --device cpu"
        ) from error
    pixels = sum(plan.scene.width * plan.scene.height for plan in plans)
    rasters_made = [p for plan in plans for p in (plan.mask, plan.probability, plan.overlay) if p]
    return DetectReport(
        landslides=count,
        area=area,
        megapixels=pixels / 1e6,
        seconds=time.monotonic() - started,
        polygons=config.output,
        files=(config.output, *rasters_made),
        scenes=tuple(plan.scene.path for plan in plans),
    )


def _map_and_publish(
    config: DetectConfig,
    plans: Sequence[ScenePlan],
    predict: blend.Predictor,
    info: ModelInfo,
    staging: Staging,
) -> tuple[int, float]:
    try:
        found = _map_scenes(config, plans, predict, info, staging)
        staging.publish()
    except (RasterioError, OSError, sqlite3.Error) as error:
        # What GDAL says of a full disk is often what it failed to read back later on.
        full = shutil.disk_usage(config.output.parent).free < FULL
        reason = "the disk is full" if full else " ".join(str(error).split())
        raise LsmapFailure(
            f"{config.output}: the results could not be written ({reason}); nothing was left "
            "behind, make room or choose another place and run again"
        ) from error
    return found


def _map_scenes(
    config: DetectConfig,
    plans: Sequence[ScenePlan],
    predict: blend.Predictor,
    info: ModelInfo,
    staging: Staging,
) -> tuple[int, float]:
    """Number of landslides and their area; everything asked for is staged."""
    threshold = config.threshold_of(info)
    target = vectors.VectorTarget(config.output, plans[0].layer_crs)
    area = 0.0
    with vectors.PolygonWriter(target, staging.folder(config.output), threshold) as writer:
        for plan in plans:
            task = _Task(config, plan, info, threshold, writer, staging)
            area += task.map(predict)
    for path in (*vectors.leftovers(config.output), *vectors.outputs(config.output)):
        if path.suffix == ".qml":
            staging.stage_sidecar(path, config.overwrite)
        else:
            staging.stage(path)
    return writer.count, area


@dataclass
class _Task:
    """One scene on its way: what is asked of it and where its results go."""

    config: DetectConfig
    plan: ScenePlan
    info: ModelInfo
    threshold: float
    writer: vectors.PolygonWriter
    staging: Staging
    area: float = field(default=0.0, init=False)

    def map(self, predict: blend.Predictor) -> float:
        """Map the scene; returns the area of its landslides in m²."""
        plan = self.plan
        radiometry = fit(plan.scene, self.info.radiometry)
        overlay = Overlay(plan.scene) if plan.overlay else None
        hidden = self.staging.folder(self.config.output)
        with ExitStack() as stack:

            def raster(name: str, needed: bool) -> rasters.StripRaster | None:
                path = hidden / f"strips-{name}.tif"
                if not needed:
                    return None
                return stack.enter_context(rasters.StripRaster(path, plan.scene))

            mask = raster("mask", plan.mask is not None or self.config.fill_holes > 0)
            probability = raster("probability", plan.probability is not None)
            landslides = Landslides(plan.scene, self.config.shaping, mask, plan.to_layer)

            def take(components: Components) -> None:
                self._write(landslides, components, overlay)

            self._stream(predict, radiometry, mask, probability, take)
        self._finish(hidden, overlay)
        return self.area

    def _stream(
        self,
        predict: blend.Predictor,
        radiometry: Radiometry,
        mask: rasters.StripRaster | None,
        probability: rasters.StripRaster | None,
        take: Callable[[Components], None],
    ) -> None:
        """Strip by strip: predict, threshold, write, vectorise."""
        scene, grid = self.plan.scene, self.plan.grid
        vectorizer = StripVectorizer(scene.width)
        with (
            closing(blend.prefetch(lambda: blend.scene_rows(scene, radiometry, grid))) as rows,
            # None: a bar on terminals only.
            tqdm(total=grid.count, unit=" windows", desc=scene.name, disable=None) as bar,
        ):
            strips = blend.blend(rows, predict, grid, self.config.batch_size or 1, bar.update)
            for strip in strips:
                found = strip.valid & (strip.probability >= np.float32(self.threshold))
                if mask:
                    mask.write(strip.row, rasters.classes(found, strip.valid))
                if probability:
                    probability.write(strip.row, rasters.percent(strip.probability, strip.valid))
                take(vectorizer.add(found, strip.probability))
            take(vectorizer.finish())

    def _write(
        self, landslides: Landslides, components: Components, overlay: Overlay | None
    ) -> None:
        components, outlines = landslides.shape(components)
        if len(components) == 0:
            return
        rows = list(landslides.attributes(components, outlines, self.info.name))
        self.area += sum(row["area_m2"] for row in rows)
        self.writer.write(landslides.on_map(outlines), rows)
        if overlay:
            overlay.draw(outlines)

    def _finish(self, hidden: Path, overlay: Overlay | None) -> None:
        """Turn the strips of this scene into its outputs."""
        plan = self.plan
        if plan.mask:
            rasters.finish_mask(hidden / "strips-mask.tif", self._stage(plan.mask))
            self._style(plan.mask, style.mask_qml())
        if plan.probability:
            strips = hidden / "strips-probability.tif"
            rasters.finish_probability(strips, self._stage(plan.probability))
            self._style(plan.probability, style.probability_qml())
        if plan.overlay and overlay:
            overlay.save(self._stage(plan.overlay))
        for strips in hidden.glob("strips-*"):
            strips.unlink()

    def _stage(self, target: Path) -> Path:
        for path in rasters.leftovers(target):
            self.staging.stage(path)
        return self.staging.stage(target)

    def _style(self, target: Path, qml: str) -> None:
        sidecar = target.with_suffix(".qml")
        self.staging.stage_sidecar(sidecar, self.config.overwrite).write_text(qml, "utf-8")
