"""Radiometry: one rule and one curve per band for a whole scene, from source values to 1..255.

0 is kept for nodata everywhere in lsmap, so every valid pixel ends in 1..255.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from landslide_mapper.config import STRETCHES
from landslide_mapper.errors import LsmapError, NothingSeenError
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.scene_reader import SceneReader

SAMPLE_SIDE = 1024  # pixels a side of the one decimated read
FEW_VALID = 1000  # pixels of that read; with fewer the whole scene is looked at
STRIP_PIXELS = 16_000_000  # that are looked at together
MAX_KNOTS = 256

Curve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Radiometry:
    """A rule and, per band, the curve (source values, output values) that `np.interp` follows."""

    rule: str
    curves: tuple[Curve, ...]

    def apply(self, data: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Map `data` (B, H, W) to uint8 1..255 where `valid` (H, W) is true, 0 elsewhere."""
        if len(data) != len(self.curves):
            raise ValueError(f"{len(data)} bands given, the radiometry has {len(self.curves)}")
        out = np.empty(data.shape, dtype=np.uint8)
        for band, curve, target in zip(data, self.curves, out, strict=True):
            if data.dtype == np.uint8:  # four times as fast as an index into an array
                bytes_of = band.tobytes().translate(_table(curve, data.dtype.str).tobytes())
                target[:] = np.frombuffer(bytes_of, np.uint8).reshape(band.shape)
            elif data.dtype == np.uint16:
                np.take(_table(curve, data.dtype.str), band, out=target, mode="clip")
            else:
                target[:] = _follow(curve, band)
        if not valid.all():
            out[:, ~valid] = 0
        return out

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"rule": self.rule, "curves": [[list(x), list(y)] for x, y in self.curves]}


def fit(scene: Scene, rule: str, pixels: tuple[np.ndarray, np.ndarray] | None = None) -> Radiometry:
    """Fit `rule` to the scene's valid pixels: to its `sample`, which `pixels` is if it is at hand,
    or to all of them where that has hardly any.

    Raises `LsmapError` for an unknown rule, a scene without valid pixels, and for "none" on
    pixels that are not uint8.
    """
    if rule not in STRETCHES:
        raise LsmapError(f"There is no stretch {rule!r}; choose one of: {', '.join(STRETCHES)}")
    if rule == "none":
        if scene.dtype != "uint8":
            raise LsmapError(
                f"{scene.path}: the stretch 'none' needs uint8 pixels and these are {scene.dtype}; "
                "use 'equalize' or 'percentile'"
            )
        # The curve starts at 1: a valid black pixel must not turn into nodata.
        return Radiometry(rule, (((1.0, 255.0), (1.0, 255.0)),) * len(scene.bands))
    values = _values(scene, *(pixels or sample(scene)))
    if not len(values[0]):
        raise NothingSeenError(
            f"{scene.path}: no valid pixel was found; everything is nodata, transparent or NaN"
        )
    make = _equalize if rule == "equalize" else _percentile
    return Radiometry(rule, tuple(make(band) for band in values))


def sample_digest(scene: Scene) -> str:
    """A digest of pixels and validity all over the scene, which changes when they do."""
    data, valid = sample(scene)
    return hashlib.sha256(data.tobytes() + valid.tobytes()).hexdigest()


def _values(scene: Scene, data: np.ndarray, valid: np.ndarray) -> list[np.ndarray]:
    """Valid values of each band, from a sample of the scene; none where nothing is valid.

    Where the sample has hardly any valid pixel (a sheet at the edge of what was flown), all pixels
    are looked at.
    """
    scene = scene.native or scene  # the curve is the file's, whatever the working pixel size
    if valid.sum() < FEW_VALID and valid.size < scene.height * scene.width:
        return _values_of_all(scene)
    return [band[valid] for band in data]


def sample(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pixels all over a scene, from one decimated read (≤ 1024 a side): (B, h, w), valid (h, w)."""
    scene = scene.native or scene
    with SceneReader(scene) as reader:
        # Single pixels, not means: means would narrow the distribution that is equalised.
        return reader.read(0, 0, scene.height, scene.width, _sample_shape(scene), nearest=True)


def sample_corners(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The corners of `sample` alone, without reading what is between: (B, 2, 2), valid (2, 2)."""
    scene = scene.native or scene
    rows, cols = (
        [int(size / count / 2), int(size - size / count / 2)]
        for size, count in zip((scene.height, scene.width), _sample_shape(scene), strict=True)
    )
    with SceneReader(scene) as reader:
        read = [[reader.read(row, col, 1, 1) for col in cols] for row in rows]
    data, valid = (np.block([[one[part] for one in line] for line in read]) for part in (0, 1))
    return data, valid


def _sample_shape(scene: Scene) -> tuple[int, int]:
    shrink = max(1.0, max(scene.height, scene.width) / SAMPLE_SIDE)
    return max(1, int(scene.height / shrink)), max(1, int(scene.width / shrink))


def _values_of_all(scene: Scene) -> list[np.ndarray]:
    """The valid values of each band, every k-th of them where there are many."""
    kept: list[np.ndarray] = []  # (bands, pixels) of each strip
    step = 1
    rows = max(1, STRIP_PIXELS // scene.width)
    with SceneReader(scene) as reader:
        for row in range(0, scene.height, rows):
            data, valid = reader.read(row, 0, min(rows, scene.height - row), scene.width)
            kept.append(data[:, valid][:, ::step])
            if sum(part.shape[1] for part in kept) > 2 * SAMPLE_SIDE**2:
                kept, step = [part[:, ::2] for part in kept], 2 * step
    return list(np.concatenate(kept, axis=1))


def _equalize(values: np.ndarray) -> Curve:
    """Cumulative share of pixels at each value, the darkest at 1 and the brightest at 255."""
    if values.dtype in (np.uint8, np.uint16):  # counting is many times faster than sorting
        histogram = np.bincount(values)
        levels = np.flatnonzero(histogram)
        counts = histogram[levels]
    else:
        levels, counts = np.unique(values, return_counts=True)
    if len(levels) == 1:
        return (float(levels[0]),), (128.0,)
    share = np.cumsum(counts) / values.size
    out = 1 + 254 * (share - share[0]) / (1 - share[0])
    if len(levels) > MAX_KNOTS:
        wanted = np.interp(np.linspace(1, 255, MAX_KNOTS), out, np.arange(len(levels)))
        keep = np.unique(np.rint(wanted).astype(int))
        levels, out = levels[keep], out[keep]
    return _curve(levels, out)


def _percentile(values: np.ndarray) -> Curve:
    low, high = np.percentile(values, (2, 98))
    if low == high:
        low, high = values.min(), values.max()
    if low == high:
        return (float(low),), (128.0,)
    return _curve(np.array([low, high]), np.array([1.0, 255.0]))


def _curve(x: np.ndarray, y: np.ndarray) -> Curve:
    return tuple(float(v) for v in x), tuple(round(float(v), 3) for v in y)


def _follow(curve: Curve, values: np.ndarray) -> np.ndarray:
    return np.rint(np.interp(values, *curve)).astype(np.uint8)


@lru_cache(maxsize=256)
def _table(curve: Curve, dtype: str) -> np.ndarray:
    return _follow(curve, np.arange(np.iinfo(dtype).max + 1))
