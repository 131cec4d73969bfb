"""Two Dask workers with a thread each against one process with one thread, with the real network.

Both are warm: imports are done and the model has answered once. The scene repeats the bundled
one. The files must be identical. What the machine itself gives is measured too: the bare network
on both workers at once against one, as processors may share caches, memory or even a core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from common import ONE_THREAD, mosaic, print_table

SIDE = 8192
WARM = 3072  # pixels a side; enough blocks for each worker to get one
WORKERS = 2
BARE_SECONDS = 10


def run(side: int = SIDE) -> None:
    """Print the table."""
    os.environ.update(ONE_THREAD)  # before torch is imported, here and in the workers
    from landslide_mapper.mapping.cluster import local_cluster

    with tempfile.TemporaryDirectory() as name, local_cluster(WORKERS) as cluster:
        folder = Path(name)
        small, _ = mosaic(folder, WARM // 1024)
        scene, _ = mosaic(folder, side // 1024)
        address = str(cluster.scheduler_address)
        ways = {"1 process": {}, f"{WORKERS} Dask workers": {"dask": address}}
        ceiling = _ceiling(address)
        seconds, made = {}, []
        for label, options in ways.items():
            _detect(str(small), folder / "warm.gpkg", options)
            seconds[label] = _detect(str(scene), folder / "slides.gpkg", options)
            made.append((folder / "slides.gpkg").read_bytes())
    if made[0] != made[1]:
        raise AssertionError("the two ways wrote different files")
    first = next(iter(seconds.values()))
    print_table(
        f"detect on {side} x {side} pixels, one thread each, {os.cpu_count()} processors",
        ("way", "seconds", "speed-up"),
        [
            *((label, f"{s:.1f}", f"{first / s:.2f}") for label, s in seconds.items()),
            (f"bare network, {WORKERS} at once", "", f"{ceiling:.2f}"),
        ],
    )


def _ceiling(address: str) -> float:
    """How much more windows the bare network answers on all workers than on one."""
    from distributed import Client

    with Client(address) as client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        rates = []
        for chosen in (workers, workers[:1], workers):
            jobs = [client.submit(_bare, workers=[one], pure=False) for one in chosen]
            rates.append(sum(client.gather(jobs)))
    return (rates[0] + rates[2]) / 2 / rates[1]


def _bare() -> float:
    """Windows per second of the bundled network."""
    import numpy as np

    from landslide_mapper.checkpoint import bundled_model
    from landslide_mapper.predictors import load_predictor

    predict, info = load_predictor(bundled_model(), "cpu")
    window = np.ones((1, info.band_count, info.tile_size, info.tile_size), np.uint8)
    predict(window)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < BARE_SECONDS:
        predict(window)
        count += 1
    return count / (time.perf_counter() - began)


def _detect(scene: str, output: Path, options: dict[str, str]) -> float:
    """Wall seconds of one run."""
    from landslide_mapper.checkpoint import bundled_model
    from landslide_mapper.detect import DetectConfig, detect

    given = {"model": str(bundled_model()), "device": "cpu", "overwrite": True}
    began = time.perf_counter()
    detect(DetectConfig((scene,), output, **given, **options))
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=SIDE, help="pixels a side")
    run(parser.parse_args().side)
