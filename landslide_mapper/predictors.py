"""Model files as functions from windows to probabilities, as fast as the device allows.

Three kinds: torch on the CPU, torch on CUDA, and onnxruntime for models that ``lsmap export``
wrote. The same windows in the same batch give the same bits on every call, in every process
with the same number of threads, on the same machine; an interrupted run relies on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from landslide_mapper.checkpoint import ModelInfo, load_model, read_info
from landslide_mapper.device import choose_device, computes_bf16
from landslide_mapper.errors import LsmapError, LsmapFailure, note, one_line
from landslide_mapper.nn.mirror import shown

if TYPE_CHECKING:
    import torch
    from onnxruntime import InferenceSession

    from landslide_mapper.nn.network import Network

ONNX_SUFFIX = ".onnx"
SCENE_KEY = "lsmap_scene"
"""Entry of an ONNX model that holds the stretch of one scene: the name of that scene."""

MAX_BATCH = 64  # more fills no card better, and answers come late
# Device memory per pixel of a batch. The widest layer of the largest network (ResNet-101, bf16)
# reads and writes 128 bytes per pixel of the window; the rest is for the shortcut beside it and
# for the workspace of the convolutions.
BYTES_PER_PIXEL = 1024


class ModelPredictor(Protocol):
    """uint8 images (N, B, H, W) → landslide probability float32 (N, H, W).

    0 in every band is a pixel that was not seen. On CUDA there is a method `stream` as well: an
    iterator of batches → an iterator of answers, in order, that works ahead.

    Attributes:
        device: where it runs.
        batch_size: windows to give it at once.
    """

    device: torch.device
    batch_size: int

    def __call__(self, images: np.ndarray, /) -> np.ndarray:
        """Predict one batch."""


def load_predictor(
    path: Path | str, device: str = "auto", tile_size: int | None = None
) -> tuple[ModelPredictor, ModelInfo]:
    """Load a model as a function from images to probabilities.

    Args:
        path: a model of lsmap, safetensors or ONNX. H and W of the images must be multiples of
            8; those of an ONNX model must be its tile size.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. On CUDA the network runs in bf16 (on
            GPUs that have it), on the CPU in float32 with torch's number of threads. ONNX models
            run on the CPU.
        tile_size: side of the windows that it will be given; None: the model's.

    Raises:
        LsmapError: see `info_of`, `landslide_mapper.checkpoint.load_model` and
            `landslide_mapper.device.choose_device`; an ONNX model for CUDA, or one that holds a
            scene's own stretch.
    """
    target = choose_device(device)
    if is_onnx(path):
        return _load_onnx(Path(path), device), info_of(path)
    from landslide_mapper.nn.folding import fold

    model, info = load_model(path)
    network = fold(model)
    if target.type == "cuda":
        from landslide_mapper.nn.on_cuda import CudaPredictor

        batch = default_batch(target, tile_size or info.tile_size)
        return CudaPredictor(network, target, batch), info
    return CpuPredictor(network), info


def info_of(path: Path | str) -> ModelInfo:
    """Read what a model file, safetensors or ONNX, says about itself.

    Raises:
        LsmapError: missing, of neither kind, not a model of lsmap, or onnxruntime is missing.
    """
    if not is_onnx(path):
        return read_info(path)
    return ModelInfo.from_metadata(onnx_metadata(_open_session(Path(path))), str(path))


def scene_inside(path: Path | str) -> str | None:
    """The scene whose stretch an ONNX model holds, None for none.

    Raises:
        LsmapError: see `info_of`.
    """
    return onnx_metadata(_open_session(Path(path))).get(SCENE_KEY) if is_onnx(path) else None


def default_batch(device: torch.device, tile_size: int) -> int:
    """Windows at once: 1 on the CPU; on CUDA what half of the free memory holds, at most 64.

    A power of two, so that a few more megabytes of free memory change nothing.
    """
    if device.type != "cuda":
        return 1
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    # Where there is no bf16 the network runs in float32, which takes twice as much.
    return largest_batch(free if computes_bf16(device) else free // 2, tile_size)


def largest_batch(free: int, tile_size: int) -> int:
    """The power of two of windows, 1 to 64, that half of `free` bytes of device memory holds."""
    fits = free // 2 // (BYTES_PER_PIXEL * tile_size**2)
    return 1 << (max(1, min(fits, MAX_BATCH)).bit_length() - 1)


class CpuPredictor:
    """A folded network on the CPU, in float32; one window at a time is fastest."""

    batch_size = 1

    def __init__(self, network: Network) -> None:
        import torch

        self.device = torch.device("cpu")
        self._network = network.to(memory_format=torch.channels_last)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predict one batch."""
        import torch

        images = shown(images, self._network.config.unseen)
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(np.ascontiguousarray(images)))
            return torch.sigmoid(logits).numpy()


class OnnxPredictor:
    """A model of ``lsmap export`` under onnxruntime on the CPU, for windows of its tile size."""

    batch_size = 1

    def __init__(self, session: InferenceSession, unseen: str) -> None:
        import torch

        self.device = torch.device("cpu")
        self._session = session
        self._unseen = unseen
        self._input = session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Predict one batch.

        Raises:
            LsmapFailure: what the graph gives are no probabilities.
        """
        shares = shown(images, self._unseen).astype(np.float32) / np.float32(255)
        (answer,) = self._session.run(None, {self._input: shares})
        if not (answer.min() >= 0 and answer.max() <= 1):  # nor is NaN
            raise LsmapFailure(
                f"the ONNX model gives {answer.min():g} to {answer.max():g}, which are no "
                "probabilities: it was changed after lsmap exported it, or is damaged"
            )
        return np.ascontiguousarray(answer[:, 1])  # channel 0 is the background


def onnx_metadata(session: InferenceSession) -> Mapping[str, str]:
    """The entries that an ONNX model carries beside its graph."""
    return session.get_modelmeta().custom_metadata_map


def is_onnx(path: Path | str) -> bool:
    """Whether the name is that of an ONNX file."""
    return Path(path).suffix.lower() == ONNX_SUFFIX


def _load_onnx(path: Path, device: str) -> OnnxPredictor:
    import torch

    if device.startswith("cuda"):
        raise LsmapError(
            f"{path}: ONNX models run on the CPU here; for --device {device} give the "
            ".safetensors model that it was exported from"
        )
    session = _open_session(path, torch.get_num_threads())
    scene = onnx_metadata(session).get(SCENE_KEY)
    if scene is not None:  # see `scene_inside`
        raise LsmapError(
            f"{path} holds the stretch of {scene} for tools that feed raw pixels; lsmap "
            "stretches each scene itself: give a model that was exported without --scene"
        )
    info = ModelInfo.from_metadata(onnx_metadata(session), str(path))
    _check_graph(path, session, info)
    if torch.cuda.is_available():
        note(f"{path}: ONNX models run on the CPU; the .safetensors model would use the GPU")
    return OnnxPredictor(session, info.model.unseen)


def _check_graph(path: Path, session: InferenceSession, info: ModelInfo) -> None:
    """Raise `LsmapError` unless the graph takes and gives what its metadata says."""
    side = info.tile_size
    wanted = ([None, info.band_count, side, side], [None, 2, side, side])
    found = (session.get_inputs(), session.get_outputs())
    for what, shape, nodes in zip(("takes", "gives"), wanted, found, strict=True):
        own = nodes[0].shape if len(nodes) == 1 else []
        # Sizes that are left open have names, not numbers.
        fits = len(own) == 4 and all(
            a is None or not isinstance(b, int) or a == b for a, b in zip(shape, own, strict=True)
        )
        if not fits:
            raise LsmapError(
                f"{path} {what} {own}, where its metadata says {['n', *shape[1:]]}: it is damaged, "
                "or was changed after lsmap exported it; export the model again"
            )


def _open_session(path: Path, threads: int | None = None) -> InferenceSession:
    """Open an ONNX model: with `threads` to predict, without only to look at it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise LsmapError(
            f"{path}: ONNX models need onnxruntime; install it with: pip install 'lsmap[onnx]'"
        ) from error
    if not path.is_file():
        raise LsmapError(f"model {path} does not exist")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    options.intra_op_num_threads = threads or 1
    if threads is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base but this
        raise LsmapError(f"{path} is not an ONNX model: {one_line(error)}") from error
