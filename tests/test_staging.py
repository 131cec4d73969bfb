"""A disk that does not take an output is one line that says why and what to do."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import pytest

from landslide_mapper import staging
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.labels import open_vector
from landslide_mapper.staging import check_targets, only_one, writing


@pytest.mark.parametrize(
    ("error", "free", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 10**9, "the disk is full"),
        (OSError("GDAL read back nonsense"), 10, "the disk is full"),
        (OSError("GDAL read back nonsense"), 10**9, "GDAL read back nonsense"),
        (OSError(errno.EACCES, "Permission denied"), 10, "Permission denied"),
    ],
)
def test_why_it_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, free: int, says: str
) -> None:
    usage = staging.shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: usage)
    target = tmp_path / "a.txt"
    with pytest.raises(LsmapFailure) as failure, writing(target, "the text"):
        raise error
    assert "the text could not be written" in str(failure.value)
    assert str(failure.value).startswith(f"{target}: ")
    assert says in str(failure.value)
    assert str(failure.value).endswith("make room or choose another place with -o")


def test_the_disk_is_that_of_the_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is asked for may be a disk of its own."""
    asked = []
    usage = staging.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        staging.shutil, "disk_usage", lambda place: asked.append(Path(place)) or usage
    )
    (tmp_path / "run").mkdir()
    for output in (tmp_path / "run", tmp_path / "new", tmp_path / "no" / "new.txt"):
        with pytest.raises(LsmapFailure), writing(output, "the epoch", lambda: "make room"):
            raise OSError("what GDAL said")
    here = Path(os.path.realpath(tmp_path))
    assert asked == [here / "run", here, here]


def test_names_that_are_not_in_utf_8_are_refused_at_once(tmp_path: Path) -> None:
    """GDAL would refuse them when all the work is done."""
    name = tmp_path / "sl\udce4des.gpkg"
    with pytest.raises(LsmapError, match=r"sl\\udce4des.gpkg': the name is not in UTF-8"):
        check_targets([name], overwrite=False)
    name.write_bytes(b"")
    with pytest.raises(LsmapError, match="not in UTF-8"):
        open_vector(str(name))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_nothing_stays_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on NFS without a lock daemon."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    fcntl = pytest.importorskip("fcntl", reason="locks of POSIX")
    monkeypatch.setattr(fcntl, "flock", refuse)
    output = tmp_path / "slides.gpkg"
    for lock in (None, tmp_path / "hidden" / "lock"):
        with (
            pytest.raises(LsmapError, match=rf"{tmp_path}: .* locked there \({os.strerror(code)}"),
            only_one(output, "writing", lock),
        ):
            raise AssertionError("nobody may come in")
        assert not list(tmp_path.iterdir())
    theirs = tmp_path / ".slides.gpkg.lock"
    theirs.touch()
    with pytest.raises(LsmapError), only_one(output, "writing"):
        raise AssertionError("nobody may come in")
    assert theirs.exists()


def test_where_flock_is_missing_one_at_a_time_is_in_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl = pytest.importorskip("fcntl", reason="locks of POSIX")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with only_one(tmp_path / "run", "training"):
            with (
                pytest.raises(LsmapError, match="another lsmap is training this"),
                only_one(tmp_path / "run", "training"),
            ):
                raise AssertionError("nobody may come in")
            assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
