"""Which tiles to make of folders of images and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from landslide_mapper.data.bands import check_bands
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.data.footprints import settle
from landslide_mapper.data.layout import TileLayout
from landslide_mapper.data.names import unique_names
from landslide_mapper.data.pairs import (
    MaskRule,
    PairSource,
    ScannedPair,
    find_pairs,
    landslide_px,
    mask_rule,
    scan,
)
from landslide_mapper.data.split import draw_groups, read_split_file
from landslide_mapper.data.tiles import ForEach, Plan
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo import grid

COPIES = "images are copies, maybe turned or mirrored, of"


def pair_layout(config: PrepareConfig, for_each: ForEach) -> TileLayout:
    """The layout for folders of images and masks."""
    scans, rules = _scan_folders(config, for_each)
    check_bands([s.scene for s in scans], config.bands)
    px = [landslide_px(s, rule) for s, rule in zip(scans, rules, strict=True)]
    if not any(px):
        raise LsmapError(f"{config.pairs[0][1]}: no mask has any landslide in it")
    names = unique_names([s.pair.image.stem for s in scans])
    facts: dict[str, Any] = {"labels": {"masks": [str(masks) for _, masks in config.pairs]}}
    if config.split_file:
        splits = read_split_file(config.split_file, [s.pair.image.name for s in scans])
        facts["split"] = {"method": "file", "file": str(config.split_file)}
    else:
        splits = draw_groups(_copies(scans), px, config.seed)
        facts["split"] = {"method": "images"}
    _tell_of_copies(scans, splits)
    sources = [
        PairSource(name, s.pair, s.scene, rule, config.stretch)
        for name, s, rule in zip(names, scans, rules, strict=True)
    ]
    plans = [
        plan
        for i, (source, split) in enumerate(zip(sources, splits, strict=True))
        for plan in _plans(config, i, source, split)
    ]
    plans, facts["dropped_overlapping"] = settle(plans, sources)
    return TileLayout(
        sources=tuple(sources),
        positives=tuple(p for p in plans if px[p.source]),
        negatives=tuple(p for p in plans if not px[p.source]),
        gsd=tuple(s.scene.pixel_side or config.gsd for s in scans),
        facts=facts,
    )


def _scan_folders(
    config: PrepareConfig, for_each: ForEach
) -> tuple[list[ScannedPair], list[MaskRule]]:
    """All pairs, and the rule that each one's folder of masks follows."""
    background = config.missing_mask == "background"
    found = [find_pairs(images, masks, background) for images, masks in config.pairs]
    paths = Counter(pair.image.resolve() for folder in found for pair in folder)
    for path, times in paths.most_common(1):
        if times > 1:  # it would be in two splits
            raise LsmapError(f"{path}: is given twice; name every folder of --pairs once")
    scans: list[ScannedPair] = []
    rules: list[MaskRule] = []
    for (_, masks), folder in zip(config.pairs, found, strict=True):
        own = list(for_each(partial(scan, bands=config.bands), folder, "masks"))
        _warn_of_turned(own)
        rule = mask_rule(own)
        unknown = sum(s.unknown for s in own)
        if unknown and not any(landslide_px(s, rule) for s in own):
            raise LsmapError(
                f"{masks}: no mask has any landslide in it ({unknown} of their pixels are nodata, "
                "which is ignored; if it is not meant so: gdal_edit.py -unsetnodata MASK)"
            )
        _check_share(masks, own, rule)
        scans += own
        rules += [rule] * len(own)
    return scans, rules


def _warn_of_turned(scans: Sequence[ScannedPair]) -> None:
    """Say that images are shown turned elsewhere: masks that were drawn there do not fit."""
    if turned := [s.pair.image for s in scans if s.turned]:
        warn(
            f"{len(turned)} images are read as they are stored, though their EXIF orientation says "
            "to turn them, as many programs for labels do; if these masks were drawn on turned "
            f"images, turn the files first (mogrify -auto-orient): {turned[0]}"
        )


def _check_share(masks: Path, scans: Sequence[ScannedPair], rule: MaskRule) -> None:
    """Refuse masks without background, warn of much landslide: colours may be the other way round.

    Raises:
        LsmapError: every pixel is landslide.
    """
    landslide = sum(landslide_px(s, rule) for s in scans)
    background = sum(int(s.histogram[: rule.threshold].sum()) for s in scans)
    if landslide and not background:
        raise LsmapError(
            f"{masks}: every pixel of every mask is landslide; background must be 0 (black, in all "
            "bands)"
        )
    if landslide > background:
        share = landslide / (landslide + background)
        warn(f"{masks}: {share:.0%} of the pixels are landslide; is background 0 (black) there?")


def _copies(scans: Sequence[ScannedPair]) -> list[int]:
    """The number of the first image that shows the same, for each: data sets hold copies."""
    first: dict[str, int] = {}
    return [first.setdefault(s.fingerprint, number) for number, s in enumerate(scans)]


def _tell_of_copies(scans: Sequence[ScannedPair], splits: Sequence[str]) -> None:
    """Say that images are copies of others; warn where a file of splits has them in several."""
    firsts = _copies(scans)
    again = [number for number, first in enumerate(firsts) if number != first]
    apart = [number for number in again if splits[number] != splits[firsts[number]]]
    for number in (apart or again)[:1]:
        pair = f"{scans[number].pair.image} is {scans[firsts[number]].pair.image.name}"
        if apart:
            warn(f"{len(apart)} {COPIES} one in another split, so it is learnt: {pair}")
        else:
            note(f"{len(again)} {COPIES} others, and in the same split: {pair}")


def _plans(config: PrepareConfig, index: int, source: PairSource, split: str) -> list[Plan]:
    tile, height, width = config.tile_size, source.scene.height, source.scene.width
    if config.pairs_fit == "crop":
        # Also what is no larger than a tile: an image may be called as a crop of another is.
        stride = config.step
        return [
            Plan(f"{source.name}_r{row:05d}_c{col:05d}", index, row, col, tile, split)
            for row in grid.axis_starts(height, tile, stride)
            for col in grid.axis_starts(width, tile, stride)
        ]
    span = max(height, width, tile)  # larger images shrink to fit, smaller ones get a margin
    return [Plan(source.name, index, -((span - height) // 2), -((span - width) // 2), span, split)]
