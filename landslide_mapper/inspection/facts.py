"""Facts as machines and as people want them, and a report of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyproj

from landslide_mapper.geo.crs import crs_name
from landslide_mapper.shell import command_line


@dataclass(frozen=True)
class Fact:
    """One thing that is known: a key and JSON value for machines, a label and text for people."""

    key: str
    label: str
    value: Any
    text: str


@dataclass(frozen=True)
class Report:
    """What there is to say.

    Attributes:
        kind: scene, scenes, labels, dataset, run or model.
        path: as it was given.
        facts: what is known.
        next_command: what may be done with it; None: nothing.
    """

    kind: str
    path: str
    facts: tuple[Fact, ...]
    next_command: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "path": self.path, **{f.key: f.value for f in self.facts}}

    def to_text(self) -> str:
        """A heading and one aligned row per fact; further lines of a text are indented."""
        width = max(len(fact.label) for fact in self.facts)
        lines = [f"{self.kind}: {self.path}"]
        for fact in self.facts:
            first, *rest = fact.text.split("\n")
            lines.append(f"  {fact.label:<{width}}  {first}".rstrip())
            lines += [f"  {'':<{width}}  {line}".rstrip() for line in rest]
        return "\n".join(lines)


def to_detect(path: str, assets: Sequence[str] = ()) -> str:
    """The command that maps a scene, a folder of them, or these assets of a STAC item."""
    chosen = ["--asset", ",".join(assets)] if assets else []
    return command_line("lsmap", "detect", path, *chosen, "-o", "slides.gpkg")


def plain(key: str, label: str, value: Any, unit: str = "") -> Fact:
    """A fact whose value is its text, with a unit; None is not known."""
    if value is None:
        return Fact(key, label, None, "unknown")
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Fact(key, label, value, shown + unit)


def crs_text(crs: pyproj.CRS | None) -> str:
    """Number and name of a scene's CRS."""
    if crs is None:
        return "none: polygons of it would have no place (gdal_edit.py -a_srs EPSG:... sets one)"
    code = crs_name(crs)
    return code if code == crs.name else f"{code} ({crs.name})"
