"""What survives a crash: the finished parts of a run, and what they are parts of.

Beside the output `slides.gpkg` lies the hidden folder `.lsmap-slides.gpkg` while a run is under
way, with a lock, and the parts with a description of the run that they belong to, unless these are
kept elsewhere (``--scratch``). The same command goes on with the parts; another starts afresh, and
clears them away once it has shown that it can work: parts may be hours of work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from landslide_mapper.errors import LsmapError
from landslide_mapper.mapping.store import open_store
from landslide_mapper.staging import check_targets, in_the_way, only_one, unique_name

DESCRIPTION = "run.json"
PUBLISHING = "publishing"  # written before the first output is moved to its place


def hidden_folder(output: Path) -> Path:
    """The folder in which a run that writes `output` keeps what it needs."""
    return output.parent / f".lsmap-{output.name}"


class Workspace:
    """The parts of the run that writes `output`; a context manager, for one process at a time.

    Raises:
        LsmapError: another process is writing this output.
    """

    def __init__(self, output: Path, scratch: str | None) -> None:
        self._folder = hidden_folder(output)
        place = f"{scratch.rstrip('/')}/{unique_name(output)}.parts" if scratch else None
        self.store = open_store(place or str(self._folder / "parts"))
        self._alone = only_one(output, "writing", self._folder / "lock")
        self._now: Any = None  # the description of this run
        self._run = ""
        self._begun = False

    def __enter__(self) -> Workspace:
        self._alone.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # storage that has gone; an error of the work is worth more
            if not self._all_parts():
                self.clear()
        self._alone.__exit__(None, None, None)
        with suppress(OSError):  # there are parts to go on with
            self._folder.rmdir()

    def describe(self, description: dict[str, Any]) -> str:
        """Say, in JSON values, all that the parts of this run depend on.

        Returns a few signs that stand for it; they end the names of its parts.
        """
        text = json.dumps(description)
        self._now = json.loads(text)  # as it comes back from a file
        self._run = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._run

    def parts(self) -> set[str]:
        """Names of the finished parts of this run."""
        return {name for name in self._all_parts() if name.endswith(f"-{self._run}.part")}

    def _all_parts(self) -> set[str]:
        return {name for name in self.store.names() if name.endswith(".part")}

    def was_publishing(self) -> bool:
        """Whether a run was stopped while its outputs were moved to their places.

        Raises `LsmapError` when the place of the parts cannot be reached.
        """
        try:
            return PUBLISHING in self.store.names()
        except OSError as error:
            raise LsmapError(
                f"the place for unfinished parts cannot be used: {error} (see --scratch)"
            ) from error

    def check_outputs(self, outputs: Iterable[Path]) -> None:
        """See that `outputs` replace only what this very run was stopped while it moved.

        Raises:
            LsmapError: another file is in the way, or that of another run, which can go on.
        """
        if not self.was_publishing():
            return
        moved = {Path(name) for name in json.loads(self.store.read(PUBLISHING) or b"[]")}
        own = moved if self._before() == self._now else set()
        others = [path for path in outputs if path.exists() and path.resolve() not in own]
        changed = self.changed()
        for path in others if changed else ():
            if path.resolve() in moved and in_the_way(path):
                raise LsmapError(
                    f"{path}: a run that was stopped while it put this file and others in place "
                    f"can go on: give its command again ({changed} changed since), choose another "
                    "name or add --overwrite to start afresh"
                )
        check_targets(others, overwrite=False)

    def changed(self) -> str:
        """What has changed since another run that was stopped, in words; empty for no such run."""
        before = self._before()
        # Without parts, a finished run was being cleared away.
        if before is None or before == self._now or not self._all_parts():
            return ""
        return _changed(before, self._now)

    def begin(self) -> None:
        """Clear away what another run has left; to be called when this one is sure to work.

        Its own parts stay: workers of a cluster may have kept some by then.
        """
        if self._begun:
            return
        if self._before() != self._now:
            self.store.delete(PUBLISHING)  # first: these outputs are not of this run
            self.store.write(DESCRIPTION, json.dumps(self._now, indent=1).encode())
        for name in self._all_parts() - self.parts():
            self.store.delete(name)
        self._begun = True

    def _before(self) -> Any:
        """The description of the run that the parts are of; None where there is none."""
        there = DESCRIPTION in self.store.names()
        return json.loads(self.store.read(DESCRIPTION)) if there else None

    def publishing(self, outputs: Iterable[Path]) -> None:
        """Note that these outputs are going to be made or replaced."""
        names = sorted(str(path.resolve()) for path in outputs)
        self.store.write(PUBLISHING, json.dumps(names).encode())

    def clear(self) -> None:
        """Forget everything. What says that the parts are good goes first."""
        self.store.delete(DESCRIPTION)
        self.store.clear()


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two descriptions, in words."""
    missing = object()
    names = [
        name
        for name in dict.fromkeys([*now, *before])
        if before.get(name, missing) != now.get(name, missing)
    ]
    return f"{', '.join(names[:3])}{' …' * (len(names) > 3)}"
