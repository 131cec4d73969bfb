"""Where `lsmap detect` writes what, checked before any pixel is predicted."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Container, Sequence
from contextlib import closing
from pathlib import Path

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.geo import rasters, vector_formats
from landslide_mapper.geo.review import work_in
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_files import check_no_input
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.staging import check_targets

# Outputs beside the layer, and the suffixes that each may have.
EXTRAS = {
    "mask": (".tif", ".tiff"),
    "probability": (".tif", ".tiff"),
    "overlay": (".png",),
}
OF_THE_FORMAT = ("gpkg_", "rtree_", "sqlite_")  # how tables begin that a GeoPackage consists of
STYLES = "layer_styles"  # the table of a GeoPackage that QGIS reads styles from
# Layers of lsmap and usual scenes whose style QGIS reads from a file beside them.
STYLED = (".shp", ".geojson", ".fgb", ".parquet", ".tif", ".tiff", ".vrt", ".jp2")


def extra_outputs(config: DetectConfig, scenes: Sequence[Scene]) -> dict[str, list[Path | None]]:
    """Per kind, the path for every scene: the file itself, or a name inside a folder."""
    found: dict[str, list[Path | None]] = {}
    for kind, suffixes in EXTRAS.items():
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


def check_layer(path: Path) -> None:
    """See that replacing the layer at `path`, if there is one, loses nothing of anybody's.

    Raises:
        LsmapError: another program writes it, people have worked in it, or other layers are in the
            file.
    """
    if not path.exists():
        return
    layer = None
    if path.suffix.lower() == ".gpkg":
        layer = vector_formats.LAYER
        if _in_use(path):
            raise LsmapError(
                f"{path}: another program is changing it; save there and close it (in QGIS: end "
                "the edit), or choose another name"
            )
        if others := _other_layers(path):
            raise LsmapError(
                f"{path}: also holds {', '.join(others)}, which --overwrite would delete; choose "
                "another name"
            )
    if done := work_in(str(path), layer):
        raise LsmapError(f"{path}: {done}, which --overwrite would undo; choose another name")


def _in_use(path: Path) -> bool:
    """Whether another program has a GeoPackage open for writing."""
    try:
        with closing(sqlite3.connect(path, timeout=0)) as database:
            # What a program that has crashed left in the journal is taken into the file.
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:  # also: not a database, a file that is read only
        return error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return False


def _other_layers(path: Path) -> list[str]:
    """What a GeoPackage holds beside the layer: others, rasters, projects of QGIS, plain tables."""
    tables = vector_formats.ask_geopackage(
        path,
        "SELECT table_name FROM gpkg_contents UNION "
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1",
    )
    own = (vector_formats.LAYER, STYLES)
    names = [str(name) for (name,) in tables if name not in own]
    return [name for name in names if not name.startswith(OF_THE_FORMAT)]


def style_of_a_scene(path: Path, scenes: Sequence[Scene]) -> bool:
    """Whether QGIS takes a style file for that of a scene, which lies beside it."""
    styled = {Path(scene.path).with_suffix(path.suffix).resolve() for scene in scenes}
    return path.resolve() in styled


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
    check_targets(vector_formats.outputs(config.output), config.overwrite)
    made = list(vector_formats.outputs(config.output))
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
    check_layer(config.output)
    for path in (path for path in made if path.suffix == ".qml"):
        if path == config.output.with_suffix(".qml") and style_of_a_scene(path, scenes):
            note(
                f"{path.name} would be the style of the scene as well, so none is made for "
                f"{config.output.name}; another name, or .gpkg, gets one"
            )
        else:
            _say_who_shares(path, places)


def _say_who_shares(style: Path, made: Container[Path]) -> None:
    """Say which layers that are not `made` now have this style file as well.

    QGIS shows polygons in the classes of other ones then, and a raster with the style of polygons,
    or the reverse, without any.
    """
    layers = [style.with_suffix(suffix) for suffix in STYLED]
    others = [layer.name for layer in layers if layer.exists() and layer.resolve() not in made]
    if others:
        note(
            f"{style} is the one style that QGIS knows for {', '.join(others)} as well; with "
            "another name, each has its own"
        )
