"""Scenes: size, place, pixels, and whether the bundled model can map them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from landslide_mapper.checkpoint import ModelInfo, bundled_model, read_info
from landslide_mapper.errors import LsmapError, one_line
from landslide_mapper.geo.crs import crs_code, wgs84_transformer
from landslide_mapper.geo.fill import undeclared_fill
from landslide_mapper.geo.gdal import ERRORS
from landslide_mapper.geo.scene import Scene, Source, open_raster, open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.inspection.facts import Fact, Report, crs_text, to_detect
from landslide_mapper.serving import (
    ELONGATED,
    MAX_ENLARGED,
    near_training,
    odd_order,
    refusal,
    size_ratio,
)

LOOK_SIDE = 1024  # side of the decimated read behind the valid share
PROBE_GRID = 8  # a huge raster without overviews is judged by 8 × 8 windows instead
PROBE_SIDE = 256
READ_WHOLE_PX = 100_000_000
SHOWN = 5  # scenes of many that are named


def scene_report(source: Source, path: str, assets: Sequence[str] = ()) -> Report:
    """One scene: how it is stored, where it lies, what of it is valid, and who can map it."""
    with open_raster(source) as raster:
        try:
            facts = _structure(raster)
        except ERRORS as error:
            raise LsmapError(
                f"{path}: what it is made of cannot be read ({one_line(error)}); put that back, or "
                "make the file anew"
            ) from error
    try:
        scene = open_scene(source)
    except LsmapError as error:
        text = f"cannot be used: {_reason(source, error)}"
        return Report("scene", path, (*facts, Fact("usable", "for lsmap", False, text)))
    with SceneReader(scene) as reader:
        valid, *filled = _pixels(scene, reader, facts)
    if valid.value == 0:
        served = Fact("bundled_model", "model", False, "nothing to map: no valid pixel was seen")
    else:
        served = _by_bundled(partial(_serves, scene))
    command = None if served.value is False else to_detect(path, assets)
    return Report("scene", path, (*facts, valid, *filled, *_place(scene), served), command)


def collection_report(sources: Sequence[Source], path: str) -> Report:
    """Several scenes that are to be mapped in one run: what they share and where they differ."""
    scenes, unusable = [], []
    for source in sources:
        try:
            scenes.append(open_scene(source))
        except LsmapError as error:
            unusable.append({"path": source.path, "reason": _reason(source, error)})
    pixels = sum(scene.width * scene.height for scene in scenes)
    facts = [
        Fact("scenes", "scenes", len(sources), f"{len(sources)}"),
        Fact("pixels", "pixels", pixels, f"{pixels / 1e6:,.0f} million"),
        _tally("crs", "CRS", (crs_code(scene.crs) or "none" for scene in scenes)),
        _tally("bands", "bands", (f"{scene.count} {scene.dtype}" for scene in scenes)),
        _pixel_sizes(scenes),
        _extent(scenes),
        _refused("unusable", "for lsmap", unusable, len(sources), "can be used"),
    ]
    refused = bool(unusable)
    if scenes:
        facts.append(_by_bundled(partial(_serves_all, scenes)))
        refused |= bool(facts[-1].value)
    return Report("scenes", path, tuple(facts), None if refused else to_detect(path))


def _reason(source: Source, error: LsmapError) -> str:
    return str(error).removeprefix(f"{source.path}: ")


def _tally(key: str, label: str, values: Iterable[str]) -> Fact:
    """How many scenes have which value, the most frequent first."""
    counts = dict(Counter(values).most_common())
    if len(counts) == 1:
        return Fact(key, label, counts, f"{next(iter(counts))}, all scenes")
    text = "\n".join(f"{value}: {count}" for value, count in counts.items())
    return Fact(key, label, counts, text or "unknown")


def _pixel_sizes(scenes: Sequence[Scene]) -> Fact:
    sizes = [scene.pixel_side for scene in scenes if scene.pixel_side]
    if not sizes:
        return Fact("gsd_m", "pixel size", None, "unknown in metres")
    low, high = min(sizes), max(sizes)
    text = f"{low:.4g} m" if high < 1.001 * low else f"{low:.4g} to {high:.4g} m"
    if len(sizes) < len(scenes):
        text += f", unknown of {len(scenes) - len(sizes)}"
    return Fact("gsd_m", "pixel size", [low, high], text)


def _extent(scenes: Sequence[Scene]) -> Fact:
    known = [bounds for bounds in map(lonlat_bounds, scenes) if bounds is not None]
    if not known:
        return Fact("lonlat", "lon, lat", None, "unknown")
    bounds = _around(np.array(known))
    text = _bounds_text(bounds)
    if len(known) < len(scenes):
        text += f", without {len(scenes) - len(known)} whose place is not known"
    return Fact("lonlat", "lon, lat", bounds, text)


def _around(boxes: np.ndarray) -> list[float]:
    """West, south, east, north of boxes (n, 4) in EPSG:4326, by the shorter way round the earth.

    West is greater than east where that way leads over the antimeridian, as in the boxes.
    """
    west, south, east, north = boxes.T
    width = np.where(west > east, east - west + 360, east - west)
    reach = [float(((west - start) % 360 + width).max()) for start in west]
    start, end = -180.0, 180.0
    if min(reach) < 360:
        start = float(west[int(np.argmin(reach))])
        end = start + min(reach)
    return [start, float(south.min()), end - 360 if end > 180 else end, float(north.max())]


def _refused(key: str, label: str, reasons: list[dict[str, str]], count: int, good: str) -> Fact:
    """How many of `count` scenes are good, and the first few reasons why others are not."""
    if not reasons:
        return Fact(key, label, [], f"all {good}")
    lines = [f"{count - len(reasons)} of {count} {good}; not:"]
    lines += [f"{entry['path']}: {entry['reason']}" for entry in reasons[:SHOWN]]
    if len(reasons) > SHOWN:
        lines.append(f"and {len(reasons) - SHOWN} more")
    return Fact(key, label, reasons, "\n".join(lines))


def _by_bundled(judge: Callable[[ModelInfo], Fact]) -> Fact:
    """What the bundled model can map, or that this installation has none."""
    try:
        model = read_info(bundled_model())
    except LsmapError as error:
        return Fact("bundled_model", "model", None, str(error))
    return judge(model)


def _serves_all(scenes: Sequence[Scene], model: ModelInfo) -> Fact:
    """Which scenes the model cannot map."""
    refused = [
        {"path": scene.path, "reason": reason}
        for scene in scenes
        if (reason := refusal(scene, model))
    ]
    good = f"can be served by {model.name} (bundled)"
    return _refused("bundled_model_refuses", "model", refused, len(scenes), good)


def _structure(raster: rasterio.DatasetReader) -> list[Fact]:
    size = [raster.width, raster.height]
    colours = [c.name for c in raster.colorinterp]
    overviews = raster.overviews(1) if raster.count else []
    packed = raster.compression or "none"
    compression = getattr(packed, "name", packed).lower()  # text where rasterio has no name for it
    block = [int(n) for n in reversed(raster.block_shapes[0])] if raster.count else []
    laid = "tiles" if raster.profile.get("tiled") else "strips"
    types = sorted(set(raster.dtypes))
    # Of a mosaic not all bands need have one, and a hole in any of them is one.
    nodata = next((value for value in raster.nodatavals if value is not None), None)
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
        _nodata(nodata, masked, ColorInterp.alpha in raster.colorinterp),
    ]


def _nodata(value: float | None, masks: set[MaskFlags], alpha: bool) -> Fact:
    """What hides pixels: a mask or, where there is none, a nodata value; and an alpha band."""
    known: float | str | None = "alpha" if alpha else None
    said = ["alpha band"] if alpha else []
    if MaskFlags.per_dataset in masks and MaskFlags.alpha not in masks:
        known = "mask"
        told = "" if value is None else f"; its nodata value {value:g} does not count"  # as in GDAL
        said.insert(0, f"mask{told}")
    elif value is not None:
        known = value if math.isfinite(value) else f"{value:g}"  # JSON has no nan, no inf
        said.insert(0, f"value {value:g}")
    return Fact("nodata", "nodata", known, " and ".join(said) or "none declared")


def _pixels(scene: Scene, reader: SceneReader, known: list[Fact]) -> list[Fact]:
    """Share of valid pixels from one decimated read, or from windows where that is dear.

    With that read it is followed by what looks like nodata that is not declared, if anything.
    """
    filled = []
    overviews = next(fact.value for fact in known if fact.key == "overviews")
    if overviews or scene.width * scene.height <= READ_WHOLE_PX:
        scale = max(1.0, max(scene.width, scene.height) / LOOK_SIDE)
        shape = (max(1, round(scene.height / scale)), max(1, round(scene.width / scale)))
        data, valid = reader.read(0, 0, scene.height, scene.width, out_shape=shape, nearest=True)
        if fill := undeclared_fill(data, valid):
            text = f"{fill.share:.0%} of the pixels are {fill.value:g}, up to a corner: nodata?"
            filled.append(Fact("fill", "", {"value": fill.value, "share": fill.share}, text))
        how = f"from {shape[1]} x {shape[0]} pixels" if scale > 1 else "of all pixels"
        share = float(valid.mean())
    else:
        side = min(PROBE_SIDE, scene.width, scene.height)
        rows = np.linspace(0, scene.height - side, PROBE_GRID).astype(int)
        cols = np.linspace(0, scene.width - side, PROBE_GRID).astype(int)
        shares = [reader.read(r, c, side, side)[1].mean() for r in rows for c in cols]
        share, how = float(np.mean(shares)), f"from {PROBE_GRID**2} windows of {side} x {side}"
    return [Fact("valid_share", "valid", round(share, 6), f"{share:.1%} ({how})"), *filled]


def _place(scene: Scene) -> list[Fact]:
    facts = [Fact("crs", "CRS", crs_code(scene.crs), crs_text(scene.crs))]
    gsd = list(scene.gsd) if scene.gsd else None
    text = f"{gsd[0]:.4g} x {gsd[1]:.4g} m at the centre" if gsd else "unknown in metres"
    facts.append(Fact("gsd_m", "pixel size", gsd, text))
    bounds = lonlat_bounds(scene)
    no_way = "unknown without a CRS" if scene.crs is None else "no way from this CRS to EPSG:4326"
    facts.append(Fact("lonlat", "lon, lat", bounds, _bounds_text(bounds) if bounds else no_way))
    return facts


def lonlat_bounds(scene: Scene) -> list[float] | None:
    """West, south, east, north in EPSG:4326; None without a CRS or a way to EPSG:4326."""
    to_lonlat = wgs84_transformer(scene.crs)
    if to_lonlat is None:
        return None
    bounds = to_lonlat.transform_bounds(*scene.bounds)
    return [float(b) for b in bounds] if np.all(np.isfinite(bounds)) else None


def _bounds_text(bounds: list[float]) -> str:
    west, south, east, north = bounds
    return f"{west:.6f} to {east:.6f}, {south:.6f} to {north:.6f}"


def _serves(scene: Scene, model: ModelInfo) -> Fact:
    """Whether the model can map this scene."""
    reason = refusal(scene, model)
    if reason:
        return Fact("bundled_model", "model", False, f"{model.name} cannot serve it: {reason}")
    text = f"{model.name} (bundled) can serve it"
    if odd := odd_order(scene, model):
        text += f", but {odd}"
    ratio = size_ratio(scene, model)
    if ratio is not None and not near_training(ratio):
        times = f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"
        text += f", but its pixels are {times} times those of the training: "
        if ratio > MAX_ENLARGED:
            text += "do not trust it unchecked"
        else:
            text += f"detect reads it at {model.gsd:.2g} m"
    elif scene.elongation >= ELONGATED:
        text += ", but its pixels are not square: detect reads it with square ones"
    return Fact("bundled_model", "model", True, text)
