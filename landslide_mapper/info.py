"""``lsmap info``: what is in a scene or many, a label layer, a dataset, a run or a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from landslide_mapper.checkpoint import BUNDLED, CONFIG, SUFFIX, bundled_model
from landslide_mapper.data.manifest import MANIFEST, is_dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.labels import is_vector
from landslide_mapper.geo.remote import is_local, is_remote, no_such
from landslide_mapper.geo.scene import Source, open_raster
from landslide_mapper.geo.sources import expand_sources, is_several
from landslide_mapper.geo.stac import is_stac_item
from landslide_mapper.inspection.facts import Report
from landslide_mapper.inspection.layers import label_report
from landslide_mapper.inspection.products import dataset_report, model_report, run_report
from landslide_mapper.inspection.scenes import collection_report, scene_report
from landslide_mapper.predictors import is_onnx


def describe(path: str, assets: Sequence[str] = ()) -> Report:
    """Find out what `path` is and describe it.

    Args:
        path: a raster or vector source of GDAL (file, VRT, /vsi…, URL), a folder or pattern of
            rasters, a STAC item, a dataset or run folder, a model file, or ``bundled``.
        assets: of the STAC item, see `expand_sources`.

    Raises:
        LsmapError: `path` is nothing of these, or cannot be read.
    """
    if path == BUNDLED:
        return describe(str(bundled_model()))
    folder = Path(path)
    if folder.name == MANIFEST and folder.is_file():
        return describe(str(folder.parent))
    if is_dataset(folder):
        return dataset_report(path)
    if (folder / CONFIG).is_file():
        return run_report(path)
    if path.lower().endswith(SUFFIX) or is_onnx(path):
        return model_report(path)
    if assets or is_several(path) or is_stac_item(path):
        sources = expand_sources([path], assets)
        if len(sources) > 1:
            return collection_report(sources, path)
        return scene_report(sources[0], path, assets)
    # Some formats of GDAL are folders (FileGDB).
    try:
        open_raster(path).close()
    except LsmapError as error:
        if is_local(path) and not Path(path).exists():
            raise LsmapError(no_such(path, "file or folder")) from None
        if is_vector(path):
            return label_report(path)
        if is_remote(path):
            raise  # it has what the server says
        raise LsmapError(_nothing_known(path, str(error))) from None
    return scene_report(Source(path), path)


def _nothing_known(path: str, raster_error: str) -> str:
    if Path(path).is_dir():
        return (
            f"{path}: this folder is no dataset (no dataset.json) and no run (no config.json), "
            "and there are no scenes in it; give a file in it"
        )
    return (
        f"{path}: neither a raster nor a vector layer that GDAL can read, "
        f"nor a model (*{SUFFIX}), a dataset or a run; as a raster: "
        f"{raster_error.removeprefix(f'{path}: ')}"
    )
