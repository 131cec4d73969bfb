"""Work on several processes: the same files as one process, also when workers die."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import blobs, brightness, grey, model_info, read, write_scene
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper import detect as detect_module
from landslide_mapper.detect import detect, detect_with
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.blend import WindowGrid
from landslide_mapper.geo.blocks import Layout, stacks
from landslide_mapper.geo.grid import Frame
from landslide_mapper.mapping.cluster import share_out
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.store import RemoteStore, open_store

PATHS = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(Layout, max_width=300, max_pixels=300 * 200)
    monkeypatch.setattr(detect_module, "Layout", small)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with two workers that are already there."""
    with (
        # On Python 3.11 the profile may lock a worker up (python/cpython#106883).
        dask.config.set({"distributed.worker.profile.enabled": False}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster.scheduler_address


def config(scene: str, folder: Path, **options: Any) -> DetectConfig:
    folder.mkdir()
    rasters = {"mask": folder / "mask.tif", "probability": folder / "percent.tif"}
    return DetectConfig((scene,), folder / "slides.gpkg", **rasters, **{"min_area": 5.0} | options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def set_environment(settings: dict[str, str]) -> None:
    os.environ.update(settings)


class DiesOnce:
    """`brightness`; the first process that asks for an answer after `calls` dies of it."""

    def __init__(self, grave: Path, calls: int) -> None:
        self._grave, self._calls = grave, calls

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self._calls -= 1
        if self._calls < 0 and not self._grave.exists():
            self._grave.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return brightness(windows)


class Alone:
    """`brightness`; notes down when a thread asks while another one of the process waits."""

    asking = 0

    def __init__(self, disturbed: Path) -> None:
        self._disturbed = disturbed

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        Alone.asking += 1
        time.sleep(0.01)
        if Alone.asking > 1:
            self._disturbed.touch()
        Alone.asking -= 1
        return brightness(windows)


class HiccupsOnce:
    """`brightness`; the first answer of all processes fails as shared storage may."""

    def __init__(self, grave: Path) -> None:
        self._grave = grave

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        if not self._grave.exists():
            self._grave.touch()
            raise OSError("Stale file handle")
        return brightness(windows)


class KillsAfter:
    """`brightness`; after so many answers, of all processes, another process is killed."""

    def __init__(self, victim: int, count: Path, calls: int) -> None:
        self._victim, self._count, self._calls = victim, count, calls

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        with self._count.open("a") as file:
            file.write("x")
        if self._count.stat().st_size >= self._calls:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._victim, signal.SIGKILL)
            time.sleep(5)
        return brightness(windows)


@pytest.fixture
def scene(tmp_path: Path) -> str:
    return write_scene(tmp_path / "scene.tif", grey(blobs(4, (700, 900), 0.4, smooth=3)))


def test_a_cluster_gives_the_identical_files(
    scene: str, tmp_path: Path, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = config(scene, tmp_path / "one", min_area=0.0)
    there = config(scene, tmp_path / "two", min_area=0.0, dask=scheduler)
    for each in (here, there):
        detect_with(each, brightness, model_info())
    said = capsys.readouterr().err
    areas = read(here.output).area_m2
    specks = f"{(areas < 100).sum()} of {len(areas)} landslides are smaller than 100 m²"
    assert said.count(specks) == 2
    assert "16 blocks in 2 tasks" in said
    assert "on 2 workers" in said
    assert len(contents(tmp_path / "one")) == 5
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@given(
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=4),
    workers=st.integers(1, 9),
)
def test_tasks_are_all_blocks_in_nearly_equal_shares(
    sizes: list[tuple[int, int]], workers: int
) -> None:
    layouts = [
        Layout(WindowGrid(*size, 64, 16), Frame.whole(*size), 300, 300 * 200) for size in sizes
    ]
    todo: Any = [
        (SimpleNamespace(number=number, layout=layout), list(layout))
        for number, layout in enumerate(layouts)
    ]
    tasks = share_out(todo, workers)
    blocks = [[(id(work), block) for work, blocks in task for block in blocks] for task in tasks]
    together = [pair for task in blocks for pair in task]
    assert len(together) == len(set(together))
    assert set(together) == {(id(work), block) for work, blocks in todo for block in blocks}
    counts = [len(task) for task in blocks]
    assert max(counts) <= min(counts) + 1
    assert len(tasks) == len(together) or len(tasks) % workers == 0
    # Each task has one run per column that it touches: nothing is predicted twice for no reason.
    for task in tasks:
        for _, part in task:
            assert len(stacks(part)) == len({block.column for block in part})


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_a_worker_uses_freed_memory_again() -> None:
    """Dask sets a variable that makes every large array new memory, page by page."""
    script = """
import resource, sys
import numpy as np
from landslide_mapper.mapping.cluster import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**22, np.float32)
before = faults()
for _ in range(10):
    np.ones(2**22, np.float32)
print(faults() - before)
"""
    counts = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", script, how],
                env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for how in ("given back", "kept")
    }
    assert counts["kept"] < counts["given back"] / 10


def test_a_killed_worker_is_survived(scene: str, tmp_path: Path) -> None:
    detect_with(config(scene, tmp_path / "one"), brightness, model_info())
    dies = DiesOnce(tmp_path / "grave", 20)
    detect_with(config(scene, tmp_path / "two", workers=2), dies, model_info())
    assert (tmp_path / "grave").exists()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_worker_of_several_threads_asks_its_predictor_one_at_a_time(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU all threads write to the same buffers, and dask worker starts one for each core."""
    monkeypatch.setattr("landslide_mapper.mapping.cluster.ROWS_PER_TASK", 1)
    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=4, processes=True, dashboard_address=":0"
        ) as cluster,
    ):
        there = config(scene, tmp_path / "out", dask=cluster.scheduler_address)
        detect_with(there, Alone(tmp_path / "disturbed"), model_info())
    assert "in 8 tasks" in capsys.readouterr().err
    assert there.output.exists()
    assert not (tmp_path / "disturbed").exists()


def test_a_real_network_on_workers_gives_the_identical_files(
    bundled_scene: Path, bundled_model: Path, tmp_path: Path, scheduler: str
) -> None:
    for name, options in (("one", {}), ("two", {"dask": scheduler})):
        detect(
            config(
                str(bundled_scene),
                tmp_path / name,
                model=str(bundled_model),
                device="cpu",
                **options,
            )
        )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_goes_wrong_on_a_worker_is_one_line(
    scene: str, tmp_path: Path, scheduler: str
) -> None:
    Path(scene).write_bytes(Path(scene).read_bytes()[:20_000])
    with pytest.raises(LsmapError, match="cannot be read"):
        detect_with(config(scene, tmp_path / "out", dask=scheduler), brightness, model_info())
    assert contents(tmp_path / "out") == {}


def test_no_scheduler_is_one_line(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landslide_mapper.mapping.cluster.PATIENCE", 1)
    with pytest.raises(LsmapError, match="no scheduler answers there"):
        detect_with(
            config(scene, tmp_path / "a", dask="tcp://127.0.0.1:9"), brightness, model_info()
        )


def test_storage_that_fails_once_is_tried_again(scene: str, tmp_path: Path, scheduler: str) -> None:
    once = HiccupsOnce(tmp_path / "grave")
    detect_with(config(scene, tmp_path / "two", dask=scheduler), once, model_info())
    assert (tmp_path / "grave").exists()
    detect_with(config(scene, tmp_path / "one"), brightness, model_info())
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_storage_that_fails_for_good_is_one_line(
    scene: str, tmp_path: Path, scheduler: str
) -> None:
    with pytest.raises(LsmapFailure, match="a worker could not go on: Stale file handle"):
        detect_with(config(scene, tmp_path / "two", dask=scheduler), _gone, model_info())


def _gone(_windows: np.ndarray) -> np.ndarray:
    raise OSError("Stale file handle")


def test_a_scheduler_that_dies_is_one_line(scene: str, tmp_path: Path) -> None:
    """What its workers had finished is used by the run after."""
    script = (
        "import sys, time, distributed\n"
        "if __name__ == '__main__':\n"
        "    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1,\n"
        "                                       dashboard_address=':0')\n"
        "    print(cluster.scheduler_address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=PATHS | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"},
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        lethal = KillsAfter(process.pid, tmp_path / "calls", 20)
        try:
            with pytest.raises(LsmapFailure, match="the Dask scheduler has gone"):
                detect_with(config(scene, tmp_path / "two", dask=address), lethal, model_info())
        finally:
            process.kill()
    detect_with(config(scene, tmp_path / "one"), brightness, model_info())
    assert not (tmp_path / "two" / "slides.gpkg").exists()


def test_parts_may_lie_on_object_storage(
    scene: str, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that speaks S3, on this machine; workers find it through their environment."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    try:
        import boto3

        boto3.client("s3").create_bucket(Bucket="parts")
        with distributed.Client(scheduler) as client:
            client.run(set_environment, settings)
        detect_with(config(scene, tmp_path / "one"), brightness, model_info())
        remote = config(scene, tmp_path / "two", dask=scheduler, scratch="s3://parts/here")
        detect_with(remote, brightness, model_info())
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
        assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket="parts")
        missing = config(scene, tmp_path / "three", scratch="s3://no-such-bucket/here")
        with pytest.raises(LsmapError, match="no-such-bucket"):
            detect_with(missing, brightness, model_info())
    finally:
        server.stop()


def test_storage_that_cannot_be_reached_is_one_line(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(store: RemoteStore) -> set[str]:
        raise OSError(f"{store.url}: connection refused")

    monkeypatch.setattr(RemoteStore, "names", gone)
    away = config(scene, tmp_path / "out", scratch="memory://away")
    with pytest.raises(LsmapError, match=r"cannot be used: memory://away.*--scratch"):
        detect_with(away, brightness, model_info())


def test_a_store_on_any_file_system_of_fsspec() -> None:
    store = RemoteStore("memory://some/where")
    assert store.names() == set()
    store.write("a.part", b"first")
    store.write("a.part", b"second")
    store.write("b", b"")
    assert store.names() == {"a.part", "b"}
    assert store.read("a.part") == b"second"
    with pytest.raises(OSError, match="c"):
        store.read("c")
    store.delete("b")
    store.delete("b")
    assert store.names() == {"a.part"}
    store.clear()
    assert store.names() == set()
    with pytest.raises(LsmapError, match="cannot be kept there"):
        open_store("nonsense://a/b")
