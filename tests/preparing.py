"""A scene and landslides to make data sets of, and a data set of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from affine import Affine
from test_scene import write

from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.prepare import PrepareConfig, prepare

GRID = Affine(2, 0, 500000, 0, -2, 4000000)


def write_scene(folder: Path) -> str:
    """700 × 900 pixels of 2 m, uint8, with a strip of nodata on the left."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 255, (3, 700, 900)).astype(np.uint8)
    pixels[:, :, :40] = 0
    return write(folder / "scene one (a).tif", pixels, nodata=0, transform=GRID)


def write_slides(folder: Path) -> str:
    """30 landslides of 40 m in EPSG:4326, one lies in the nodata strip, one outside."""
    rng = np.random.default_rng(2)
    x, y = rng.uniform(500120, 501700, 28), rng.uniform(3998700, 3999900, 28)
    x, y = np.append(x, [500010, 490000]), np.append(y, [3999500, 3999500])
    shapes = geopandas.GeoSeries(shapely.box(x, y, x + 40, y + 40), crs="EPSG:32632")
    frame = geopandas.GeoDataFrame(
        {"kind": ["slide"] * 20 + ["maybe"] * 10}, geometry=shapes.to_crs("EPSG:4326")
    )
    path = folder / "slides.geojson"
    pyogrio.write_dataframe(frame, path)
    return str(path)


def make(folder: Path, scenes: list[str], labels: str, **options: Any) -> Dataset:
    """A data set of tiles of 64 pixels, called `dataset` or `name`."""
    output = folder / options.pop("name", "dataset")
    options = {"tile_size": 64, "workers": 2, **options}
    prepare(PrepareConfig(output=output, scenes=tuple(scenes), labels=labels, **options))
    return load_dataset(output)
