"""The experiments of a grid, and the file of those that are finished: one JSON object per line."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grid import EARLIER, STRETCH, Scale, Settings, Table

from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.errors import LsmapError
from landslide_mapper.staging import whole_file

Result = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One training run with its evaluation.

    Attributes:
        data: name of the data set.
        digest: of its tiles with the default stretch, see `Dataset.digest`.
        scale: name of the scale.
        common: settings that all rows of the scale share.
        settings: those of the row.
        seed: of all random numbers.
    """

    data: str
    digest: str
    scale: str
    common: Settings
    settings: Settings
    seed: int

    @property
    def key(self) -> str:
        """The same for the same experiment, whatever machine, code version or table asks."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def stretch(self) -> str:
        """With which its tiles are prepared."""
        return self.settings.get(STRETCH, PrepareConfig.stretch)

    @property
    def options(self) -> list[str]:
        """As ``lsmap train`` takes them."""
        given = {**EARLIER, **self.common, **self.settings, "seed": str(self.seed)}
        return options({name: value for name, value in given.items() if name != STRETCH})

    @property
    def command(self) -> str:
        """What a person would type."""
        return shlex.join(["lsmap", "train", tiles_name(self.data, self.stretch), *self.options])


def tiles_name(data: str, stretch: str) -> str:
    """What tiles are called: after their data set, and their stretch unless it is the default."""
    return data if stretch == PrepareConfig.stretch else f"{data}-{stretch}"


def options(settings: Settings) -> list[str]:
    """Settings as command-line options; an empty value is a flag."""
    pairs = [(f"--{name}", value) for name, value in settings.items()]
    return [part for pair in pairs for part in pair if part]


def common_settings(
    scale: Scale, data: str, weights: str = "imagenet", epochs: int | None = None
) -> dict[str, str]:
    """What all rows of a scale share; a file of weights is known by its name, not its place."""
    start = weights if weights in ("imagenet", "none") else Path(weights).name
    count = scale.epochs[data] if epochs is None else epochs
    return {**scale.settings, "epochs": str(count), "weights": start}


def plan(
    tables: Iterable[Table],
    data: str,
    digest: str,
    scale: Scale,
    common: Settings,
    seeds: Sequence[int],
) -> list[Experiment]:
    """The experiments that fill `tables`: each once, all rows with one seed before the next."""
    rows = [row for table in tables for row in table.rows]
    planned = [
        Experiment(data, digest, scale.name, dict(common), scale.settings_of(row), seed)
        for seed in seeds
        for row in rows
    ]
    return list({experiment.key: experiment for experiment in planned}.values())


def read_results(path: Path) -> list[Result]:
    """All finished experiments, oldest first; none when there is no file yet.

    Raises:
        LsmapError: a line is no JSON object with a key.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            result = json.loads(line)
            result["key"]
        except (ValueError, TypeError, KeyError) as error:
            raise LsmapError(
                f"{path}, line {number}: no result of an experiment; remove the line"
            ) from error
        found.append(result)
    return found


def append_result(path: Path, result: Result) -> None:
    """Add one line. The file is replaced whole, so a kill leaves no half line in it."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with whole_file(path) as partial:
        partial.write_text(before + json.dumps(result) + "\n", encoding="utf-8")
