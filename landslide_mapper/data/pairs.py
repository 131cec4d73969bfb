"""Folders of images and masks, as public data sets ship them, paired by file name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from landslide_mapper.data.copies import fingerprint
from landslide_mapper.data.masks import Mask, mask_of
from landslide_mapper.data.tiles import Plan, Rendered
from landslide_mapper.errors import LsmapError, LsmapFailure, note
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import Scene, open_raster, open_scene
from landslide_mapper.geo.scene_info import is_plain
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.mask_values import IGNORE, LANDSLIDE

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".h5", ".hdf5", ".hdf"}
HDF5 = {".h5", ".hdf5", ".hdf"}
HDF5_NAMES = ("img", "image", "mask")  # what arrays are called that have others beside them
STRIP = 1024  # rows that are read at once, where nothing is made of an image
MISPLACED = 0.5  # pixels that an image and its mask may be apart
WORDS = r"(?:images?|img|masks?|labels?|lbl|gt|seg)"


@dataclass(frozen=True)
class Pair:
    """An image and its mask (None: no landslide in it)."""

    image: Path
    mask: Path | None


@dataclass(frozen=True)
class ScannedPair:
    """What is known of a pair before its tiles are made: the image, how often each value 0..255
    is in the mask, how many of its pixels say nothing (nodata), what was `said` of the mask,
    whether its compression is `lossy`, the `fingerprint` of the image, by which copies of it are
    told, and whether EXIF wants it `turned` when it is shown, which GDAL does not do."""

    pair: Pair
    scene: Scene
    histogram: np.ndarray
    unknown: int
    said: str
    lossy: bool
    fingerprint: str
    turned: bool


@dataclass(frozen=True)
class MaskRule:
    """How a folder's mask values are read: from `threshold` up is landslide, 255 perhaps ignore."""

    threshold: int
    ignore_255: bool


def find_pairs(images: Path, masks: Path, missing_background: bool) -> list[Pair]:
    """Pair two folders by file stem; "image_1" goes with "mask_1" and "image_1_mask" too.

    Raises `LsmapError` when a folder is empty, a stem is there twice, or images have no mask
    and `missing_background` is false.
    """
    image_of, mask_of = _stems(images), _stems(masks)
    if images.resolve() == masks.resolve():
        raise LsmapError(f"{images}: images and masks must lie in two folders")
    if not set(image_of) & set(mask_of):
        image_of, mask_of = _bare(image_of, images), _bare(mask_of, masks)
    lacking = sorted(stem for stem in image_of if stem not in mask_of)
    if len(lacking) == len(image_of):
        raise LsmapError(
            f"{images} and {masks}: no image has a mask of the same name "
            f"(first image: {next(iter(image_of.values())).name}, "
            f"first mask: {next(iter(mask_of.values())).name})"
        )
    if lacking and not missing_background:
        shown = ", ".join(image_of[stem].name for stem in lacking[:3])
        shown += ", ..." if len(lacking) > 3 else ""
        raise LsmapError(
            f"{masks}: {len(lacking)} image(s) have no mask ({shown}); "
            "to take them as images without landslide add: --missing-mask background"
        )
    unused = len(set(mask_of) - set(image_of))
    if unused:
        note(f"{masks}: {unused} mask(s) have no image and are left out")
    return [Pair(path, mask_of.get(stem)) for stem, path in image_of.items()]


def _stems(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise LsmapError(f"{folder}: there is no such folder (--pairs takes IMAGES and MASKS)")
    seen = [f for f in folder.iterdir() if f.name[0] != "."]  # macOS leaves ._NAME beside NAME
    files = sorted(f for f in seen if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        inner = [f.name for f in sorted(seen) if f.is_dir()]
        raise LsmapError(
            f"{folder}: there are no images in it ({', '.join(sorted(SUFFIXES))})"
            + f"; it has folders, give each a --pairs of its own: {', '.join(inner)}" * bool(inner)
        )
    return _unique(((f.stem.casefold(), f) for f in files), folder)


def _bare(files: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Stems without the words at their ends, such as "mask" or "image"."""
    pattern = re.compile(rf"^{WORDS}[_\- ]?(?=.)|[_\- ]{WORDS}$")
    return _unique(((pattern.sub("", stem), f) for stem, f in files.items()), folder)


def _unique(items: Iterator[tuple[str, Path]], folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for stem, file in items:
        if stem in found:
            raise LsmapError(f"{folder}: {found[stem].name} and {file.name} have the same name")
        found[stem] = file
    return found


@contextmanager
def local_raster(path: Path) -> Iterator[str]:
    """A path that GDAL reads as bands, rows, columns.

    HDF5 arrays of machine-learning data sets have the bands last; they are turned round in memory.
    """
    if path.suffix.lower() not in HDF5:
        yield str(path)
        return
    array = _read_hdf5(path)
    bands, height, width = array.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=bands, dtype=array.dtype
        ) as raster:
            raster.write(array)
        yield memory.name


def _read_hdf5(path: Path) -> np.ndarray:
    try:
        with rasterio.open(path) as top:
            inside = list(top.subdatasets) or [str(path)]
        if len(inside) > 1:
            arrays = [name.rsplit("/", 1)[-1] for name in inside]
            inside = [
                name for name, array in zip(inside, arrays, strict=True) if array in HDF5_NAMES
            ]
            if len(inside) != 1:
                raise LsmapError(
                    f"{path}: there are several arrays in it ({', '.join(arrays)}); keep one, or "
                    f"call the right one {' or '.join(HDF5_NAMES)}"
                )
        with rasterio.open(inside[0]) as raster:
            array = raster.read()
    except RasterioError as error:
        raise LsmapError(f"{path}: GDAL cannot read this as HDF5 ({error})") from error
    # Bands are the short axis: (rows, columns, bands) reads as "rows" bands of columns × bands.
    if array.shape[0] > 1 and array.shape[2] < min(array.shape[:2]):
        array = array.transpose(2, 0, 1)
    return array.astype(np.uint8) if array.dtype == bool else array


def scan(pair: Pair, bands: Sequence[int] | None) -> ScannedPair:
    """Open both files; raises `LsmapError` when their sizes or places differ."""
    with local_raster(pair.image) as path:
        found = open_scene(path, bands, picture=True)
        with open_raster(found) as raster:
            turned = raster.tags().get("EXIF_Orientation", "1") not in ("0", "1")
            shown = fingerprint(_strips(raster, pair.image))
    scene = replace(found, path=str(pair.image))
    mask = _read_mask(pair, scene)
    known = mask.values[~mask.unknown]
    histogram = np.bincount(known, minlength=256)
    unknown = int(mask.unknown.sum())
    return ScannedPair(pair, scene, histogram, unknown, mask.said, mask.lossy, shown, turned)


def _strips(raster: rasterio.DatasetReader, path: Path) -> Iterator[np.ndarray]:
    """The image of `path`, (bands, rows, columns), a number of rows at a time."""
    try:
        for row in range(0, raster.height, STRIP):
            height = min(STRIP, raster.height - row)
            yield raster.read(window=Window(0, row, raster.width, height))
    except RasterioError as error:
        raise LsmapFailure(f"{path}: the image cannot be read ({error})") from error


def _read_mask(pair: Pair, scene: Scene) -> Mask:
    if pair.mask is None:
        shape = (scene.height, scene.width)
        return Mask(np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=bool))
    try:
        with local_raster(pair.mask) as path, rasterio.open(path) as raster:
            _check_place(raster, pair, scene)
            return mask_of(raster)
    except RasterioError as error:
        raise LsmapError(f"{pair.mask}: GDAL cannot read this mask ({error})") from error


def _check_place(mask: rasterio.DatasetReader, pair: Pair, scene: Scene) -> None:
    if mask.shape != (scene.height, scene.width):
        raise LsmapError(
            f"{pair.mask}: the mask has {mask.width}×{mask.height} pixels and its image "
            f"{pair.image.name} has {scene.width}×{scene.height}"
            + "; is one of them turned?"
            * (mask.shape == (scene.width, scene.height))
        )
    if is_plain(mask.transform) or is_plain(scene.transform):
        return  # a picture: it lies where the other one does
    ends = [(0, 0), (scene.width, 0), (0, scene.height)]
    apart = max(np.hypot(*np.subtract(~scene.transform * (mask.transform * e), e)) for e in ends)
    if apart > MISPLACED:
        raise LsmapError(
            f"{pair.mask}: the mask lies {apart:.3g} pixels off its image {pair.image.name}; lay "
            "both on one grid first, with gdalwarp -te and -tr, and north up"
        )


def mask_rule(scans: Sequence[ScannedPair]) -> MaskRule:
    """One rule for the whole folder, from the values found in all its masks.

    0 and 255 only: 255 is landslide. 0, 1 and 255 only: 255 is "ignore". Otherwise every value
    but 0 is landslide, and in JPEG masks and the like (whose edges are smeared) every value from
    128.
    """
    masks = [s.pair.mask for s in scans if s.pair.mask is not None]
    for said in sorted({s.said for s in scans if s.said}):
        note(f"{masks[0].parent}: {said}")
    lossy = [s.lossy for s in scans if s.pair.mask is not None]
    if any(lossy) and not all(lossy):
        one, other = masks[lossy.index(True)], masks[lossy.index(False)]
        raise LsmapError(
            f"{one.parent}: there are masks of lossy compression, such as JPEG ({one.name}), whose "
            f"values are not exact, beside others ({other.name}); give each kind a folder and a "
            "--pairs of its own"
        )
    if any(lossy):
        note(
            f"{masks[0].parent}: masks of lossy compression, such as JPEG: values from 128 up are "
            "taken as landslide"
        )
        return MaskRule(128, ignore_255=False)
    values = {int(v) for v in np.flatnonzero(np.sum([s.histogram for s in scans], axis=0))}
    if values - {0} == {IGNORE}:
        note(f"{masks[0].parent}: the masks hold 0 and 255, and 255 is taken as landslide")
    if values - {0} == {LANDSLIDE, IGNORE}:
        note(f"{masks[0].parent}: the masks hold 0, 1 and 255, and 255 is taken as 'ignore'")
        return MaskRule(1, ignore_255=True)
    if len(values - {0}) > 1:
        some = ", ".join(str(v) for v in sorted(values)[:6])
        note(f"{masks[0].parent}: the masks hold {some}, ...; all but 0 are taken as landslide")
    return MaskRule(1, ignore_255=False)


def landslide_px(scanned: ScannedPair, rule: MaskRule) -> int:
    """Landslide pixels of a pair, at the image's own size."""
    stop = IGNORE if rule.ignore_255 else 256
    return int(scanned.histogram[rule.threshold : stop].sum())


@dataclass(frozen=True)
class PairSource:
    """One image with its mask, as a source of tiles. The radiometry is fitted to the image."""

    name: str
    pair: Pair
    scene: Scene
    rule: MaskRule
    stretch: str

    def render(self, plan: Plan, tile: int) -> Rendered:
        """The pixels of a planned tile. A shrunk mask pixel is landslide when half of it is."""
        with local_raster(self.pair.image) as path:
            scene = replace(self.scene, path=path)
            with SceneReader(scene) as reader:
                data, valid = reader.read(plan.row, plan.col, plan.span, plan.span, (tile, tile))
            image = fit(scene, self.stretch).apply(data, valid)
        mask = self._mask(plan, tile)
        labelled = int((mask == LANDSLIDE).sum())
        mask[~valid] = IGNORE
        return Rendered(image, mask, labelled)

    def _mask(self, plan: Plan, tile: int) -> np.ndarray:
        found = _read_mask(self.pair, self.scene)
        ignored = found.unknown
        if self.rule.ignore_255:
            ignored = ignored | (found.values == IGNORE)
        slides = (found.values >= self.rule.threshold) & ~ignored
        rows = area_weights(plan.row, plan.span, tile, self.scene.height)
        cols = area_weights(plan.col, plan.span, tile, self.scene.width).T
        # A hair under one half: the sums are rounded, and exact halves must not depend on that.
        mask = (rows @ slides.astype(np.float64) @ cols >= 0.5 - 1e-9).astype(np.uint8)
        if ignored.any():
            mask[rows @ ignored.astype(np.float64) @ cols >= 0.5 - 1e-9] = IGNORE
        return mask


def area_weights(start: int, span: int, out: int, size: int) -> np.ndarray:
    """Matrix (out, size): the share of each output cell that each source pixel covers.

    Output cells divide `span` source pixels from `start` on, which may lie outside 0..size.
    """
    edges = start + np.arange(out + 1) * (span / out)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * (out / span)
