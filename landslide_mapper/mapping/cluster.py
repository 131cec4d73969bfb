"""The work on blocks spread over a Dask cluster, or over processes of this machine.

The scheduler sees names of blocks, never pixels: workers read the scene themselves and write
parts to the store. A worker that dies is survived: what it had not kept is done by another.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rasterio.errors import RasterioError
from tqdm import tqdm

from landslide_mapper.errors import LsmapError, LsmapFailure, note, one_line
from landslide_mapper.geo.blend import Predictor
from landslide_mapper.geo.blocks import Block, stacks
from landslide_mapper.mapping.store import Store, open_store
from landslide_mapper.mapping.work import Loader, SceneWork

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

TASKS_PER_WORKER = 8  # at most; the more there are, the less a slow worker is waited for
ROWS_PER_TASK = 20  # rows of windows, at least; a task predicts the one above its own once more
PATIENCE = 20  # seconds for the scheduler to answer
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, from malloc.h
RETRIES = 3  # of a task that raised: shared storage may hiccup

ONE_AT_A_TIME = threading.Lock()  # a worker of many threads has one predictor, not made for them

Task = list[tuple[SceneWork, list[Block]]]


def map_on_cluster(
    workers: int | None,
    address: str | None,
    load: Loader,
    todo: Sequence[tuple[SceneWork, list[Block]]],
    store: Store,
    on_task: Callable[[], object],
) -> None:
    """Make the parts of all blocks of `todo`, on `workers` processes or on a cluster.

    Args:
        workers: processes of this machine; None with `address`.
        address: of a Dask scheduler, e.g. ``tcp://10.0.0.1:8786``.
        load: makes the predictor; called once in each worker.
        todo: blocks per scene.
        store: must be the same place for all workers.
        on_task: called after each task.

    Raises:
        LsmapError: Dask is not installed, the scheduler does not answer, or whatever a block
            raises. LsmapFailure: workers kept dying.
    """
    try:
        from distributed import KilledWorker, as_completed
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise LsmapError(
            "--workers and --dask need Dask; install it with: pip install 'lsmap[distributed]'"
        ) from error
    with _client(workers or 1, address) as client:
        count = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        blocks = sum(len(blocks) for _, blocks in todo)
        futures = {
            client.submit(_map_task, task, load, store.url, pure=False, retries=RETRIES): task
            for task in share_out(todo, count)
        }
        note(f"{blocks} blocks in {len(futures)} tasks on {count} workers: {client.dashboard_link}")
        try:
            with tqdm(total=blocks, unit=" blocks", disable=None) as bar:
                for future in as_completed(futures):
                    failure = future.result()
                    if failure is not None:
                        raise failure
                    on_task()
                    bar.update(sum(len(blocks) for _, blocks in futures[future]))
        except (CancelledError, CommClosedError) as error:
            raise LsmapFailure(
                "the Dask scheduler has gone; start it and its workers again, and run the same "
                "command again: finished parts will be used"
            ) from error
        except KilledWorker as error:
            raise LsmapFailure(
                "workers died again and again, most likely for want of memory; give a smaller "
                "--batch-size or fewer workers, and run the same command again"
            ) from error
        finally:
            with suppress(CommClosedError):
                client.cancel(list(futures))


def share_out(todo: Sequence[tuple[SceneWork, list[Block]]], workers: int) -> list[Task]:
    """Nearly equal tasks, the same number for each worker as far as there are blocks."""
    ordered = [
        (work, block) for work, blocks in todo for stack in stacks(blocks) for block in stack
    ]
    rows = sum(len(work.layout.grid.span(block.frame).rows) for work, block in ordered)
    each = min(TASKS_PER_WORKER, max(1, rows // (ROWS_PER_TASK * workers)))
    count = min(each * workers, len(ordered))
    cuts = [len(ordered) * number // count for number in range(count + 1)]
    return [
        [
            (work, [block for _, block in pairs])
            for work, pairs in groupby(ordered[begin:end], key=itemgetter(0))
        ]
        for begin, end in pairwise(cuts)
    ]


@dataclass(frozen=True)
class KeptModel:
    """A loader: the predictor of a model file that lies in the store at `url`."""

    url: str
    name: str
    digest: str  # a worker keeps its predictor as long as it gets equal loaders
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


def _map_task(task: Task, load: Loader, url: str) -> LsmapError | None:
    """What a worker does: the blocks of a task that are not there yet.

    Returns what went wrong, in words: causes that GDAL or torch raised cannot travel. What another
    try may mend is raised, so that Dask makes one.

    Raises:
        LsmapFailure: storage did not give or take what it should.
    """
    try:
        with ONE_AT_A_TIME:
            _map_missing(task, load, url)
        return None
    except LsmapError as error:
        return type(error)(str(error))
    except (OSError, RasterioError) as error:
        reason = one_line(error)
    raise LsmapFailure(f"a worker could not go on: {reason}")  # out there, it has no cause


def _map_missing(task: Task, load: Loader, url: str) -> None:
    store = open_store(url)
    done = store.names()  # an earlier try may have come half way
    predict = _predictor(load)
    for work, blocks in task:
        for stack in stacks([block for block in blocks if work.part_name(block) not in done]):
            work.sized(predict).map_stack(stack, predict, store)


@lru_cache(maxsize=1)
def _predictor(load: Loader) -> Predictor:
    keep_freed_memory()
    return load()


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the system.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_, which keeps glibc from adapting to large
    arrays: every tensor is then new memory, and page faults took a fifth of the network's time.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ and platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**26)):
            library.mallopt(option, size)  # as high as glibc itself goes


@contextmanager
def _client(workers: int, address: str | None) -> Iterator[Client]:
    from distributed import Client

    if address:
        try:
            client = Client(address, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise LsmapError(f"--dask {address}: no scheduler answers there ({error})") from error
        with client:
            yield client
        return
    with local_cluster(workers) as cluster, Client(cluster) as client:
        yield client


@contextmanager
def local_cluster(workers: int) -> Iterator[LocalCluster]:
    """`workers` processes of this machine, which share its cores."""
    import dask
    from distributed import LocalCluster

    threads = max(1, (os.cpu_count() or 1) // workers)
    # The profile looks at every thread a hundred times a second, which costs some percent, and on
    # Python 3.11 may lock a worker up for good (python/cpython#106883).
    with (
        TemporaryDirectory(prefix="lsmap-") as folder,
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # blocks bound the memory; Dask would kill workers on large machines
            local_directory=folder,
            dashboard_address=":0",
            env={"OMP_NUM_THREADS": str(threads)},
        ) as cluster,
    ):
        yield cluster
