"""What survives a crash: the finished parts of a run, and what they are parts of.

Beside the output `slides.gpkg` lies the hidden folder `.lsmap-slides.gpkg` while a run is under
way, with a lock, and the parts with a description of the run that they belong to, unless these are
kept elsewhere (``--scratch``). The same command goes on with the parts; another starts afresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.mapping.store import open_store
from landslide_mapper.staging import only_one, unique_name

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
        self._output = output
        self._folder = hidden_folder(output)
        place = f"{scratch.rstrip('/')}/{unique_name(output)}.parts" if scratch else None
        self.store = open_store(place or str(self._folder / "parts"))
        self._alone = only_one(output, "writing", self._folder / "lock")

    def __enter__(self) -> Workspace:
        self._alone.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # storage that has gone; an error of the work is worth more
            if not self.parts():
                self.clear()
        self._alone.__exit__(None, None, None)
        with suppress(OSError):  # there are parts to go on with
            self._folder.rmdir()

    def parts(self) -> set[str]:
        """Names of the finished parts."""
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

    @staticmethod
    def identity(description: dict[str, Any]) -> str:
        """A few signs that stand for a description."""
        return hashlib.sha256(json.dumps(description).encode()).hexdigest()[:12]

    def own_outputs(self, description: dict[str, Any]) -> set[Path]:
        """What may be replaced, as this very run (see `begin`) was stopped while it moved it."""
        if PUBLISHING not in self.store.names() or self._before() != _plain(description):
            return set()
        return {Path(name) for name in json.loads(self.store.read(PUBLISHING) or b"[]")}

    def begin(self, description: dict[str, Any]) -> None:
        """Keep the parts of an interrupted run if they are of this run, else clear them away.

        `description` says, in JSON values, all that the parts depend on.
        """
        before, now = self._before(), _plain(description)
        if before == now:
            return
        if before is not None and self.parts():  # without, a finished run was being cleared away
            changed = _changed(before, now)
            note(f"{self._output.name}: starting afresh, as {changed} since the run that stopped")
        self.store.clear()
        self.store.write(DESCRIPTION, json.dumps(now, indent=1).encode())

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


def _plain(description: dict[str, Any]) -> Any:
    """The same as it comes back from a file."""
    return json.loads(json.dumps(description))


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two descriptions, in words."""
    missing = object()
    names = [
        name
        for name in dict.fromkeys([*now, *before])
        if before.get(name, missing) != now.get(name, missing)
    ]
    return f"{', '.join(names[:3])}{' …' * (len(names) > 3)} changed"
