"""What a person names on the command line, as rasters: files, folders, patterns, URLs, STAC items.

Nothing is read here but catalogues and folders.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.geo import remote
from landslide_mapper.geo.rasters import TAG
from landslide_mapper.geo.scene import Source, is_raster, open_raster
from landslide_mapper.geo.scene_info import RASTER_SUFFIXES
from landslide_mapper.geo.stac import COLOURS, is_item_name, item_source

PART_OF_PIXEL = 0.5  # by which a piece may lie beyond the mosaic that shows it
COARSER = 1.5  # times: a mosaic of larger pixels than that is another scene


def expand_sources(
    names: Sequence[str], assets: Sequence[str] = (), bands: int = 3
) -> list[Source]:
    """The rasters behind what was named, in order.

    Args:
        names: files, VRTs, URLs, s3:// and /vsi… names, folders, patterns (`*`, `?`), and STAC
            items (`.json`, or a URL of an API's item).
        assets: assets of STAC items to use; none: "visual", else the only raster, else the
            bands with common names.
        bands: how many bands the model takes, when it comes to common names.

    Raises:
        LsmapError: an empty folder, a pattern that matches nothing, no STAC item, no such asset.
    """
    found: list[Source] = []
    stac = False
    names = [str(name) for name in names]  # paths as well
    _check_quotes(names)
    for name in names:
        if not name:
            raise LsmapError("'': a scene has no name; is a variable of the shell empty?")
        if is_item_name(name):
            found.append(item_source(name, assets, bands))
            stac = True
        elif remote.is_local(name):
            found += _local(name)
        else:
            found.append(Source(name))
    if assets and not stac:
        raise LsmapError(f"--asset {','.join(assets)}: none of the inputs is a STAC item")
    return found


def _check_quotes(names: Sequence[str]) -> None:
    """Raise `LsmapError` where a shell has cut one name at its spaces."""
    whole = " ".join(names)
    if len(names) > 1 and not os.path.exists(names[0]) and os.path.exists(whole):
        raise LsmapError(
            f"{names[0]}: there is no such file, but there is one whose name has spaces; put it "
            f'into quotes: "{whole}"'
        )


def is_several(name: str) -> bool:
    """Whether this names a folder with rasters in it, or a pattern."""
    path = Path(name)
    if not remote.is_local(name):
        return False
    return bool(_rasters_in(path)) if path.is_dir() else _is_pattern(name)


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not Path(name).exists()


def _local(name: str) -> Iterator[Source]:
    path = Path(name)
    if path.is_dir():
        yield from map(Source, _in_folder(path))
    elif _is_pattern(name):
        matches = sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))
        if not matches:
            raise LsmapError(f"{name}: no file matches this pattern")
        yield from map(Source, _scenes_of(name, matches))
    else:
        yield Source(name)


def _rasters_in(folder: Path) -> list[str]:
    """Rasters by their suffix; hidden files are none (macOS leaves ._NAME.tif beside NAME.tif)."""
    return sorted(
        str(file)
        for file in folder.iterdir()
        if file.suffix.lower() in RASTER_SUFFIXES and file.is_file() and file.name[0] != "."
    )


def _in_folder(folder: Path) -> list[str]:
    files = _rasters_in(folder)
    if files:
        return _scenes_of(str(folder), files)
    if is_raster(str(folder)):  # some formats of GDAL are folders
        return [str(folder)]
    raise LsmapError(
        f"{folder}: there is no raster in this folder ({', '.join(RASTER_SUFFIXES)}); folders in "
        "it are not searched"
    )


def _scenes_of(name: str, files: Sequence[str]) -> list[str]:
    """The scenes among the files of a folder or pattern, with a note on what was left out.

    Those are what lsmap has made itself, and the pieces of a mosaic that is among them.
    """
    made, pieces = set[str](), set[Path]()
    for file in files:
        try:
            with open_raster(file) as raster:
                if any(tag.startswith(TAG) for tag in raster.tags()):
                    made.add(file)
                elif raster.driver == "VRT":
                    pieces |= _shown_whole(raster)
        except LsmapError:
            continue  # whoever opens it says why it cannot be used
    scenes = [file for file in files if file not in made and Path(file).resolve() not in pieces]
    parts = len(files) - len(made) - len(scenes)
    said = f"{name}: {len(scenes)} scene{'s' * (len(scenes) != 1)}"
    if made:
        said += f"; left out: {len(made)} that lsmap made itself"
    if parts:
        said += f"{',' if made else '; left out:'} {parts} that a mosaic in it shows"
    note(said)
    if not scenes:
        raise LsmapError(f"{name}: there is nothing in it but what lsmap made itself")
    return scenes


def _shown_whole(mosaic: rasterio.DatasetReader) -> set[Path]:
    """The rasters that a VRT shows all of, at their own pixel size or finer."""
    found = set[Path]()
    for file in mosaic.files:
        if file == mosaic.name or not is_raster(file):
            continue
        with open_raster(file) as piece:
            try:
                west, south, east, north = transform_bounds(piece.crs, mosaic.crs, *_box(piece))
            except RasterioError:  # one of them has no CRS
                west, south, east, north = _box(piece)
                if piece.crs != mosaic.crs:
                    continue
            sides = [abs(side) for side in mosaic.res]
            x, y = (side * PART_OF_PIXEL for side in sides)
            left, bottom, right, top = _box(mosaic)
            inside = left - x <= west and bottom - y <= south
            inside &= east <= right + x and north <= top + y
            # Pixels that the piece's own would be there.
            own = ((east - west) / piece.width, (north - south) / piece.height)
            fine = all(there <= here * COARSER for there, here in zip(sides, own, strict=True))
            if inside and fine and mosaic.count >= min(piece.count, len(COLOURS)):
                found.add(Path(file).resolve())
    return found


def _box(raster: rasterio.DatasetReader) -> tuple[float, float, float, float]:
    """West, south, east and north end, also of a raster whose rows go north."""
    west, bottom, east, top = raster.bounds
    return west, min(bottom, top), east, max(bottom, top)
