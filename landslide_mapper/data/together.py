"""Several data sets that are trained on together: do their splits contradict each other?"""

from __future__ import annotations

from collections.abc import Sequence

import geopandas
import numpy as np
import shapely

from landslide_mapper.data.manifest import LAYER, TILES, Dataset
from landslide_mapper.data.split import conflicts
from landslide_mapper.errors import LsmapError


def check_splits(datasets: Sequence[Dataset]) -> None:
    """See that no ground is in different splits of different data sets.

    Raises:
        LsmapError: an image or a place is, so that what is tested would be learnt.
    """
    if len(datasets) < 2:
        return
    found = _contradicting_files(datasets) or _contradicting_ground(datasets)
    if found:
        raise LsmapError(
            f"{', '.join(str(dataset.root) for dataset in datasets)}: {found} in different splits "
            "of them, so tiles that are tested would be learnt; prepare them in one command"
        )


def _contradicting_files(datasets: Sequence[Dataset]) -> str:
    """Pictures without a place: the same file is the same ground."""
    split_of: dict[str, str] = {}
    for dataset in datasets:
        known = {source["name"]: source for source in dataset.info.get("sources", [])}
        for tile in dataset.tiles:
            source = known.get(tile.source, {})
            path = None if source.get("crs") else source.get("path")
            if path and split_of.setdefault(path, tile.split) != tile.split:
                return f"{path} is"
    return ""


def _contradicting_ground(datasets: Sequence[Dataset]) -> str:
    """Tiles of one data set that lie on those of another split of another one."""
    tables = [geopandas.read_file(dataset.root / TILES, layer=LAYER) for dataset in datasets]
    placed = [(n, table) for n, table in enumerate(tables) if table.crs is not None]
    if len(placed) < 2:
        return ""
    crs = placed[0][1].crs
    shapes = np.concatenate([table.to_crs(crs).geometry.to_numpy() for _, table in placed])
    splits = np.concatenate([table["split"].to_numpy() for _, table in placed])
    owner = np.concatenate([np.full(len(table), n) for n, table in placed])
    tolerance = shapely.area(shapes) / datasets[0].tile_size  # a row of pixels
    count = len(conflicts(shapes, list(splits), list(owner), tolerance))
    return f"{count} tiles are" if count else ""
