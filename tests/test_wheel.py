"""The wheel, built from the source archive: it carries the model and works outside the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from landslide_mapper import __version__


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Folder with the source archive and the wheel made from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(root)],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip lays them into site-packages."""
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_outside(unpacked: Path, *args: str) -> str:
    """Output of Python in a folder outside the checkout, with the wheel's files first."""
    result = subprocess.run(
        [sys.executable, *args],
        cwd=unpacked.parent,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_wheel_carries_the_model_its_card_and_the_licence(
    unpacked: Path, bundled_model: Path
) -> None:
    inside = unpacked / "landslide_mapper" / "models"
    assert (inside / bundled_model.name).read_bytes() == bundled_model.read_bytes()
    assert (inside / bundled_model.with_suffix(".md").name).is_file()
    (info,) = unpacked.glob("*.dist-info")
    assert "lsmap = landslide_mapper.cli:main" in (info / "entry_points.txt").read_text()
    assert (info / "licenses" / "LICENSE").is_file()


def test_wheel_carries_nothing_else(unpacked: Path) -> None:
    top = {path.name for path in unpacked.iterdir()}
    assert top == {"landslide_mapper", f"lsmap-{__version__}.dist-info"}


def test_source_archive_has_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "constraints.txt",
        "Makefile",
        "examples/sichuan_015.tif",
        "tests/data/sichuan_006.tif",
    } <= names


def test_command_from_the_wheel(unpacked: Path) -> None:
    assert __version__ in run_outside(unpacked, "-m", "landslide_mapper", "--version")


def test_bundled_model_is_found_in_the_wheel(unpacked: Path, bundled_model: Path) -> None:
    code = "from landslide_mapper.checkpoint import bundled_model; print(bundled_model())"
    found = Path(run_outside(unpacked, "-c", code).strip())
    assert found == unpacked / "landslide_mapper" / "models" / bundled_model.name
    assert "threshold" in run_outside(unpacked, "-m", "landslide_mapper", "info", str(found))


def test_every_dependency_is_pinned_and_no_index_is_named(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [line for group in groups for line in group]
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in wanted} - {"lsmap"}
    text = (root / "constraints.txt").read_text()
    pins = dict(line.split("==") for line in text.splitlines() if not line.startswith("#"))
    assert names <= {name.lower() for name in pins}
    assert pins["torch"] == "2.14.1"
    assert pins["torchvision"] == "0.29.1"
    assert "://" not in text
