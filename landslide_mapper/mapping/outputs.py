"""Where `lsmap detect` writes what, checked before any pixel is predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import rasters, vectors
from landslide_mapper.geo.labels import open_vector
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.sources import check_no_input
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.staging import check_targets


def extra_outputs(config: DetectConfig, scenes: Sequence[Scene]) -> dict[str, list[Path | None]]:
    """Per kind, the path for every scene: the file itself, or a name inside a folder."""
    found: dict[str, list[Path | None]] = {}
    for kind, suffixes in (
        ("mask", (".tif", ".tiff")),
        ("probability", (".tif", ".tiff")),
        ("overlay", (".png",)),
    ):
        given: Path | None = getattr(config, kind)
        if given is None:
            found[kind] = [None] * len(scenes)
        elif given.suffix.lower() in suffixes and not given.is_dir():
            if len(scenes) > 1:
                raise LsmapError(
                    f"--{kind} {given}: there are {len(scenes)} scenes; give a folder for one "
                    "file each"
                )
            found[kind] = [given]
        elif given.suffix and not given.is_dir():
            raise LsmapError(f"--{kind} {given}: give a {suffixes[0]} file, or a folder")
        else:
            names = _numbered([scene.stem for scene in scenes])
            found[kind] = [given / f"{name}_{kind}{suffixes[0]}" for name in names]
    return found


def reviewed(path: Path) -> int:
    """How many polygons of a layer have a verdict in their field `review`."""
    try:
        vector = open_vector(str(path))
        layer = {"layer": vectors.LAYER} if path.suffix.lower() == ".gpkg" else {}
        _, _, _, columns = pyogrio.raw.read(
            vector, columns=["review"], read_geometry=False, **layer
        )
    except (LsmapError, ValueError, DataSourceError, DataLayerError):
        return 0  # no layer of lsmap's
    return sum(bool(verdict) for column in columns for verdict in column)


def _numbered(stems: Sequence[str]) -> list[str]:
    """Names; those that come twice are numbered."""
    names: list[str] = []
    for stem in stems:
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return names


def check_outputs(
    config: DetectConfig, extras: dict[str, list[Path | None]], scenes: Sequence[Scene]
) -> None:
    """Raise `LsmapError` where an output exists, cannot be made, or is an input."""
    check_targets(vectors.outputs(config.output), config.overwrite)
    if config.output.exists() and (count := reviewed(config.output)):
        raise LsmapError(
            f"{config.output}: {count} of its polygons have been reviewed, which --overwrite would "
            "undo; choose another name"
        )
    made = list(vectors.outputs(config.output))
    for kind, paths in extras.items():
        for path in (path for path in paths if path):
            # The folder for several rasters is made on the way.
            exists = path.parent.exists() or path.parent == getattr(config, kind).parent
            targets = [path] if kind == "overlay" else rasters.outputs(path)
            check_targets(targets if exists else [path.parent], config.overwrite)
            made += targets
    places = Counter(path.resolve() for path in made)
    twice = [path for path in made if places[path.resolve()] > 1]
    if twice:
        raise LsmapError(f"{twice[0]}: two outputs would have this name; choose other names")
    check_no_input(made, scenes, (config.aoi,))
