"""Facts as machines and as people want them, and a report of them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import pyproj

from landslide_mapper.geo.crs import crs_name
from landslide_mapper.geo.review import ACCEPTED, NOT_REVIEWED


@dataclass(frozen=True)
class Fact:
    """One thing that is known: a key and JSON value for machines, a label and text for people."""

    key: str
    label: str
    value: Any
    text: str


@dataclass(frozen=True)
class Report:
    """What there is to say; `kind` is scene, scenes, labels, dataset, run or model."""

    kind: str
    path: str
    facts: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "path": self.path, **{f.key: f.value for f in self.facts}}

    def next_command(self) -> str | None:
        """What may be done with it, None where there is nothing."""
        path = shlex.quote(self.path)
        known = {fact.key: fact.value for fact in self.facts}
        # A model with the stretch of one scene inside is for other tools, a run may have none yet,
        # and a scene may be one that nothing can be found in.
        inside = isinstance(known.get("radiometry"), dict)
        refused = known.get("usable") is False or known.get("bundled_model") is False
        some_refused = known.get("unusable") or known.get("bundled_model_refuses")
        layers = known.get("layers")
        empty = layers is not None and not any(layer.get("usable") for layer in layers)
        if layers is not None and _own(layers) in ("tiles", "verdicts"):
            return None  # squares, and two inventories in one
        if empty or inside or known.get("model", path) is None or refused or some_refused:
            return None
        return {
            "scene": f"lsmap detect {path} -o slides.gpkg",
            "scenes": f"lsmap detect {path} -o slides.gpkg",
            "labels": f"lsmap prepare SCENE... {path}{_conditions(layers or [])}",
            "dataset": f"lsmap train {path}",
            "run": f"lsmap evaluate {path} DATASET",
            "model": f"lsmap detect REGION.tif -o slides.gpkg --model {path}",
        }[self.kind]

    def to_text(self) -> str:
        """A heading and one aligned row per fact; further lines of a text are indented."""
        width = max(len(fact.label) for fact in self.facts)
        lines = [f"{self.kind}: {self.path}"]
        for fact in self.facts:
            first, *rest = fact.text.split("\n")
            lines.append(f"  {fact.label:<{width}}  {first}".rstrip())
            lines += [f"  {'':<{width}}  {line}".rstrip() for line in rest]
        return "\n".join(lines)


# By which fields lsmap's own layers are told.
_OWN = {
    "tiles": {"tile_id", "split", "landslide_fraction"},
    "verdicts": {"role", "verdict", "partner"},
    "landslides": {"confidence", "review"},
}


def _own(layers: list[dict[str, Any]]) -> str | None:
    """Which of lsmap's own layers is among these, if any."""
    fields = set().union(*(layer["fields"] for layer in layers))
    return next((name for name, own in _OWN.items() if own <= fields), None)


def _conditions(layers: list[dict[str, Any]]) -> str:
    """What turns a map that was reviewed into labels."""
    if _own(layers) != "landslides":
        return ""
    return f' --where "{ACCEPTED}" --ignore-where "{NOT_REVIEWED}"'


def plain(key: str, label: str, value: Any, unit: str = "") -> Fact:
    """A fact whose value is its text, with a unit; None is not known."""
    if value is None:
        return Fact(key, label, None, "unknown")
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Fact(key, label, value, shown + unit)


def crs_code(crs: pyproj.CRS | None) -> str | None:
    """Authority and number of a CRS, else its name; None without one."""
    return None if crs is None else crs_name(crs)


def crs_text(crs: pyproj.CRS | None) -> str:
    """Number and name of a scene's CRS."""
    if crs is None:
        return "none: polygons of it would have no place (gdal_edit.py -a_srs EPSG:... sets one)"
    code = crs_name(crs)
    return code if code == crs.name else f"{code} ({crs.name})"
