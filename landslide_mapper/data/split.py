"""Train, validation and test apart in space: blocks, the draw, an author's split, overlaps."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import shapely

from landslide_mapper.config import SPLITS
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.scene_info import RASTER_SUFFIXES

SHARES = (0.6, 0.2, 0.2)
FACTORS = (4, 2, 1)  # block sides that are tried, in tiles
WANTED_BLOCKS = 10  # blocks with landslide that make a draw worth its name
DRAWS = 300
SUFFIXES = (*RASTER_SUFFIXES, ".geotiff", ".bmp", ".h5", ".hdf5", ".hdf")

DELIMITERS = ",;\t"  # spreadsheets write semicolons where the comma is for decimals

_ALIASES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


@dataclass(frozen=True)
class SplitBlock:
    """A piece of one source's territory, in pixels; rows [top, bottom), columns [left, right)."""

    source: int
    top: int
    bottom: int
    left: int
    right: int


def blocks_of(source: int, height: int, width: int, side: int) -> list[SplitBlock]:
    """Cut a source into squares of `side` pixels, smaller ones at the bottom and right."""
    return [
        SplitBlock(source, top, min(top + side, height), left, min(left + side, width))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def block_factor(cells: Sequence[tuple[int, int, int]]) -> int:
    """Side of the blocks in tiles: the largest of 4, 2, 1 that leaves ten blocks with landslide.

    `cells` are (source, tile row, tile column) of the tiles that hold some landslide.
    """
    for factor in FACTORS:
        if len({(s, r // factor, c // factor) for s, r, c in cells}) >= WANTED_BLOCKS:
            return factor
    return FACTORS[-1]


def draw(weights: Sequence[float], seed: int) -> list[str]:
    """Draw a split for each unit, close to 6:2:2 in number and in weight (landslide area).

    Units are taken in groups of five of similar weight; each group gives three to train and one
    each to val and test. Of many such draws the one nearest 6:2:2 in weight is taken. Units
    without weight are drawn in the same way among themselves.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(weights, dtype=float)
    out = np.empty(len(values), dtype=object)
    positive = np.flatnonzero(values > 0)
    out[positive] = _best_draw(values[positive], rng)
    rest = np.flatnonzero(values <= 0)
    out[rest] = _strata(np.zeros(len(rest)), rng)
    return [str(split) for split in out]


def draw_groups(groups: Sequence[int], weights: Sequence[float], seed: int) -> list[str]:
    """As `draw`, with one split for all units of a group: they show the same ground."""
    by_group = dict.fromkeys(groups, 0.0)
    for group, weight in zip(groups, weights, strict=True):
        by_group[group] += weight
    drawn = dict(zip(by_group, draw(list(by_group.values()), seed), strict=True))
    return [drawn[group] for group in groups]


def _best_draw(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    best, best_error = _strata(values, rng), np.inf
    for _ in range(DRAWS):
        names = _strata(values, rng)
        shares = [values[names == split].sum() / max(values.sum(), 1e-12) for split in SPLITS]
        error = float(np.square(np.subtract(shares, SHARES)).sum())
        if error < best_error:
            best, best_error = names, error
    return best


def _strata(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # Random order first, so that equal weights fall into groups by chance.
    order = rng.permutation(len(values))
    order = order[np.argsort(-values[order], kind="stable")]
    names = np.empty(len(values), dtype=object)
    for start in range(0, len(order), 5):
        group = order[start : start + 5]
        pattern = ["train", "val", "test", "train", "train"]
        if start:  # an incomplete last group must not always favour the same splits
            pattern = list(rng.permutation(pattern))
        names[group] = rng.permutation(pattern[: len(group)])
    return names


def read_split_file(path: Path, names: Sequence[str]) -> list[str]:
    """The split of each source, from a table: name (with or without suffix) first, column `split`.

    Raises `LsmapError` when the file has no such column, a value is none of train, val and test,
    or a source is not listed.
    """
    known: dict[str, str] = {}
    for number, name, split in _listed_splits(path):
        value = split.strip().lower()
        value = _ALIASES.get(value, value)
        if value not in SPLITS:
            raise LsmapError(f"{path}, line {number}: split {value!r} is none of train, val, test")
        if known.setdefault(source_key(name), value) != value:
            raise LsmapError(f"{path}, line {number}: {name!r} is in two splits")
    missing = [name for name in names if source_key(name) not in known]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise LsmapError(f"{path}: {len(missing)} scene(s) or image(s) not listed: {shown}")
    return [known[source_key(name)] for name in names]


def _listed_splits(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, name and split of each line, as they stand in the file."""
    try:
        text = path.read_text("utf-8-sig")
        header, *_ = text.splitlines() or [""]
        delimiter = next((d for d in DELIMITERS if "split" in _columns(header, d)), None)
        rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter or ",")
        numbered = [(rows.line_num, row) for row in rows if any(map(str.strip, row))]
    except FileNotFoundError as error:
        raise LsmapError(f"{path}: there is no such split file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LsmapError(f"{path}: the split file cannot be read ({error})") from error
    if delimiter is None or len(numbered) < 2:
        raise LsmapError(
            f"{path}: a split file needs a header line, the scene or image name in the first "
            "column, and a column 'split' (separated by commas, semicolons or tabs)"
        )
    column = _columns(header, delimiter).index("split")
    for number, row in numbered[1:]:
        yield number, row[0], row[column] if column < len(row) else ""


def _columns(header: str, delimiter: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]


def source_key(name: str) -> str:
    """What a split file's name and a source's name are compared by: the file's name, no suffix.

    Only that of an image is one: ``ortho_2024.05`` has none.
    """
    file = PureWindowsPath(name.strip()).name.casefold()  # takes / and \\
    return file.removesuffix(next((end for end in SUFFIXES if file.endswith(end)), ""))


def conflicts(
    footprints: np.ndarray, splits: Sequence[str], sources: Sequence[int], tolerance: np.ndarray
) -> set[int]:
    """Windows to drop so that no ground is in two splits.

    `footprints` are polygons in one CRS, `tolerance` an area for each, as of a pixel or a row of
    them: less than that is rounding, not overlap. Of two windows the train one goes first, then
    val, so that the test set stays whole.
    """
    tree = shapely.STRtree(footprints)
    one, other = tree.query(footprints, predicate="intersects")
    split_of, source_of = np.asarray(splits), np.asarray(sources)
    pairs = (one < other) & (split_of[one] != split_of[other])
    pairs &= source_of[one] != source_of[other]
    one, other = one[pairs], other[pairs]
    shared = shapely.area(shapely.intersection(footprints[one], footprints[other]))
    real = shared > np.minimum(tolerance[one], tolerance[other])
    dropped: set[int] = set()
    # Settle pairs that hold a test window first, so that what is dropped there counts.
    ranked = sorted(
        (
            (SPLITS.index(splits[a]), a, SPLITS.index(splits[b]), b)
            for a, b in zip(one[real], other[real], strict=True)
        ),
        key=lambda pair: -max(pair[0], pair[2]),
    )
    for rank_a, a, rank_b, b in ranked:
        if a not in dropped and b not in dropped:
            dropped.add(int(a if rank_a < rank_b else b))
    return dropped
