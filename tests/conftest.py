"""What the tests share: data, the bundled scene and model, and few threads on small machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from range_server import Traffic, serve

# Before anything imports torch, and inherited by xdist's workers and the commands that tests
# start. More threads than free cores make small networks wait for each other: 25 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

ROOT = Path(__file__).resolve().parents[1]
TEST_DATA = ROOT / "tests" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the shared data, so that ``-m "not shared"`` leaves it out."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` on a machine without CUDA."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets beside the checkout, or the one that LSMAP_DATA names."""
    folder = Path(os.environ.get("LSMAP_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; set LSMAP_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def bundled_scene() -> Path:
    """A real RGB orthophoto, 1024 × 1024, EPSG:32648, 0.5 m (nominal): a test site."""
    return ROOT / "examples" / "sichuan_015.tif"


@pytest.fixture(scope="session")
def bundled_labels() -> Path:
    """The three landslide polygons of `bundled_scene`, in EPSG:4326."""
    return ROOT / "examples" / "sichuan_015_labels.gpkg"


@pytest.fixture(scope="session")
def train_scenes() -> list[Path]:
    """Two real RGB orthophotos, 512 × 512, EPSG:32648, 0.5 m (nominal): parts of train sites."""
    return [TEST_DATA / "sichuan_006.tif", TEST_DATA / "sichuan_022.tif"]


@pytest.fixture(scope="session")
def train_labels() -> Path:
    """The landslide polygons of both `train_scenes`, in EPSG:4326."""
    return TEST_DATA / "sichuan_labels.gpkg"


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The one model file in ``models/``."""
    found = sorted((ROOT / "models").glob("*.safetensors"))
    assert len(found) == 1, f"models/ holds {len(found)} .safetensors files; it should hold one"
    return found[0]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of these tests are on this machine, and failures are not tried again for long."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def web(tmp_path: Path, no_proxy: None) -> Iterator[Traffic]:
    """A server of the folder "web", which counts what it sends."""
    folder = tmp_path / "web"
    folder.mkdir()
    with serve(folder) as traffic:
        yield traffic


@pytest.fixture(scope="session")
def dataset(
    tmp_path_factory: pytest.TempPathFactory, train_scenes: list[Path], train_labels: Path
) -> Path:
    """Tiles of 128 pixels of `train_scenes`, few enough to train on a CPU."""
    from running import run

    folder = tmp_path_factory.mktemp("train") / "dataset"
    run("prepare", *train_scenes, train_labels, "-o", folder, "--tile-size", 128, "--workers", 1)
    return folder


@pytest.fixture
def scene(tmp_path: Path) -> str:
    """A scene of noise, see `preparing`; many files of tests have one of their own."""
    from preparing import write_scene

    return write_scene(tmp_path)


@pytest.fixture
def slides(tmp_path: Path) -> str:
    """Landslides on `scene`, likewise."""
    from preparing import write_slides

    return write_slides(tmp_path)
