"""How much of `detect` is the network: wall time over windows × the time of one bare forward."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from common import fastest, mosaic, print_table

from landslide_mapper.checkpoint import bundled_model
from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.plan import DetectConfig, plan_detection
from landslide_mapper.predictors import load_predictor

REPEATS = 2


def run() -> None:
    """Print the table."""
    predict, info = load_predictor(bundled_model(), "cpu")
    shape = (1, info.band_count, info.tile_size, info.tile_size)
    window = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    predict(window)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, _ = mosaic(folder, REPEATS)
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
                # Before and after, so that a machine that slows down does not flatter.
                before = fastest(lambda: predict(window), 5)
                wall = fastest(lambda c=config: detect_with(c, predict, info), 2)
                forward = min(before, fastest(lambda: predict(window), 5))
            ratio = wall / (windows * forward)
            rows.append((label, str(windows), f"{forward:.3f}", f"{wall:.2f}", f"{ratio:.2f}"))
    print_table(
        f"detect with {info.name} on {REPEATS * 1024} x {REPEATS * 1024} pixels, CPU",
        ("outputs", "windows", "forward s", "wall s", "wall / (windows x forward)"),
        rows,
    )
