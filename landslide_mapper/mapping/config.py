"""What `lsmap detect` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from landslide_mapper import __version__
from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.geo.features import Shaping
from landslide_mapper.geo.remote import shown_name


@dataclass(frozen=True)
class DetectConfig:
    """What was asked for. None: the model's value, or a default that is derived from it.

    Attributes:
        scenes: rasters that GDAL opens, URLs, folders, patterns, STAC items.
        output: polygon layer; its suffix names the format.
        model: model file or run folder; None: the newest run, else the bundled model.
        mask, probability, overlay: extra outputs; a file for one scene, a folder for several.
        threshold: probability from which a pixel is landslide, above 0 and up to 1.
        overlap: pixels that neighbouring windows share; None: a quarter of the window.
        min_area, fill_holes: m²; smaller landslides are left out, smaller holes filled.
        simplify: metres that an outline may move; None: half a pixel, 0: exact pixel edges.
        tta: mean over the 8 symmetries of each window.
        bands: bands of the scene, counted from 1; None: those the model was trained on.
        batch_size: windows predicted at once.
        device: auto, cpu, cuda or cuda:N.
        overwrite: replace outputs that exist.
        bbox: west, south, east, north; only what lies in it is mapped.
        bbox_crs: CRS of `bbox`, e.g. EPSG:4326; None: that of all scenes.
        aoi: vector file; only what lies in its polygons is mapped.
        gsd: pixel size to work at: "model", "native", metres; None: native when it is near the
            model's, else the model's.
        asset: assets of STAC items; none: chosen by name.
        workers: processes on this machine.
        dask: address of a Dask scheduler.
        scratch: folder or s3:// address for unfinished parts; None: beside the output.
    """

    scenes: tuple[str, ...]
    output: Path
    model: str | None = None
    mask: Path | None = None
    probability: Path | None = None
    overlay: Path | None = None
    threshold: float | None = None
    overlap: int | None = None
    min_area: float = 0.0
    fill_holes: float = 0.0
    simplify: float | None = None
    tta: bool = False
    bands: tuple[int, ...] | None = None
    batch_size: int | None = None
    device: str = "auto"
    overwrite: bool = False
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    aoi: str | None = None
    gsd: str | float | None = None
    asset: tuple[str, ...] = ()
    workers: int | None = None
    dask: str | None = None
    scratch: str | None = None

    @property
    def shaping(self) -> Shaping:
        """The options that shape outlines."""
        return Shaping(self.min_area, self.fill_holes, self.simplify)


def provenance(config: DetectConfig, info: ModelInfo) -> dict[str, str]:
    """What was asked for and changes the result, by name and in words, for the outputs."""
    said = {
        "version": __version__,
        "model": info.name,
        "threshold": f"{info.threshold_or(config.threshold):.6g}",
        "overlap": "" if config.overlap is None else f"{config.overlap} pixels",
        "gsd": "" if config.gsd is None else str(config.gsd),
        "bands": ",".join(map(str, config.bands or ())),
        "asset": ",".join(config.asset),
        "bbox": " ".join(f"{value:.10g}" for value in config.bbox or ()),
        "bbox-crs": config.bbox_crs or "",
        "aoi": shown_name(config.aoi) if config.aoi else "",
        "tta": "8 flips and turns" if config.tta else "",
        "min-area": f"{config.min_area:g} m²" if config.min_area else "",
        "fill-holes": f"{config.fill_holes:g} m²" if config.fill_holes else "",
        "simplify": "half a pixel" if config.simplify is None else f"{config.simplify:g} m",
    }
    return {name: value for name, value in said.items() if value}
