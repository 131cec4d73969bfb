"""How much of `detect` is the network: wall time over windows × the time of one bare forward."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import mosaic, print_table

from landslide_mapper.checkpoint import bundled_model
from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.plan import DetectConfig, plan_detection
from landslide_mapper.predictors import load_predictor

SIDE = 4096


def run(side: int = SIDE) -> None:
    """Print the table."""
    predict, info = load_predictor(bundled_model(), "cpu")
    shape = (1, info.band_count, info.tile_size, info.tile_size)
    window = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    predict(window)

    def forwards(count: int) -> float:
        """Seconds of bare answers to `count` windows."""
        began = time.perf_counter()
        for _ in range(count):
            predict(window)
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, _ = mosaic(folder, side // 1024)
        rows = []
        for label, extra in (
            ("polygons", {}),
            ("polygons, mask, probability", {"mask": "m.tif", "probability": "p.tif"}),
        ):
            config = DetectConfig(
                scenes=(str(scene),),
                output=folder / "slides.gpkg",
                overwrite=True,
                **{kind: folder / file for kind, file in extra.items()},
            )
            with contextlib.redirect_stderr(io.StringIO()):
                windows = plan_detection(config, info)[0].grid.count
                # Half before and half after, so that a machine that slows down does not flatter.
                bare = forwards(windows // 2)
                wall = detect_with(config, predict, info).seconds
                bare += forwards(windows - windows // 2)
            rows.append((label, str(windows), f"{bare:.1f}", f"{wall:.1f}", f"{wall / bare:.3f}"))
    print_table(
        f"detect with {info.name} on {side} x {side} pixels, {torch.get_num_threads()} CPU threads",
        ("outputs", "windows", "bare forwards s", "detect s", "ratio"),
        rows,
    )


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
