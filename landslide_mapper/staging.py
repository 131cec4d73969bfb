"""Outputs that appear whole or not at all: made in a hidden folder, then moved to their places."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from landslide_mapper.errors import LsmapError, LsmapFailure, note, one_line
from landslide_mapper.shell import command_line

FULL = 1_000_000  # bytes; with less than that left, a disk is full
LONGEST_NAME = 200  # bytes; hidden files on the way have some more, and file systems take 255


class Staging:
    """A context in which outputs are made; `publish` moves them to their places.

    Whatever was not published is gone when the context ends, however it ends; what a killed
    process left is gone with the next one that makes the same `output`. Each hidden folder lies
    on the file system of its target, so that the move is one step.
    """

    def __init__(self, output: Path) -> None:
        # Runs for other outputs of this name may put files into the same folders.
        self._hidden = f".lsmap-{unique_name(output)}"
        self._folders: dict[Path, Path] = {}
        self._moves: list[tuple[Path, Path, bool]] = []

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # finished parts lie beside it
                folder.parent.rmdir()

    def folder(self, target: Path) -> Path:
        """The hidden folder for files that go beside `target`."""
        parent = target.parent
        if parent not in self._folders:
            # A folder for several rasters may not exist yet; it is made when they are moved.
            above = parent if parent.is_dir() else parent.parent
            made = above / self._hidden / f"staging-{len(self._folders)}"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            self._folders[parent] = made
        return self._folders[parent]

    def stage(self, target: Path, optional: bool = False) -> Path:
        """Where to make the file that will become `target`.

        An `optional` file that is never made removes an older one in its place: that belonged to
        an output that is replaced.
        """
        made = self.folder(target) / target.name
        self._moves.append((made, target, optional))
        return made

    def stage_sidecar(self, target: Path, replace: bool) -> Path:
        """Like `stage`, for a style file: unless `replace`, one that exists is kept."""
        if target.exists() and not replace:
            note(f"{target}: this style exists and is kept (--overwrite replaces it)")
            return self.folder(target) / target.name
        return self.stage(target)

    @property
    def targets(self) -> list[Path]:
        """Where everything goes that was staged."""
        return [target for _, target, _ in self._moves]

    def check(self, replace: bool) -> None:
        """Raise `LsmapError` where a file is by now that is not to be replaced."""
        for _, target, optional in self._moves:
            if not (replace or optional) and in_the_way(target):
                raise LsmapError(
                    f"{target}: somebody has made this file in the meantime; move it away, or add "
                    "--overwrite to replace it"
                )

    def publish(self) -> None:
        """Move everything to its place, in the order in which it was staged.

        Raises:
            OSError: a file that was made is gone, or cannot be moved.
        """
        for made, target, optional in self._moves:
            if not optional and not made.exists():
                raise FileNotFoundError(f"{target.name} was made and is gone, who removed {made}?")
        for made, target, _ in self._moves:
            if made.exists():
                target.parent.mkdir(exist_ok=True)
                os.replace(made, target)
            else:
                target.unlink(missing_ok=True)


def unique_name(output: Path) -> str:
    """A name for `output` in a place that it may share with others of the same name."""
    digest = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()
    return f"{output.name}-{digest[:12]}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a single file that then appears at `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(
    output: Path,
    what: str,
    go_on: Callable[[], str] = lambda: "make room or choose another place with -o",
) -> Iterator[None]:
    """A context in which an output is made.

    Args:
        output: the file or folder that is asked for.
        what: goes into it, in words.
        go_on: what to do when it cannot be written.

    Raises:
        LsmapFailure: an `OSError` came up, as of a full disk.
    """
    try:
        yield
    except OSError as error:
        here = output.resolve()
        place = next(folder for folder in (here, *here.parents) if folder.is_dir())
        # What GDAL says of a full disk, without a number, is often what it failed to read back.
        short = error.errno is None and shutil.disk_usage(place).free < FULL
        full = error.errno == errno.ENOSPC or short
        reason = "the disk is full" if full else one_line(error)
        raise LsmapFailure(
            f"{output}: {what} could not be written ({reason}); {go_on()}"
        ) from error


def check_targets(targets: Iterable[Path], overwrite: bool) -> None:
    """Raise `LsmapError` unless all `targets` can be made, before any work is done."""
    for target in targets:
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise LsmapError(
                f"{target}: this name is too long; at most {LONGEST_NAME} bytes will do"
            )
        check_letters(target)
        if any(ord(sign) < ord(" ") for sign in str(target)):
            raise LsmapError(f"{str(target)!r}: there is a line break or the like in this name")
        if target.is_dir():
            raise LsmapError(f"{target}: this is a folder; give the name of a file to write")
        if not overwrite and in_the_way(target):
            raise LsmapError(
                f"{target}: this file exists; choose another name or add --overwrite to replace it"
            )
        check_folder(target.parent)


def in_the_way(target: Path) -> bool:
    """Whether a file is there that must not be replaced; of styles see `Staging.stage_sidecar`."""
    return target.exists() and target.suffix != ".qml"


def check_letters(path: Path | str) -> None:
    """Raise `LsmapError` for a name that is not in UTF-8, as on disks of long ago."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise LsmapError(
            f"{str(path)!a}: the name is not in UTF-8, and GDAL takes no other; choose another"
        ) from error


def check_folder(folder: Path) -> None:
    """Raise `LsmapError` unless files can be made in `folder`."""
    if folder.exists() and not folder.is_dir():
        raise LsmapError(f"{folder}: this is a file, not a folder to write to")
    if not folder.exists():
        make = ["mkdir", "-p"] if os.name == "posix" else ["mkdir"]
        raise LsmapError(
            f"{folder}: there is no such folder; make it first: {command_line(*make, str(folder))}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LsmapError(f"{folder}: this folder cannot be written to; choose another place")


@contextmanager
def only_one(output: Path, doing: str, lock: Path | None = None) -> Iterator[None]:
    """A context that one process at a time is in, for what it makes at `output`.

    Args:
        output: a file or folder.
        doing: what is done to it, in words.
        lock: the file to lock, in a folder that is made; None: a hidden one beside the output.

    Raises:
        LsmapError: another process is in it, or there is no place for the lock, or no locks at all
            (NFS may be without).
    """
    place = output.resolve()
    lock = lock or place.parent / f".{place.name}.lock"
    missing = [folder for folder in lock.parents if not folder.exists()]
    new = not lock.exists()
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        with warnings.catch_warnings():  # of another kind of lock, which serves as well
            warnings.filterwarnings("ignore", "flock not supported")
            held.acquire(timeout=0)
    except Timeout as error:
        raise LsmapError(
            f"{output}: another lsmap is {doing} this; wait for it to end or choose another name"
        ) from error
    except OSError as error:
        if new:
            with suppress(OSError):
                lock.unlink()
        _remove_empty(missing)
        raise LsmapError(
            f"{place.parent}: no file can be made and locked there ({error.strerror}); choose "
            "another place"
        ) from error
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows keeps open files; there the release removes it
            lock.unlink(missing_ok=True)
        held.release()
        _remove_empty(missing)  # as it was, if nothing was made there


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
