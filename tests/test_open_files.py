"""No command removes or replaces a file that it has open: Windows refuses that."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, run

OPEN = Path("/proc/self/fd")
MAPPED = Path("/proc/self/maps")

pytestmark = pytest.mark.skipif(not OPEN.is_dir(), reason="needs /proc")


def _open_here(path: Any, dir_fd: int | None) -> bool:
    """Whether this process has the file open or mapped; folders are nobody's business."""
    try:
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    for entry in OPEN.iterdir():
        try:
            if os.path.samestat(found, entry.stat()):
                return True
        except OSError:  # closed by now
            continue
    return f" {found.st_ino} " in MAPPED.read_text()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that were open when they were to be removed or replaced."""
    names: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def remove(path: Any, *others: Any, dir_fd: int | None = None, **options: Any) -> Any:
            for one in (path, *others):
                if _open_here(one, dir_fd):
                    names.append(os.fsdecode(one))
                    raise PermissionError(13, "in use", os.fsdecode(one))
            return real(path, *others, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return remove

    for name in ("unlink", "remove", "rename", "replace"):
        monkeypatch.setattr(os, name, watched(name))
    return names


def test_commands_close_what_they_remove(
    tmp_path: Path,
    refused: list[str],
    train_scenes: list[Path],
    train_labels: Path,
) -> None:
    dataset, trained, slides = tmp_path / "dataset", tmp_path / "run", tmp_path / "slides.gpkg"
    run("prepare", *train_scenes, train_labels, "-o", dataset, "--tile-size", 128, "--workers", 1)
    run("train", dataset, "-o", trained, *QUICK, "--epochs", 1)
    run("train", "--resume", "-o", trained, "--epochs", 2)
    scene, model = train_scenes[0], ("--model", trained)
    rasters = ("--mask", tmp_path / "mask.tif", "--probability", tmp_path / "probability.tif")
    for _ in range(2):
        picture = ("--overlay", tmp_path / "overlay.png")
        run("detect", scene, *model, "-o", slides, *rasters, *picture, "--overwrite")
    for suffix in (".shp", ".geojson", ".fgb"):
        run("detect", scene, *model, "-o", slides.with_suffix(suffix))
    run("evaluate", trained, dataset, "-o", tmp_path / "report")
    run("evaluate", slides, train_labels, "-o", tmp_path / "compared")
    run("explain", trained, scene, "-o", tmp_path / "explained")
    run("explain", trained, scene, "-o", tmp_path / "explained", "--threshold", 1, code=2)
    run("export", trained, "-o", tmp_path / "model.onnx")
    # On Windows locks are removed with their release.
    assert not [name for name in refused if not name.endswith("lock")]
    assert refused
