"""The files that a scene is made of, which must never be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import remote
from landslide_mapper.geo.scene import Scene, is_raster, open_raster


def check_no_input(
    made: Iterable[Path], scenes: Sequence[Scene], others: Iterable[str | None] = ()
) -> None:
    """Raise `LsmapError` where a file to be made is one that is read.

    Args:
        made: files to be made.
        scenes: with all their files: those behind a VRT, masks, overviews.
        others: further files that are read; None for none.
    """
    there = [path for path in made if path.exists()]
    if not there:
        return
    inputs = {Path(path).resolve() for path in others if path}
    for scene in scenes:
        inputs |= {Path(scene.path).resolve(), *files_of(scene)}
    for path in there:
        if path.resolve() in inputs:
            raise LsmapError(f"{path}: this is an input; lsmap never changes its inputs")


def files_of(scene: Scene) -> list[Path]:
    """All files on this machine that a scene is made of: behind a VRT, masks, overviews, metadata.

    Raises:
        LsmapError: it cannot be opened.
    """
    found: set[Path] = set()
    waiting: list[Scene | str] = [scene]
    while waiting:
        with open_raster(waiting.pop()) as raster:
            files = {Path(file).resolve() for file in raster.files if remote.is_local(file)}
        new = {file for file in files - found if file.is_file()}
        found |= new
        nested = [str(file) for file in new if file.suffix.lower() == ".vrt"]
        waiting += [file for file in nested if is_raster(file)]
    return sorted(found)
