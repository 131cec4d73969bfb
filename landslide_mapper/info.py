"""``lsmap info``: what is in a scene, a label layer, a dataset, a run or a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import rasterio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import MaskFlags

from landslide_mapper.checkpoint import SUFFIX, ModelInfo, bundled_model
from landslide_mapper.config import read_train_config
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.labels import Labels, crs_name, read_labels
from landslide_mapper.geo.measure import Measurer, wgs84_transformer
from landslide_mapper.geo.remote import is_local, is_remote
from landslide_mapper.geo.scene import Scene, SceneReader, is_raster, open_raster, open_scene
from landslide_mapper.history import read_log
from landslide_mapper.predictors import ONNX_SUFFIX, read_info
from landslide_mapper.serving import MAX_ENLARGED, near_training, refusal, size_ratio

LOOK_SIDE = 1024  # side of the decimated read behind the valid share
PROBE_GRID = 8  # a huge raster without overviews is judged by 8 × 8 windows instead
PROBE_SIDE = 256
READ_WHOLE_PX = 100_000_000


@dataclass(frozen=True)
class Fact:
    """One thing that is known: a key and JSON value for machines, a label and text for people."""

    key: str
    label: str
    value: Any
    text: str


@dataclass(frozen=True)
class Report:
    """What `describe` found; `kind` is scene, labels, dataset, run or model."""

    kind: str
    path: str
    facts: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "path": self.path, **{f.key: f.value for f in self.facts}}

    def to_text(self) -> str:
        """A heading and one aligned row per fact; further lines of a text are indented."""
        width = max(len(fact.label) for fact in self.facts)
        lines = [f"{self.kind}: {self.path}"]
        for fact in self.facts:
            first, *rest = fact.text.split("\n")
            lines.append(f"  {fact.label:<{width}}  {first}".rstrip())
            lines += [f"  {'':<{width}}  {line}".rstrip() for line in rest]
        return "\n".join(lines)


def describe(path: str) -> Report:
    """Find out what `path` is and describe it.

    `path` is a raster or vector source of GDAL (file, VRT, /vsi…, URL), a dataset or run folder,
    or a model file. Raises `LsmapError` for anything else.
    """
    folder = Path(path)
    if folder.is_dir():
        if (folder / "dataset.json").is_file():
            return Report("dataset", path, _dataset(folder))
        if (folder / "config.json").is_file():
            return Report("run", path, _run(folder))
        # Some formats of GDAL are folders (FileGDB); they are tried as sources below.
    if path.endswith((SUFFIX, ONNX_SUFFIX)):
        return Report("model", path, _model(read_info(path), folder))
    if path.endswith("dataset.json") and folder.is_file():
        return describe(str(folder.parent))
    if is_raster(path):
        return Report("scene", path, _scene(path))
    if _is_vector(path):
        return Report("labels", path, _labels(path))
    if is_remote(path):
        open_raster(path).close()  # raises what the server says
    raise LsmapError(_nothing_known(path))


def _nothing_known(path: str) -> str:
    if is_local(path) and not Path(path).exists():
        return f"{path}: there is no such file or folder."
    if Path(path).is_dir():
        return (
            f"{path}: this folder is no dataset (no dataset.json) and no run (no config.json); "
            "give a file in it."
        )
    return (
        f"{path}: neither a raster nor a vector layer that GDAL can read, "
        f"nor a model (*{SUFFIX}), a dataset or a run."
    )


def _is_vector(path: str) -> bool:
    try:
        return len(pyogrio.list_layers(path)) > 0
    except (DataSourceError, DataLayerError):
        return False


# --- scene -----------------------------------------------------------------------------------


def _scene(path: str) -> tuple[Fact, ...]:
    with open_raster(path) as raster:
        facts = _structure(raster)
    try:
        scene = open_scene(path)
    except LsmapError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return (*facts, Fact("usable", "for lsmap", False, f"cannot be used: {reason}"))
    with SceneReader(scene) as reader:
        facts.append(_valid_share(scene, reader, facts))
    return (*facts, *_place(scene), _serves(scene))


def _structure(raster: rasterio.DatasetReader) -> list[Fact]:
    size = [raster.width, raster.height]
    colours = [c.name for c in raster.colorinterp]
    overviews = raster.overviews(1) if raster.count else []
    compression = raster.compression.name.lower() if raster.compression else "none"
    block = [int(n) for n in reversed(raster.block_shapes[0])] if raster.count else []
    laid = "tiles" if raster.profile.get("tiled") else "strips"
    types = sorted(set(raster.dtypes))
    masked = {flag for flags in raster.mask_flag_enums for flag in flags}
    return [
        Fact("size", "size", size, f"{size[0]} x {size[1]} pixels (columns x rows)"),
        Fact("bands", "bands", raster.count, f"{raster.count} ({', '.join(colours)})"),
        Fact("dtype", "type", types, ", ".join(types)),
        Fact("driver", "format", raster.driver, f"{raster.driver}, compression {compression}"),
        Fact("block", "blocks", block, f"{laid} of {' x '.join(map(str, block)) or 'nothing'}"),
        Fact(
            "overviews",
            "overviews",
            overviews,
            ", ".join(f"1:{n}" for n in overviews) or "none (gdaladdo makes zooming fast)",
        ),
        _nodata(raster.nodata, masked),
    ]


def _nodata(value: float | None, masks: set[MaskFlags]) -> Fact:
    if MaskFlags.alpha in masks:
        return Fact("nodata", "nodata", "alpha", "alpha band")
    if value is not None:
        number = None if math.isnan(value) else value
        return Fact("nodata", "nodata", "nan" if number is None else value, f"value {value:g}")
    if MaskFlags.per_dataset in masks:
        return Fact("nodata", "nodata", "mask", "internal mask")
    return Fact("nodata", "nodata", None, "none declared")


def _valid_share(scene: Scene, reader: SceneReader, known: list[Fact]) -> Fact:
    """Share of valid pixels from one decimated read, or from windows where that is dear."""
    overviews = next(fact.value for fact in known if fact.key == "overviews")
    if overviews or scene.width * scene.height <= READ_WHOLE_PX:
        scale = max(1.0, max(scene.width, scene.height) / LOOK_SIDE)
        shape = (max(1, round(scene.height / scale)), max(1, round(scene.width / scale)))
        _, valid = reader.read(0, 0, scene.height, scene.width, out_shape=shape, nearest=True)
        how = f"from {shape[1]} x {shape[0]} pixels" if scale > 1 else "of all pixels"
        share = float(valid.mean())
    else:
        side = min(PROBE_SIDE, scene.width, scene.height)
        rows = np.linspace(0, scene.height - side, PROBE_GRID).astype(int)
        cols = np.linspace(0, scene.width - side, PROBE_GRID).astype(int)
        shares = [reader.read(r, c, side, side)[1].mean() for r in rows for c in cols]
        share, how = float(np.mean(shares)), f"from {PROBE_GRID**2} windows of {side} x {side}"
    return Fact("valid_share", "valid", round(share, 6), f"{share:.1%} ({how})")


def _place(scene: Scene) -> list[Fact]:
    facts = [Fact("crs", "CRS", _crs_code(scene.crs), _crs_text(scene.crs))]
    gsd = list(scene.gsd) if scene.gsd else None
    text = f"{gsd[0]:.4g} x {gsd[1]:.4g} m at the centre" if gsd else "unknown in metres"
    facts.append(Fact("gsd_m", "pixel size", gsd, text))
    bounds = lonlat_bounds(scene)
    facts.append(Fact("lonlat", "lon, lat", bounds, _bounds_text(scene.crs, bounds)))
    return facts


def _crs_code(crs: pyproj.CRS | None) -> str | None:
    return None if crs is None else crs_name(crs)


def _crs_text(crs: pyproj.CRS | None) -> str:
    if crs is None:
        return "none: polygons of it would have no place (gdal_edit.py -a_srs EPSG:... sets one)"
    code = crs_name(crs)
    return code if code == crs.name else f"{code} ({crs.name})"


def lonlat_bounds(scene: Scene) -> list[float] | None:
    """West, south, east, north in EPSG:4326; None without a CRS or a way to EPSG:4326."""
    to_lonlat = wgs84_transformer(scene.crs)
    if to_lonlat is None:
        return None
    xs, ys = zip(*scene.corners(0, 0, scene.height, scene.width), strict=True)
    bounds = to_lonlat.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    return [float(b) for b in bounds] if np.all(np.isfinite(bounds)) else None


def _bounds_text(crs: pyproj.CRS | None, bounds: list[float] | None) -> str:
    if bounds is None:
        return "unknown without a CRS" if crs is None else "no way from this CRS to EPSG:4326"
    west, south, east, north = bounds
    return f"{west:.6f} to {east:.6f}, {south:.6f} to {north:.6f}"


def _serves(scene: Scene) -> Fact:
    """Whether the bundled model can map this scene."""
    try:
        model = read_info(bundled_model())
    except LsmapError as error:
        return Fact("bundled_model", "model", None, str(error))
    reason = refusal(scene, model)
    if reason:
        return Fact("bundled_model", "model", False, f"{model.name} cannot serve it: {reason}")
    text = f"{model.name} (bundled) can serve it"
    ratio = size_ratio(scene, model)
    if ratio is not None and not near_training(ratio):
        text += f", but its pixels are {ratio:.2g} times those of the training: "
        if ratio > MAX_ENLARGED:
            text += "do not trust it unchecked"
        else:
            text += f"detect reads it at {model.gsd:.2g} m"
    return Fact("bundled_model", "model", True, text)


def _bands(bands: tuple[int, ...] | list[int]) -> str:
    return ",".join(str(b) for b in bands)


# --- labels ----------------------------------------------------------------------------------


def _labels(path: str) -> tuple[Fact, ...]:
    rows = [_layer(path, str(name), kind) for name, kind in pyogrio.list_layers(path)]
    text = "\n".join(row["text"] for row in rows)
    for row in rows:
        del row["text"]
    return (Fact("layers", "layers", rows, text),)


def _layer(path: str, name: str, kind: str | None) -> dict[str, Any]:
    """One layer: JSON values, and its lines of text under "text"."""
    meta = pyogrio.read_info(path, layer=name)
    fields = [str(f) for f in meta["fields"]]
    row: dict[str, Any] = {"layer": name, "geometry": kind, "fields": fields}
    if kind is None:
        row["text"] = f"{name}: table without geometry"
        return row
    labels = read_labels(path, layer=name)
    area, reason = _area(labels)
    row |= {"crs": _crs_code(labels.crs), **labels.counts.to_dict(), "area_m2": area}
    counts = labels.counts
    row["text"] = "\n".join(
        [
            f"{name}: {counts.features} features, {kind}",
            f"  CRS       {_crs_text(labels.crs) if labels.crs else 'none (see --labels-crs)'}",
            f"  polygons  {len(labels.polygons)} usable, {counts.repaired} of them repaired",
            f"  left out  {counts.null_or_empty} null or empty, {counts.not_polygon} not polygons, "
            f"{counts.degenerate} without area",
            f"  area      {reason if area is None else f'{area:,.1f} m² (geodesic)'}",
            f"  fields    {', '.join(fields) or 'none'}",
        ]
    )
    return row


def _area(labels: Labels) -> tuple[float | None, str]:
    """Total geodesic area in m², or None and why not."""
    if labels.crs is None:
        return None, "unknown without a CRS"
    if labels.crs.is_geocentric:
        return None, "unknown: geocentric coordinates are not a map"
    geod = labels.crs.get_geod()
    if geod is None or labels.crs.geodetic_crs is None:
        return None, "unknown: the CRS has no ellipsoid"
    unit = labels.crs.axis_info[0].unit_conversion_factor if labels.crs.axis_info else 1.0
    metres = unit * geod.a if labels.crs.is_geographic else unit  # per unit of the coordinates
    measurer = Measurer(labels.crs, Affine.identity(), metres)
    return float(measurer.area(shapely.get_parts(labels.polygons)).sum()), ""


# --- dataset, run, model ---------------------------------------------------------------------


def _dataset(folder: Path) -> tuple[Fact, ...]:
    dataset = load_dataset(folder)
    info = dataset.info
    splits = {name: _split_counts(dataset.split(name)) for name in ("train", "val", "test")}
    return (
        Fact("tiles", "tiles", len(dataset.tiles), f"{len(dataset.tiles)} in all"),
        Fact("splits", "splits", splits, _split_table(splits)),
        _plain("tile_size", "tile size", dataset.tile_size, " pixels"),
        Fact("bands", "bands", list(dataset.bands), _bands(dataset.bands)),
        _plain("radiometry", "radiometry", dataset.radiometry_rule),
        _plain("gsd_m", "pixel size", dataset.gsd, " m"),
        _sources(info.get("sources", [])),
        _plain("created", "created", info.get("created")),
        _plain("lsmap_version", "by lsmap", info.get("lsmap_version")),
    )


def _plain(key: str, label: str, value: Any, unit: str = "") -> Fact:
    if value is None:
        return Fact(key, label, None, "unknown")
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Fact(key, label, value, shown + unit)


def _split_counts(tiles: tuple[Any, ...]) -> dict[str, float]:
    landslide, valid = sum(t.landslide_px for t in tiles), sum(t.valid_px for t in tiles)
    return {
        "tiles": len(tiles),
        "positive_tiles": sum(t.landslide_px > 0 for t in tiles),
        "landslide_px": landslide,
        "valid_px": valid,
        "landslide_share": round(landslide / valid, 6) if valid else 0.0,
    }


def _split_table(splits: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':<6}{'tiles':>8}{'with landslide':>16}{'landslide pixels':>18}"]
    for name, row in splits.items():
        lines.append(
            f"{name:<6}{row['tiles']:>8}{row['positive_tiles']:>16}{row['landslide_share']:>18.2%}"
        )
    return "\n".join(lines)


def _sources(sources: list[dict[str, Any]]) -> Fact:
    names = [str(source.get("name", source.get("path", "?"))) for source in sources]
    shown = names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"]
    return Fact("sources", "sources", names, "\n".join(shown) or "unknown")


def _run(folder: Path) -> tuple[Fact, ...]:
    config = read_train_config(folder / "config.json")
    model = config.model
    facts = [
        Fact("datasets", "datasets", list(config.datasets), ", ".join(config.datasets)),
        Fact(
            "backbone",
            "network",
            model.backbone,
            f"{model.arch}, {model.backbone} up to layer{model.last_layer}, start {config.weights}",
        ),
        Fact(
            "epochs",
            "settings",
            config.epochs,
            f"{config.epochs} epochs, batch {config.batch_size}, lr {config.lr:g}, "
            f"seed {config.seed}",
        ),
        _log(folder / "log.csv"),
    ]
    best = folder / f"best{SUFFIX}"
    if best.is_file():
        facts += _model(read_info(best), best)
    else:
        facts.append(Fact("model", "model", None, "none yet (best.safetensors is not there)"))
    return tuple(facts)


def _log(path: Path) -> Fact:
    """The last epoch and the best one by validation landslide IoU."""
    rows = read_log(path) if path.is_file() else []
    # JSON has no NaN, which is what the losses of resting parts are.
    rows = [{name: x for name, x in row.items() if not math.isnan(x)} for row in rows]
    if not rows:
        return Fact("log", "log", None, "no epoch has ended yet")
    best = max(rows, key=lambda row: row["landslide_iou"])
    text = (
        f"{len(rows)} epochs ended; best landslide IoU on validation "
        f"{best['landslide_iou']:.4f} in epoch {best['epoch']:.0f}"
    )
    return Fact("log", "log", {"epochs": len(rows), "best": best, "last": rows[-1]}, text)


def _model(info: ModelInfo, path: Path) -> tuple[Fact, ...]:
    size = path.stat().st_size
    card = path.with_suffix(".md")
    metrics = dict(info.metrics)
    return (
        _plain("name", "name", info.name),
        Fact("arch", "network", info.arch, f"{info.arch}, {info.backbone}"),
        Fact("model_bands", "bands", list(info.bands), _bands(info.bands)),
        _plain("radiometry", "radiometry", info.radiometry),
        _plain("tile_size", "tile size", info.tile_size, " pixels"),
        _plain("gsd_m", "pixel size", info.gsd, " m"),
        _plain("threshold", "threshold", info.threshold),
        Fact("calibration", "calibration", list(info.calibration), _calibration(info)),
        Fact("metrics", "validation", metrics, _metrics_text(metrics)),
        Fact("data", "trained on", info.data, info.data or "not said"),
        _plain("epoch", "epoch", info.epoch),
        _plain("created", "created", info.created or None),
        Fact("bytes", "file", size, f"{size / 1e6:.1f} MB, written by lsmap {info.lsmap_version}"),
        Fact("card", "card", str(card) if card.is_file() else None, _card_text(card)),
    )


def _calibration(info: ModelInfo) -> str:
    scale, shift = info.calibration
    return f"logits × {scale:.3f} {'-' if shift < 0 else '+'} {abs(shift):.3f}, in the weights"


def _metrics_text(metrics: dict[str, float]) -> str:
    return "\n".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "not said"


def _card_text(card: Path) -> str:
    return str(card) if card.is_file() else "none beside the file"
