"""``lsmap explain``: where a model looks, as Grad-CAM of its branches on a scene or a tile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landslide_mapper import __version__
from landslide_mapper.checkpoint import ModelInfo, find_model, load_model
from landslide_mapper.device import choose_device, computes_bf16, enough_memory
from landslide_mapper.errors import LsmapError, note
from landslide_mapper.explanation.config import ExplainConfig
from landslide_mapper.explanation.heat import ZONES, HeatStore, Picture, save_overview
from landslide_mapper.explanation.passes import draw
from landslide_mapper.explanation.subject import Subject, find_subject
from landslide_mapper.geo.rasters import TAG
from landslide_mapper.geo.remote import is_local, without_query
from landslide_mapper.geo.scene_files import check_no_input
from landslide_mapper.geo.style import probability_qml
from landslide_mapper.nn.gradcam import GradCam, Target
from landslide_mapper.predictors import default_batch, is_onnx
from landslide_mapper.shell import in_qgis
from landslide_mapper.staging import Staging, check_targets, writing

__all__ = ["ExplainConfig", "ExplainReport", "explain"]


@dataclass(frozen=True)
class ExplainReport:
    """What was found and written.

    Attributes:
        folder, stem: where the files are, and what their names begin with.
        figures: the JSON file's content.
        files: all of them.
        scene: its file; empty for one that is none on this machine.
    """

    folder: Path
    stem: str
    figures: dict[str, Any]
    files: tuple[Path, ...]
    scene: tuple[str, ...]

    def summary(self) -> str:
        """The result in a few lines, for the terminal."""
        target, layers = self.figures["target"], self.figures["layers"]
        lines = [
            f"{target['pixels']:,.0f} pixels called landslide (p >= {target['threshold']:g}), "
            f"mean logit {target['mean_logit']:.2f}"
        ]
        columns = ["maximum_logit", *(f"mean_{zone}" for zone in ZONES), "heat_inside"]
        columns = [name for name in columns if name in next(iter(layers.values()))]
        lines.append("".join(f"{name.removeprefix('mean_'):>15}" for name in ("", *columns)))
        for layer, row in layers.items():
            cells = (_cell(row[name], name) for name in columns)
            lines.append(f"{layer:>15}" + "".join(f"{cell:>15}" for cell in cells))
        return "\n".join([*lines, *(f"  {path}" for path in self.files)])

    @property
    def overview(self) -> Path:
        """The picture with all layers side by side."""
        return self.folder / f"{self.stem}.png"

    def in_qgis(self) -> str:
        """How to see the last map, of all that is fused, over the scene in QGIS."""
        maps = [str(path) for path in self.files if path.suffix == ".tif"]
        return in_qgis(*self.scene, maps[-1])


def _cell(value: float | None, column: str) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if column == "maximum_logit" else f"{value:.1%}"


def explain(config: ExplainConfig) -> ExplainReport:
    """Make the Grad-CAM of every layer that the model's network names.

    Raises:
        LsmapError: bad options, an ONNX model, a scene that does not suit it,
            files that exist, or nothing that is called landslide. LsmapFailure: the work cannot
            be finished. Files are all there or none is.
    """
    device = choose_device(config.device)
    if config.model is not None and is_onnx(config.model):
        raise LsmapError(
            f"{config.model}: an ONNX model has no gradients; give the .safetensors model or the "
            "run that it was exported from"
        )
    path, why = find_model(config.model)
    with enough_memory(lambda: "give --device cpu"):
        network, info = load_model(path, device)
    note(f"model {info.name} ({why}: {path})")
    points = network.explained()
    threshold = info.threshold_or(config.threshold)
    subject = find_subject(config, info)
    targets = _targets(config, subject, tuple(points))
    cam = GradCam(network, points, threshold)
    batch = default_batch(device, subject.grid.tile)
    if computes_bf16(device):  # as `detect` does, but these passes are in float32
        batch = max(1, batch // 2)
    with _failures(config.output), Staging(config.output / subject.scene.stem) as staging:
        made = {name: staging.stage(target) for name, target in targets.items()}
        folder = staging.folder(next(iter(targets.values())))
        with HeatStore(folder, subject.frame, cam.names, subject.zones) as store:
            draw(cam, subject, batch, store)
            figures = _figures(config, info, cam.target(), threshold, store)
            _write(store, subject, figures, made, folder)
        staging.check(config.overwrite)
        staging.publish()
    scene = (subject.scene.gdal,) if is_local(subject.scene.gdal) else ()
    return ExplainReport(config.output, subject.scene.stem, figures, tuple(targets.values()), scene)


def _targets(config: ExplainConfig, subject: Subject, names: tuple[str, ...]) -> dict[str, Path]:
    """Every file by what it is, checked."""
    stem = subject.scene.stem
    ends = {"figures": ".json", "overview": ".png"}
    for name in names:
        ends |= {f"{name}{suffix}": f"_{name}{suffix}" for suffix in (".qml", ".tif", ".png")}
    targets = {what: config.output / f"{stem}{end}" for what, end in ends.items()}
    check_targets(targets.values() if config.output.exists() else [config.output], config.overwrite)
    check_no_input(targets.values(), [subject.scene], (config.labels, config.aoi))
    return targets


def _figures(
    config: ExplainConfig, info: ModelInfo, target: Target, threshold: float, store: HeatStore
) -> dict[str, Any]:
    return {
        "model": info.name,
        "source": without_query(config.source),
        "labels": config.labels,
        "target": {
            "threshold": threshold,
            "pixels": round(target.pixels, 2),
            "mean_logit": target.logit,
            "highest_probability": target.highest,
        },
        "layers": store.figures(),
        "lsmap_version": __version__,
    }


def _write(
    store: HeatStore,
    subject: Subject,
    figures: dict[str, Any],
    made: dict[str, Path],
    folder: Path,
) -> None:
    made["figures"].write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
    outlines = subject.zones.outlines if subject.zones else None
    image = Picture.of(subject.scene, subject.frame, outlines)
    titled = [("image" if outlines is None else "image and labels", image)]
    for index, name in enumerate(store.names):
        said = {f"{TAG}MODEL": figures["model"], f"{TAG}EXPLAINS": f"{name}, of its maximum"}
        store.write_raster(index, subject.scene, folder / "strips.tif", made[f"{name}.tif"], said)
        made[f"{name}.qml"].write_text(probability_qml(), "utf-8")
        heated = image.heated(made[f"{name}.tif"])
        heated.save(made[f"{name}.png"])
        maximum = figures["layers"][name]["maximum_logit"]
        titled.append((f"{name}, maximum {maximum:.3g} logits", heated))
    caption = f"Grad-CAM of {figures['model']} on {subject.scene.name}, each to its own maximum"
    save_overview(titled, caption, made["overview"])


@contextmanager
def _failures(output: Path) -> Iterator[None]:
    """What may happen on the way, as one line that says how to go on."""
    advice = "give --device cpu or a smaller part with --bbox"
    with writing(output, "the files"), enough_memory(lambda: advice):
        yield
