"""What `lsmap explain` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExplainConfig:
    """What was asked for.

    Attributes:
        source: a scene (whatever `lsmap detect` takes, one raster), or the image of a tile in a
            data set of `lsmap prepare`.
        output: folder for the files.
        model: model file or run folder; None: the newest run, else the bundled model.
        labels: polygons of known landslides; None: those of the tile, if it is one.
        threshold: what is called landslide is explained; None: the model's.
        bbox, bbox_crs, aoi, gsd, asset, bands: as in `DetectConfig`.
        device: auto, cpu, cuda or cuda:N.
        overwrite: replace files that exist.
    """

    source: str
    output: Path
    model: str | None = None
    labels: str | None = None
    threshold: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    aoi: str | None = None
    gsd: str | float | None = None
    asset: tuple[str, ...] = ()
    bands: tuple[int, ...] | None = None
    device: str = "auto"
    overwrite: bool = False
