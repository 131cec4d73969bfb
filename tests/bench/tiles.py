"""`prepare` with one and two workers on a scene of 16 times the bundled one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import fastest, mosaic, print_table

from landslide_mapper.prepare import PrepareConfig, prepare

REPEATS = 4
TILE = 256


def run() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, labels = mosaic(folder, REPEATS)

        def work(workers: int) -> int:
            config = PrepareConfig(
                output=folder / "dataset",
                scenes=(str(scene),),
                labels=str(labels),
                tile_size=TILE,
                negatives="all",
                workers=workers,
                overwrite=True,
            )
            report = prepare(config)
            return sum(split["tiles"] for split in report.info["counts"].values())

        tiles = work(1)
        seconds = {workers: fastest(lambda w=workers: work(w), 2) for workers in (1, 2)}
    print_table(
        f"prepare: {tiles} tiles of {TILE} x {TILE} pixels",
        ("workers", "seconds", "tiles/s", "speed-up"),
        [
            (str(w), f"{s:.2f}", f"{tiles / s:.0f}", f"{seconds[1] / s:.2f}")
            for w, s in seconds.items()
        ],
    )
