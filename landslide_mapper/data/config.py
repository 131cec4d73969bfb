"""What `lsmap prepare` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from landslide_mapper.config import STRETCHES
from landslide_mapper.errors import LsmapError

SAMPLINGS = ("grid", "centered")
PAIRS_FITS = ("scale", "crop")
MISSING_MASKS = ("error", "background")
LEAST_TILE, TILE_STEP = 64, 8  # pixels a side, and what they are a multiple of
NEGATIVES = 0.33  # tiles without landslide per tile with: few scenes lack ground to draw from


@dataclass(frozen=True)
class PrepareConfig:
    """Options of `lsmap prepare`; either `scenes` with `labels`, or `pairs` of folders.

    `negatives` is the number of tiles without landslide per tile with, "all" keeps all of them;
    None: `NEGATIVES`, with `pairs` all. `gsd` (metres) stands in where images do not know their
    pixel size. `command` is what was typed, word by word, for dataset.json.

    Raises:
        LsmapError: values that cannot be used or do not go together.
    """

    output: Path = Path("dataset")
    scenes: tuple[str, ...] = ()
    labels: str | None = None
    pairs: tuple[tuple[Path, Path], ...] = ()
    layer: str | None = None
    where: str | None = None
    ignore_where: str | None = None
    aoi: str | None = None
    labels_crs: str | None = None
    bands: tuple[int, ...] | None = None
    tile_size: int = 512
    stride: int | None = None
    sampling: str = "grid"
    negatives: float | str | None = None
    stretch: str = "equalize"
    split_file: Path | None = None
    pairs_fit: str = "scale"
    missing_mask: str = "error"
    gsd: float | None = None
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.pairs and (self.scenes or self.labels):
            raise LsmapError("Give either SCENE... LABELS or --pairs IMAGES MASKS, not both")
        if not self.pairs and not (self.scenes and self.labels):
            raise LsmapError(
                "Give at least one SCENE and, last, the LABELS: "
                "lsmap prepare scene.tif labels.shp (or --pairs IMAGES MASKS)"
            )
        if self.tile_size < LEAST_TILE or self.tile_size % TILE_STEP:
            sides = f"a multiple of {TILE_STEP}, at least {LEAST_TILE}"
            raise LsmapError(f"--tile-size {self.tile_size}: use {sides}")
        if self.stride is not None and not 0 < self.stride <= self.tile_size:
            raise LsmapError(f"--stride {self.stride}: use 1 to the tile size ({self.tile_size})")
        if self.negatives not in (None, "all") and not _at_least_0(self.negatives):
            raise LsmapError(f"--negatives {self.negatives}: use 0 or more, or 'all'")
        for name, allowed in (
            ("sampling", SAMPLINGS),
            ("stretch", STRETCHES),
            ("pairs_fit", PAIRS_FITS),
            ("missing_mask", MISSING_MASKS),
        ):
            if (value := getattr(self, name)) not in allowed:
                option = name.replace("_", "-")
                raise LsmapError(f"--{option} {value}: give one of {', '.join(allowed)}")
        if self.gsd is not None and not 0 < self.gsd < math.inf:
            raise LsmapError(f"--gsd {self.gsd}: use a pixel size in metres above 0")
        if self.bands is not None and min(self.bands, default=0) < 1:
            raise LsmapError("--bands: band numbers start at 1, e.g. --bands 1,2,3")
        if self.seed < 0:
            raise LsmapError(f"--seed {self.seed}: use a whole number from 0")
        if self.workers is not None and self.workers < 1:
            raise LsmapError(f"--workers {self.workers}: use 1 or more")
        self._refuse_foreign_options()

    @property
    def step(self) -> int:
        """Pixels from one window to the next: the stride, or else the tile size."""
        return self.stride or self.tile_size

    @property
    def negatives_per_landslide(self) -> float:
        """Tiles without landslide that are kept per tile with; infinite for all."""
        if self.negatives is None:
            return math.inf if self.pairs else NEGATIVES
        return math.inf if self.negatives == "all" else float(self.negatives)

    def _refuse_foreign_options(self) -> None:
        polygons_only = {
            "--layer": self.layer,
            "--where": self.where,
            "--ignore-where": self.ignore_where,
            "--aoi": self.aoi,
            "--labels-crs": self.labels_crs,
            "--sampling centered": self.sampling == "centered",
        }
        folders_only = {
            "--pairs-fit crop": self.pairs_fit != "scale",
            "--missing-mask background": self.missing_mask != "error",
            "--gsd": self.gsd,
        }
        for option, given in (polygons_only if self.pairs else folders_only).items():
            if given:
                other = "SCENE... LABELS" if self.pairs else "--pairs"
                raise LsmapError(f"{option} goes with {other} only")


def _at_least_0(value: float | str | None) -> bool:
    return isinstance(value, float | int) and 0 <= value < math.inf
