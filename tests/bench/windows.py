"""How much of `detect` is the network: wall time over windows × the time of one bare forward.

On a CPU the bundled model maps 4096 × 4096 pixels. Where there is CUDA, it and a network of the
paper's size (with random weights) map 16384 × 16384, and the bare forward is that of the captured
graph alone, at the predictor's batch size: no window travels to the device or back.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import mosaic, print_table

from landslide_mapper.checkpoint import ModelInfo, bundled_model, save_model
from landslide_mapper.config import ModelConfig
from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.plan import plan_detection
from landslide_mapper.nn.build import build
from landslide_mapper.nn.on_cuda import CudaPredictor
from landslide_mapper.predictors import load_predictor

SIDES = {"cpu": 4096, "cuda": 16384}
OUTPUTS = {
    "polygons": {},
    "polygons, mask, probability": {"mask": "m.tif", "probability": "p.tif"},
}

# Seconds of so many bare answers.
Bare = Callable[[int], float]


def run(device: str | None = None, side: int | None = None) -> None:
    """Print the table; by default on CUDA if there is any."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    side = side or SIDES[device]
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, _ = mosaic(folder, side // 1024)
        for model in _models(folder, device):
            predict, info = load_predictor(model, device)
            batch = getattr(predict, "batch_size", 1)
            bare = _bare_on_cuda(predict, info) if device == "cuda" else _bare(predict, info)
            bare(batch)
            for label, extra in OUTPUTS.items():
                config = DetectConfig(
                    scenes=(str(scene),),
                    output=folder / "slides.gpkg",
                    overwrite=True,
                    gsd="native",
                    **{kind: folder / file for kind, file in extra.items()},
                )
                rows.append((info.name, label, str(batch), *_ratio(config, predict, info, bare)))
                print(*rows[-1], file=sys.stderr, flush=True)  # should time be up before the table
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print_table(
        f"detect on {side} x {side} pixels, {where}",
        ("model", "outputs", "batch", "windows", "bare forwards s", "detect s", "ratio"),
        rows,
    )


def _models(folder: Path, device: str) -> Iterator[Path]:
    yield bundled_model()
    if device == "cuda":
        torch.manual_seed(0)
        config = ModelConfig()
        # Nothing is as sure as that of random weights: no polygons, the network's time counts.
        info = ModelInfo("paper's size", config, (1, 2, 3), "equalize", 512, None, 0.999)
        save_model(build(config), info, folder / "paper.safetensors")
        yield folder / "paper.safetensors"


def _ratio(config: DetectConfig, predict: Any, info: ModelInfo, bare: Bare) -> tuple[str, ...]:
    with contextlib.redirect_stderr(io.StringIO()):
        windows = plan_detection(config, info)[0].grid.count
        # Half before and half after, so that a machine that slows down does not flatter.
        forwards = bare(windows // 2)
        wall = detect_with(config, predict, info).seconds
        forwards += bare(windows - windows // 2)
    return str(windows), f"{forwards:.1f}", f"{wall:.1f}", f"{wall / forwards:.3f}"


def _bare(predict: Any, info: ModelInfo) -> Bare:
    shape = (1, info.band_count, info.tile_size, info.tile_size)
    window = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)

    def forwards(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            predict(window)
        return time.perf_counter() - began

    return forwards


def _bare_on_cuda(predict: CudaPredictor, info: ModelInfo) -> Bare:
    shape = (predict.batch_size, info.band_count, info.tile_size, info.tile_size)
    predict(np.ones(shape, np.uint8))
    graph = predict.captured(shape)

    def forwards(count: int) -> float:
        batches = -(-count // predict.batch_size)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(batches):
            graph.replay()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) * count / (batches * predict.batch_size)

    return forwards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=list(SIDES))
    parser.add_argument("--side", type=int, help="pixels a side")
    run(**vars(parser.parse_args()))
