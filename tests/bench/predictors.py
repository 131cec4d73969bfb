"""Ways to run the bundled model on the CPU: time per window, and whether the mask stays the same.

``plain`` is the network as it was trained, ``folded`` what lsmap runs, ``onnxruntime`` what
``lsmap detect --model model.onnx`` runs,
``int8`` the same quantised on half of the scene's windows.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import SCENE, print_table

from landslide_mapper.checkpoint import bundled_model, load_model
from landslide_mapper.export import ExportConfig, export
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.predictors import load_predictor

ROUNDS = 10
Predict = Callable[[np.ndarray], np.ndarray]


def plain(layout: torch.memory_format) -> Predict:
    """The network itself."""
    model = load_model(bundled_model())[0].to(memory_format=layout)

    def predict(windows: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(model(torch.from_numpy(windows))).numpy()

    return predict


def quantised(path: Path, windows: np.ndarray) -> Predict:
    """The ONNX model at `path` in int8, calibrated on `windows`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [window[None].astype(np.float32) / 255 for window in windows]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"images": self._left.pop()} if self._left else None

    target = path.with_name("int8.onnx")
    quantize_static(path, target, Calibration(), per_channel=True, activation_type=QuantType.QUInt8)
    return load_predictor(target, "cpu")[0]


def scene_windows(tile: int) -> np.ndarray:
    """The bundled scene, stretched, as uint8 windows (N, 3, tile, tile) side by side."""
    scene = open_scene(str(SCENE))
    with SceneReader(scene) as reader:
        image = fit(scene, "equalize").apply(*reader.read(0, 0, scene.height, scene.width))
    starts = range(0, scene.height - tile + 1, tile)
    return np.stack([image[:, r : r + tile, c : c + tile] for r in starts for c in starts])


def run() -> None:
    """Print the tables, with one and with two threads."""
    tile = load_model(bundled_model())[1].tile_size
    windows = scene_windows(tile)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as name:
            compare(windows, Path(name) / "model.onnx", threads)


def compare(windows: np.ndarray, path: Path, threads: int) -> None:
    """Print the table for this number of threads; the ONNX model is made at `path`."""
    with contextlib.redirect_stderr(io.StringIO()):
        export(ExportConfig(path, str(bundled_model())))
        int8 = quantised(path, windows[::2])
    folded, info = load_predictor(bundled_model(), "cpu")
    ways: dict[str, Predict] = {
        "plain": plain(torch.contiguous_format),
        "plain, channels last": plain(torch.channels_last),
        "folded (lsmap)": folded,
        "onnxruntime": load_predictor(path, "cpu")[0],
        "onnxruntime, int8": int8,
    }
    answers = {
        way: np.stack([predict(w[None])[0] for w in windows]) for way, predict in ways.items()
    }
    seconds = dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS):  # in turn, so that a busy machine is busy for all
        for way, predict in ways.items():
            began = time.perf_counter()
            predict(windows[:1])
            seconds[way] = min(seconds[way], time.perf_counter() - began)
    expected = answers["plain"]
    found = expected >= info.threshold
    rows = []
    for way, answer in answers.items():
        mask = answer >= info.threshold
        rows.append(
            (
                way,
                f"{1000 * seconds[way]:.1f}",
                f"{seconds[way] / seconds['plain, channels last']:.2f}",
                f"{np.abs(answer - expected).max():.1e}",
                str((mask != found).sum()),
                f"{(mask & found).sum() / (mask | found).sum():.4f}",
            )
        )
    print_table(
        f"{info.name}, one window of {windows.shape[-1]} pixels at a time, {threads} thread(s)",
        ("way", "ms", "ratio", "max |Δp|", f"pixels that differ of {found.size}", "IoU"),
        rows,
    )
