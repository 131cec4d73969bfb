"""The work on blocks spread over a Dask cluster, or over processes of this machine.

The scheduler sees names of blocks, never pixels: workers read the scene themselves and write
parts to the store. A worker that dies is survived: what it had not kept is done by another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rasterio.errors import RasterioError
from tqdm import tqdm

from landslide_mapper.errors import LsmapError, LsmapFailure, note
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.geo.blocks import Block, runs
from landslide_mapper.mapping.store import Store, open_store
from landslide_mapper.mapping.work import Loader, SceneWork

if TYPE_CHECKING:
    from distributed import Client

TASKS_PER_WORKER = 2  # few, as each predicts the windows along its upper side once more
PATIENCE = 20  # seconds for the scheduler to answer
RETRIES = 3  # of a task whose worker died


def map_on_cluster(
    workers: int | None,
    address: str | None,
    load: Loader,
    todo: Sequence[tuple[SceneWork, list[Block]]],
    store: Store,
) -> None:
    """Make the parts of all blocks of `todo`, on `workers` processes or on a cluster.

    Args:
        workers: processes of this machine; None with `address`.
        address: of a Dask scheduler, e.g. ``tcp://10.0.0.1:8786``.
        load: makes the predictor; called once in each worker.
        todo: blocks per scene.
        store: must be the same place for all workers.

    Raises:
        LsmapError: Dask is not installed, the scheduler does not answer, or whatever a block
            raises. LsmapFailure: workers kept dying.
    """
    try:
        from distributed import KilledWorker, as_completed
    except ImportError as error:
        raise LsmapError(
            "--workers and --dask need Dask; install it with: pip install 'lsmap[distributed]'"
        ) from error
    with _client(workers, address) as client:
        count = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        blocks = sum(len(blocks) for _, blocks in todo)
        longest = max(1, blocks // (TASKS_PER_WORKER * count))
        futures = {
            client.submit(_map_run, work, run, load, store.url, pure=False, retries=RETRIES): run
            for work, blocks in todo
            for run in runs(blocks, longest)
        }
        note(f"{blocks} blocks in {len(futures)} tasks on {count} workers: {client.dashboard_link}")
        try:
            with tqdm(total=blocks, unit=" blocks", disable=None) as bar:
                for future in as_completed(futures):
                    failure = future.result()
                    if failure is not None:
                        raise failure
                    bar.update(len(futures[future]))
        except KilledWorker as error:
            raise LsmapFailure(
                "workers died again and again, most likely for want of memory; give a smaller "
                "--batch-size or fewer workers, and run the same command again"
            ) from error
        finally:
            client.cancel(list(futures))


@dataclass(frozen=True)
class KeptModel:
    """A loader: the predictor of a model file that lies in the store at `url`."""

    url: str
    name: str
    digest: str
    device: str

    def __call__(self) -> Predictor:
        """Load it, on the worker's own GPU if there are several."""
        from landslide_mapper.predictors import load_predictor

        with TemporaryDirectory(prefix="lsmap-") as folder:
            path = Path(folder) / self.name
            path.write_bytes(open_store(self.url).read(self.name))
            return load_predictor(path, _own_device(self.device))[0]


def _own_device(device: str) -> str:
    """One GPU for each worker of this machine."""
    import torch
    from distributed import get_worker

    name = str(get_worker().name)  # processes of a LocalCluster are numbered
    count = torch.cuda.device_count()
    if device in ("auto", "cuda") and count > 1 and name.isdigit():
        return f"cuda:{int(name) % count}"
    return device


def _map_run(work: SceneWork, run: list[Block], load: Loader, url: str) -> LsmapError | None:
    """What a worker does: the blocks of a run that are not there yet.

    Returns what went wrong, in words: causes that GDAL or torch raised cannot travel.
    """
    try:
        _map_missing(work, run, load, url)
    except LsmapError as error:
        return type(error)(str(error))
    except (OSError, RasterioError) as error:
        return LsmapFailure(f"a worker could not go on: {' '.join(str(error).split())}")
    return None


def _map_missing(work: SceneWork, run: list[Block], load: Loader, url: str) -> None:
    store = open_store(url)
    done = store.names()  # an earlier try may have come half way
    predict = _predictor(load)
    work = work.sized(predict)
    for piece in runs([block for block in run if work.part_name(block) not in done]):
        work.map_run(piece, predict, store)


@lru_cache(maxsize=1)
def _predictor(load: Loader) -> Predictor:
    return load()


@contextmanager
def _client(workers: int | None, address: str | None) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    if address:
        try:
            client = Client(address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise LsmapError(f"--dask {address}: no scheduler answers there ({error})") from error
        with client:
            yield client
        return
    threads = max(1, (os.cpu_count() or 1) // (workers or 1))
    with (
        TemporaryDirectory(prefix="lsmap-") as folder,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # blocks bound the memory; Dask would kill workers on large machines
            local_directory=folder,
            dashboard_address=":0",
            env={"OMP_NUM_THREADS": str(threads)},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
