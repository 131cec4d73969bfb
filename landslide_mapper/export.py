"""``lsmap export``: a model as an ONNX file for other tools, GeoDeep and Deepness (QGIS) above all.

Both feed windows as float32 0..1 (pixel value / 255), want the probability of each class from a
graph that does all else itself, and read what else they need from the file's metadata.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rasterio.enums import MaskFlags
from torch import Tensor

from landslide_mapper.checkpoint import ModelInfo, find_model, load_model
from landslide_mapper.errors import LsmapError, LsmapFailure, note, warn
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import Scene, open_raster, open_scene
from landslide_mapper.geo.scene_info import band_list
from landslide_mapper.nn.portable import PortableModel, SceneStretch
from landslide_mapper.predictors import ONNX_SUFFIX, SCENE_KEY, is_onnx
from landslide_mapper.serving import odd_order, refusal
from landslide_mapper.shell import command_line, mapping_command
from landslide_mapper.staging import Staging, check_targets, writing

if TYPE_CHECKING:
    import onnx

OPSETS = (18, 23)  # from the least that torch writes to the highest that this was tested with
OVERLAP = 25  # percent of the window, as lsmap detect itself has it
TOLERANCE = 1e-4  # of probabilities; the file is refused beyond


@dataclass(frozen=True)
class ExportConfig:
    """What was asked for.

    Attributes:
        output: the ONNX file.
        model: model file or run folder; None: the newest run, else the bundled model.
        opset: version of the ONNX operators.
        scene: raster whose own stretch goes into the graph; None: feed stretched pixels.
        overwrite: replace `output` if it exists.
    """

    output: Path
    model: str | None = None
    opset: int = OPSETS[0]
    scene: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its probabilities are from the network's."""

    output: Path
    source: Path
    info: ModelInfo
    scene: Scene | None
    difference: float

    def summary(self) -> str:
        """The result in a few lines, for the terminal."""
        tile = self.info.tile_size
        return (
            f"{self.info.name} ({self.source}), windows of {tile} x {tile} pixels, threshold "
            f"{self.info.threshold:g}; checked with onnxruntime: probabilities within "
            f"{self.difference:.1e} of lsmap's\n  {self.output}"
        )

    def next_command(self) -> str:
        """The command that uses the file."""
        if self.scene is not None:
            return command_line("geodeep", self.scene.path, str(self.output))
        return mapping_command(str(self.output))


def export(config: ExportConfig) -> ExportReport:
    """Write the model as ONNX and check it against the network.

    Raises:
        LsmapError: no such model, the extra ``onnx`` is not installed, the output exists or
            cannot be made, or the scene does not suit the model. LsmapFailure: the file could
            not be made or does not predict what the network does. Nothing is left behind then.
    """
    _check(config)
    source, _ = find_model(config.model)
    model, info = load_model(source)
    scene = _open_scene(config.scene, info) if config.scene else None
    graph = PortableModel(model, _stretch_of(scene, info) if scene else None).eval()
    entries = metadata(info, scene)
    _say_what_to_feed(info, scene)
    with writing(config.output, "the model"), Staging(config.output) as staging:
        made = staging.stage(config.output)
        _write(graph, info, config.opset, entries, made)
        difference = _compare(graph, info, made)
        staging.check(config.overwrite)
        staging.publish()
    return ExportReport(config.output, source, info, scene, difference)


def metadata(info: ModelInfo, scene: Scene | None = None) -> dict[str, str]:
    """The entries of the ONNX file: those of GeoDeep and Deepness as JSON, then lsmap's own.

    Lengths are in centimetres, overlaps in percent of the window.
    """
    entries: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "landslide"},
        "tiles_size": info.tile_size,
        "tile_size": info.tile_size,  # Deepness's documents say the former, its code the latter
        "tiles_overlap": OVERLAP,
        "seg_thresh": info.threshold,
        "seg_small_segment": 0,  # remove and smooth nothing that was not asked for
        "standardization_mean": [0.0] * info.band_count,  # the graph itself normalises
        "standardization_std": [1.0] * info.band_count,
    }
    if info.gsd is not None:
        entries["resolution"] = round(100 * info.gsd, 2)
    texts = {key: json.dumps(value) for key, value in entries.items()}
    if scene is not None:
        texts[SCENE_KEY] = scene.name
    return texts | info.to_metadata()


def _check(config: ExportConfig) -> None:
    if not is_onnx(config.output):
        raise LsmapError(f"{config.output}: give a name that ends with {ONNX_SUFFIX}")
    if not OPSETS[0] <= config.opset <= OPSETS[1]:
        raise LsmapError(f"--opset {config.opset}: give {OPSETS[0]} to {OPSETS[1]}")
    if config.model is not None and is_onnx(config.model):
        raise LsmapError(f"{config.model} is ONNX already; give the .safetensors model or a run")
    check_targets([config.output], config.overwrite)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LsmapError(
            f"lsmap export needs {error.name}; install it with: pip install 'lsmap[onnx]'"
        ) from error


def _open_scene(path: str, info: ModelInfo) -> Scene:
    """The scene whose stretch is wanted.

    Tools that read it feed what they take for red, green and blue, and know nothing of pixels that
    are not seen but by a nodata value.

    Raises:
        LsmapError: it cannot be opened, its pixels are not uint8, or its bands are not the model's
            in their order.
    """
    scene = open_scene(path)
    if scene.dtype != "uint8":
        raise LsmapError(
            f"{path}: its pixels are {scene.dtype}; only a stretch of uint8 can be put into the "
            "graph: export without --scene and feed stretched pixels"
        )
    if refusal(scene, info) or odd_order(scene, info):
        wanted = "red, green, blue" if len(info.bands) == 3 else f"bands {band_list(info.bands)}"
        order = " ".join(f"-b {band}" for band in scene.rgb or info.bands)
        raise LsmapError(
            f"{path}: its bands are {', '.join(scene.colours)}, the model wants {wanted}; "
            f"reorder them first: gdal_translate {order} INPUT OUTPUT.tif"
        )
    scene = open_scene(path, info.bands)
    with open_raster(scene) as raster:
        flags = {flag for band in scene.bands for flag in raster.mask_flag_enums[band - 1]}
    masked = MaskFlags.per_dataset in flags and MaskFlags.nodata not in flags
    if masked or MaskFlags.alpha in flags:
        warn(
            f"{path}: other tools feed its transparent pixels as if they had been seen, and map "
            "there and beside it what lsmap does not; give them a value first: "
            "gdalwarp -dstnodata 0 INPUT OUTPUT.tif"
        )
    return scene


def _stretch_of(scene: Scene, info: ModelInfo) -> SceneStretch:
    """The model's stretch, fitted to `scene`, whose pixels are uint8.

    Raises:
        LsmapError: a scene without valid pixels.
    """
    levels = np.tile(np.arange(256, dtype=np.uint8), (len(scene.bands), 1))
    everywhere = np.ones((1, 256), dtype=bool)
    tables = fit(scene, info.radiometry).apply(levels[:, None], everywhere)[:, 0]
    return SceneStretch(tables, _nodata(scene))


def _nodata(scene: Scene) -> np.ndarray:
    """Nodata value per band, 0 where there is none among uint8."""
    with open_raster(scene) as raster:
        values = [raster.nodatavals[band - 1] for band in scene.bands]
    return np.array([value if value in range(256) else 0 for value in values], dtype=np.int64)


def _say_what_to_feed(info: ModelInfo, scene: Scene | None) -> None:
    if scene is not None:
        note(f"the stretch is that of {scene.name}: feed raw pixels of this scene and of no other")
    elif info.radiometry != "none":
        note(
            f"the model was trained on pixels stretched with {info.radiometry!r}: feed pixels "
            "stretched that way, or give --scene to put a scene's own stretch into the graph"
        )
    if info.band_count != 3:
        note(f"the model takes {info.band_count} bands; GeoDeep feeds three, no more and no less")
    if info.gsd is None:
        note("the model does not know its pixel size; set the resolution in the tool that uses it")


def _write(
    graph: PortableModel, info: ModelInfo, opset: int, entries: dict[str, str], path: Path
) -> None:
    """Trace the network and write it to `path`, weights included, any number of windows."""
    import onnx

    shape = (2, info.band_count, info.tile_size, info.tile_size)
    program: Any = _trace(graph, torch.rand(shape), opset)
    made: onnx.ModelProto = program.model_proto
    # As old a format as the operators allow, for the onnxruntime that a tool brings along.
    made.ir_version = onnx.helper.find_min_ir_version_for(list(made.opset_import))
    made.producer_name = "lsmap"
    made.doc_string = _description(info, entries.get(SCENE_KEY))
    _forget_origin(made)
    onnx.helper.set_model_props(made, entries)
    onnx.checker.check_model(made)
    onnx.save(made, path)


def _forget_origin(made: onnx.ModelProto) -> None:
    """Drop what torch notes of the source code, its paths on this machine among it."""
    graph = made.graph
    nodes = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *(item for group in nodes for item in group)):
        del part.metadata_props[:]
        part.doc_string = ""


def _trace(graph: PortableModel, images: Tensor, opset: int) -> Any:
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                graph,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=["images"],
                output_names=["classes"],
                dynamic_shapes=({0: torch.export.Dim("windows")},),
            )
    finally:
        noisy.setLevel(level)


def _description(info: ModelInfo, scene: str | None) -> str:
    if scene is not None:
        feed = f"raw pixels of {scene}, whose stretch ({info.radiometry}) is inside, divided by 255"
    elif info.radiometry == "none":
        feed = "pixels of 8 bits divided by 255"
    else:
        feed = f"pixels stretched to 1..255 with {info.radiometry} by lsmap, divided by 255"
    return (
        f"{info.name}: landslide probability in channel 1 of the output (channel 0 is always 0). "
        f"Feed {feed}; 0 in all bands where nothing was seen. Bands of the training scenes: "
        f"{', '.join(map(str, info.bands))}. Trained on: {info.data or 'not known'}"
    )


def _compare(graph: PortableModel, info: ModelInfo, path: Path) -> float:
    """Largest difference in probability between the file and the network.

    Raises:
        LsmapFailure: it is more than rounding.
    """
    import onnxruntime

    shape = (1, info.band_count, info.tile_size, info.tile_size)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32) / np.float32(255)
    images[..., : info.tile_size // 4] = 0  # not seen
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = graph(torch.from_numpy(images)).numpy()
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise LsmapFailure(
            f"the ONNX model is off by {difference:.1e} from the network and was not written; "
            "try another --opset, or other versions of torch and onnxruntime"
        )
    return difference
