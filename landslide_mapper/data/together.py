"""Several data sets that are trained on together: do their splits contradict each other?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import compress

import geopandas
import numpy as np
import rasterio
import shapely

from landslide_mapper.data.copies import fingerprint
from landslide_mapper.data.manifest import LAYER, TILES, Dataset, Tile
from landslide_mapper.data.split import conflicts
from landslide_mapper.data.tiles import run_parallel, worker_count
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.crs import way


def check_splits(datasets: Sequence[Dataset]) -> None:
    """See that no ground is in different splits of different data sets.

    Raises:
        LsmapError: an image or a place is, so that what is tested would be learnt.
        LsmapFailure: a tile cannot be read.
    """
    if len(datasets) < 2:
        return
    found = _contradicting_images(datasets) or _contradicting_ground(datasets)
    if found:
        raise LsmapError(
            f"{', '.join(str(dataset.root) for dataset in datasets)}: {found} in different splits "
            "of them, so tiles that are tested would be learnt; prepare them in one command"
        )


def _contradicting_images(datasets: Sequence[Dataset]) -> str:
    """Tiles without a place: the same pixels are the same ground.

    Names of files tell nothing: they may be relative to any folder, and pictures are copied. Of a
    scene without a CRS, this finds windows that both data sets have, as those of one grid are.
    """
    unplaced = [(dataset, tiles) for dataset in datasets if (tiles := _unplaced(dataset))]
    if len(unplaced) < 2:
        return ""
    known: dict[str, set[str]] = {}
    for dataset, tiles in unplaced:
        own: defaultdict[str, set[str]] = defaultdict(set)
        example: dict[str, Tile] = {}
        for tile, digest in run_parallel(lambda t: (t, _digest(t)), tiles, worker_count(None)):
            if digest:
                own[digest].add(tile.split)
                example[digest] = tile
        for digest, splits in own.items():
            if known.setdefault(digest, splits) != splits:
                return f"the image of tile {example[digest].tile_id} of {dataset.root} is"
    return ""


def _unplaced(dataset: Dataset) -> list[Tile]:
    """The tiles of sources without a CRS."""
    sources = dataset.info.get("sources", [])
    names = {source["name"] for source in sources if not source.get("crs")}
    return [tile for tile in dataset.tiles if tile.source in names]


def _digest(tile: Tile) -> str:
    """Of a tile's pixels, however turned; "" where all are alike: that tells of no place."""
    try:
        with rasterio.open(tile.image) as source:
            image = np.asarray(source.read())
    except rasterio.errors.RasterioIOError as error:
        raise LsmapFailure(f"tile {tile.tile_id} cannot be read: {error}") from error
    if (image == image[:, :1, :1]).all():
        return ""
    return fingerprint([image])


def _contradicting_ground(datasets: Sequence[Dataset]) -> str:
    """Tiles of one data set that lie on those of another split of another one."""
    tables = [geopandas.read_file(dataset.root / TILES, layer=LAYER) for dataset in datasets]
    placed = [(n, table) for n, table in enumerate(tables) if table.crs is not None]
    count = 0
    while len(placed) > 1:
        crs = placed[0][1].crs
        reached = [way(table.crs, crs) is not None for _, table in placed]
        here = list(compress(placed, reached))
        placed = list(compress(placed, np.logical_not(reached)))  # on another planet
        shapes = np.concatenate([table.to_crs(crs).geometry.to_numpy() for _, table in here])
        splits = np.concatenate([table["split"].to_numpy() for _, table in here])
        owner = np.concatenate([np.full(len(table), n) for n, table in here])
        tolerance = shapely.area(shapes) / datasets[0].tile_size  # a row of pixels
        count += len(conflicts(shapes, list(splits), list(owner), tolerance))
    return f"{count} tiles are" if count else ""
