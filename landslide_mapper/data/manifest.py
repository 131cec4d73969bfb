"""A tile data set on disk: what is in it, as plain values. No torch, no pixels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from landslide_mapper.config import SPLITS
from landslide_mapper.errors import LsmapError

SCHEMA_VERSION = 1
MANIFEST = "dataset.json"
IMAGES, MASKS = "images", "masks"  # folders of the tiles
TILES, LAYER = "tiles.gpkg", "tiles"
MIDDLE = 0.5  # of the landslide in the middle quarter of the tiles, above which it is told
MOVE_THEM = "--shift 0.4"  # what to train with then
FIELDS = ("tile_id", "split", "landslide_fraction", "landslide_px", "valid_px", "source")


@dataclass(frozen=True)
class Tile:
    """One tile: image and mask files, and how much landslide is in it (share of valid pixels).

    It stands for itself or, without landslide, for those like it that were not drawn as well.
    """

    tile_id: str
    split: str
    landslide_fraction: float
    landslide_px: int
    valid_px: int
    source: str
    image: Path
    mask: Path
    stands_for: float = 1.0  # windows of the ground


@dataclass(frozen=True)
class Dataset:
    """A folder made by `lsmap prepare`; `info` is its dataset.json."""

    root: Path
    info: dict[str, Any]
    tiles: tuple[Tile, ...]

    @property
    def tile_size(self) -> int:
        """Side of the tiles in pixels."""
        return int(self.info["tile_size"])

    @property
    def bands(self) -> tuple[int, ...]:
        """Band numbers (1-based) of the scenes that the tiles hold, in order."""
        return tuple(int(band) for band in self.info["bands"])

    @property
    def band_count(self) -> int:
        """Number of bands in every tile."""
        return int(self.info["band_count"])

    @property
    def radiometry_rule(self) -> str:
        """The stretch: equalize, percentile or none."""
        return str(self.info["radiometry"]["rule"])

    @property
    def gsd(self) -> float | None:
        """Median pixel size in metres, None when unknown."""
        value = self.info["gsd"]
        return None if value is None else float(value)

    def counts(self, split: str) -> dict[str, int]:
        """What dataset.json counts in a split; older data sets lack some of it."""
        return dict(self.info.get("counts", {}).get(split, {}))

    def in_the_middle(self, split: str = "train") -> float | None:
        """Share of the landslide of a split that lies in the middle quarter of what tiles show.

        A quarter where landslides lie anywhere; None without landslide, and older data sets do not
        tell.
        """
        counts = self.counts(split)
        landslide = counts.get("landslide_px", 0)
        known = landslide and "middle_px" in counts
        return float(counts["middle_px"] / landslide) if known else None

    def undrawn(self, split: str) -> int:
        """About how many windows of a split were left out that show ground, but no landslide.

        Older data sets do not tell.
        """
        return int(self.counts(split).get("undrawn_negatives", 0))

    def centred(self, split: str = "train") -> bool:
        """Whether so much of it lies there that a network learns to look there only."""
        return (self.in_the_middle(split) or 0.0) > MIDDLE

    def middle_in_words(self, split: str = "train") -> str:
        """The same, to begin a warning with, where it is known."""
        share = f"{self.in_the_middle(split):.0%} of the landslide in its {split} tiles"
        return f"{self.root}: {share} lies in their middle quarter"

    @property
    def digest(self) -> str:
        """Tells apart data sets of other tiles, splits, labels or radiometry, wherever they lie."""
        tiles = sorted((t.tile_id, t.split, t.landslide_px, t.valid_px) for t in self.tiles)
        said = json.dumps([self.tile_size, self.radiometry_rule, self.bands, tiles])
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def split(self, name: str) -> tuple[Tile, ...]:
        """The tiles of "train", "val" or "test"."""
        return tuple(tile for tile in self.tiles if tile.split == name)


def is_dataset(folder: str | Path) -> bool:
    """Whether `lsmap prepare` has made a data set in this folder."""
    return (Path(folder) / MANIFEST).is_file()


def load_dataset(path: str | Path) -> Dataset:
    """Open a data set folder.

    Raises `LsmapError` when it is not one, has another schema version, or lacks files.
    """
    root = Path(path)
    info = _read_info(root)
    if info.get("schema_version") != SCHEMA_VERSION:
        raise LsmapError(
            f"{root}: made by another version of lsmap (schema {info.get('schema_version')}, "
            f"this one reads {SCHEMA_VERSION}); run lsmap prepare again"
        )
    try:
        meta, _, _, columns = pyogrio.raw.read(
            root / TILES, layer=LAYER, columns=list(FIELDS), read_geometry=False
        )
        named = dict(zip(meta["fields"], columns, strict=True))
        rows = zip(*(named[field] for field in FIELDS), strict=True)
        tiles = tuple(_tile(root, row) for row in rows)
    except (DataSourceError, DataLayerError, KeyError, TypeError, ValueError) as error:
        raise LsmapError(f"{root}: {TILES} is missing or damaged; run lsmap prepare again") from (
            error
        )
    if astray := [t for t in tiles if t.split not in SPLITS]:
        raise LsmapError(
            f"{root / TILES}: {len(astray)} tiles are in no split of {', '.join(SPLITS)} (first: "
            f"{astray[0].tile_id}, in {astray[0].split!r}); to leave a tile out delete its row"
        )
    lacking = [t for t in tiles if not (t.image.is_file() and t.mask.is_file())]
    if lacking:
        raise LsmapError(
            f"{root}: {len(lacking)} of {len(tiles)} tiles have no image or mask file "
            f"(first: {lacking[0].tile_id}); run lsmap prepare again"
        )
    dataset = Dataset(root, info, tiles)
    _check_entries(dataset)
    return replace(dataset, tiles=tuple(_weighed(dataset)))


def _weighed(dataset: Dataset) -> Iterator[Tile]:
    """The tiles, those without landslide with what they stand for.

    Crops that are centred on landslides are no windows of a grid, and stand for themselves.
    """
    if dataset.info.get("sampling") != "grid":
        yield from dataset.tiles
        return
    drawn = Counter(tile.split for tile in dataset.tiles if not tile.landslide_px)
    weight = {split: 1 + dataset.undrawn(split) / count for split, count in drawn.items()}
    for tile in dataset.tiles:
        yield tile if tile.landslide_px else replace(tile, stands_for=weight[tile.split])


def _read_info(root: Path) -> dict[str, Any]:
    try:
        info = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LsmapError(
            f"{root}: there is no data set here; make one with: lsmap prepare SCENE... LABELS"
        ) from error
    except OSError as error:
        raise LsmapError(f"{root / MANIFEST}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise LsmapError(f"{root / MANIFEST}: damaged ({error}); run lsmap prepare again") from (
            error
        )
    if not isinstance(info, dict):
        raise LsmapError(f"{root / MANIFEST}: damaged; run lsmap prepare again")
    return info


def _check_entries(dataset: Dataset) -> None:
    """Raise `LsmapError` unless all that `Dataset` tells is there and of its kind."""
    try:
        for name in ("tile_size", "bands", "band_count", "radiometry_rule", "gsd"):
            getattr(dataset, name)
        name = "counts"
        for split in SPLITS:
            dataset.in_the_middle(split)
            dataset.undrawn(split)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LsmapError(
            f"{dataset.root / MANIFEST}: damaged (unusable {name}); run lsmap prepare again"
        ) from error


def _tile(root: Path, row: tuple[Any, ...]) -> Tile:
    tile_id, split, fraction, landslide_px, valid_px, source = row
    return Tile(
        tile_id=str(tile_id),
        split=str(split),
        landslide_fraction=float(fraction),
        landslide_px=int(landslide_px),
        valid_px=int(valid_px),
        source=str(source),
        image=root / IMAGES / f"{tile_id}.tif",
        mask=root / MASKS / f"{tile_id}.tif",
    )
