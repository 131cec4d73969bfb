"""Where finished parts are kept until they are joined: a folder, or a place on shared storage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from landslide_mapper.errors import LsmapError, one_line


class Store(Protocol):
    """Named byte strings. A name that is there has its whole content, whatever happened."""

    url: str

    def names(self) -> set[str]:
        """All names."""
        ...

    def read(self, name: str) -> bytes:
        """The content of `name`; raises `OSError` when it is not there."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Set `name`; it appears whole or not at all. Raises `OSError` (disk full)."""
        ...

    def delete(self, name: str) -> None:
        """Remove `name`, if it is there."""
        ...

    def clear(self) -> None:
        """Remove everything; a folder goes as well."""
        ...


def open_store(url: str) -> Store:
    """The store at a folder, or at a URL that fsspec knows (s3://bucket/prefix).

    Raises:
        LsmapError: a URL, and the packages that it needs are not installed.
    """
    return FolderStore(url) if "://" not in url else RemoteStore(url)


class FolderStore:
    """A folder; it is made by the first `write`."""

    def __init__(self, url: str) -> None:
        self.url = str(Path(url).absolute())
        self._folder = Path(self.url)

    def names(self) -> set[str]:
        """All names."""
        if not self._folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self._folder) if not entry.name.startswith(".")}

    def read(self, name: str) -> bytes:
        """The content of `name`."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Set `name`: a hidden file first, on disk, then its name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Two workers may come to make the same part, perhaps on two machines that count their
        # processes alike: each writes a file of its own.
        partial = self._folder / f".{name}.{uuid4().hex}"
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self._folder / name)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def delete(self, name: str) -> None:
        """Remove `name`, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


class RemoteStore:
    """A prefix on object storage, through fsspec; objects there appear whole by themselves."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, self._prefix = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise LsmapError(
                f"{url}: parts cannot be kept there ({error}); install what it needs, "
                "e.g. pip install 'lsmap[distributed,s3]'"
            ) from error
        self.url = url

    def _path(self, name: str) -> str:
        return f"{self._prefix.rstrip('/')}/{name}"

    def names(self) -> set[str]:
        """All names."""
        with self._as_os_error():
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._prefix, detail=False)
            except FileNotFoundError:
                return set()
        return {path.rsplit("/", 1)[-1] for path in found}

    def read(self, name: str) -> bytes:
        """The content of `name`."""
        with self._as_os_error():
            content: bytes = self._files.cat_file(self._path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Set `name`."""
        with self._as_os_error():
            self._files.pipe_file(self._path(name), content)

    def delete(self, name: str) -> None:
        """Remove `name`, if it is there."""
        with self._as_os_error():
            try:
                self._files.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def clear(self) -> None:
        """Remove every name."""
        for name in self.names():
            self.delete(name)

    @contextmanager
    def _as_os_error(self) -> Iterator[Any]:
        """What client libraries raise (no credentials, no such bucket) as one line."""
        try:
            yield
        except Exception as error:  # every protocol has exceptions of its own
            reason = one_line(error)
            raise OSError(f"{self.url}: {reason}") from error
