"""What is run and what it is compared with: Tables III–VI of the paper, scales, public data sets.

Settings are options of ``lsmap train`` without their dashes, all given explicitly: a result is
known by them, so a default that changes later must not change what an old result stands for.
An empty value is a flag. One is not of ``train``: `STRETCH`, with which the tiles are prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.errors import LsmapError

Settings = Mapping[str, str]

STRETCH = "stretch"
"""The one setting that ``lsmap prepare`` takes; rows without it have its default."""

EARLIER = {"prior": "0"}
"""What rows without these settings are run with: options that came after the first results."""

HEADINGS = {
    "accuracy": "PA",
    "precision": "precision",
    "recall": "recall",
    "landslide_iou": "landslide IoU",
    "mean_iou": "mIoU",
    "f1": "F1",
}
"""Metrics as `landslide_mapper.evaluation` names them, and how the tables head them."""

ALL = tuple(HEADINGS)
SHORT = ("landslide_iou", "mean_iou", "f1")


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called, how it is trained, what the paper has for it."""

    label: str
    settings: Settings
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: the number, as ``--only`` takes it.
        title: the rest of the heading.
        metrics: columns.
        rows: lines.
        differences: pairs of labels, the second is subtracted from the first.
        note: what has to be known to read it.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    differences: tuple[tuple[str, str], ...]
    note: str = ""

    def row(self, label: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.label == label)


BASELINE = {"arch": "deeplabv3plus"}
CONTRAST = {"temperature": "0.1", "mask-ratio": "0.5", "block-size": "8"}
ICSSN = {"arch": "icssn", "round-epochs": "1"} | CONTRAST
MRIFE = {
    "arch": "mrife",
    "alpha": "1",
    "mask-blocks": "edge",
    "fusion": "add",
    "fused-view": "whole",
} | CONTRAST
LITERAL = MRIFE | {"fused-view": "masked"}
NO_CONTRAST = MRIFE | {"no-sfce": ""}
NO_RECONSTRUCTION = MRIFE | {"no-mfm": ""}
TWO_ENCODERS = NO_CONTRAST | {"no-mfm": ""}
ADAMW = {"optimizer": "adamw", "lr": "0.0005", "weight-decay": "0.01", "warmup": "0.2"}
ZOOM = {"zoom": "1.5"}
NEAR = {"aspp-rates": "6,12,18"}
JITTER = {"jitter": "1.4"}
AVERAGED = {"average": "2"}
PERCENTILE = {STRETCH: "percentile"}
UNSTRETCHED = {STRETCH: "none"}
MIRRORED = {"unseen": "mirror"}
PRIOR = {"prior": "0.1"}
MOVED = MIRRORED | {"shift": "0.4"}


def _paper(metrics: tuple[str, ...], *values: float) -> dict[str, float]:
    return dict(zip(metrics, values, strict=True))


PAPER_BASELINE = _paper(ALL, 0.9445, 0.4226, 0.6284, 0.3381, 0.6405, 0.5054)
PAPER_ICSSN = _paper(ALL, 0.9493, 0.4531, 0.5911, 0.3743, 0.6610, 0.5446)
# Tables III and IV print 0.3975 for the landslide IoU. Precision, recall and F1 give 0.3934, and
# so say Tables V and VI and the abstract.
PAPER_MRIFE = _paper(ALL, 0.9447, 0.5347, 0.5981, 0.3934, 0.6680, 0.5646)
SLIP = "The paper prints MRIFE's landslide IoU as 0.3975; its precision, recall and F1 give 0.3934."

TABLES = (
    Table(
        "III",
        "comparison of networks",
        ALL,
        (
            Row("Baseline (DeepLabV3+)", BASELINE, PAPER_BASELINE),
            Row("ICSSN", ICSSN, PAPER_ICSSN),
            Row("MRIFE", MRIFE, PAPER_MRIFE),
            Row("MRIFE, masked view fused", LITERAL),
        ),
        (
            ("MRIFE", "Baseline (DeepLabV3+)"),
            ("MRIFE", "ICSSN"),
            ("ICSSN", "Baseline (DeepLabV3+)"),
            ("MRIFE, masked view fused", "Baseline (DeepLabV3+)"),
        ),
        f"{SLIP} The last row fuses the features of the masked image in training, as the paper "
        "has it: the mask gives the labels away. ICSSN's figures do not go together: its precision "
        "and recall make an F1 of 0.5130.",
    ),
    Table(
        "IV",
        "ablation (B: baseline, M: masked feature modelling, C: contrast)",
        ALL[1:],
        (
            Row("B", BASELINE, PAPER_BASELINE),
            Row("B+M", NO_CONTRAST, _paper(ALL[1:], 0.4617, 0.6377, 0.3658, 0.6552, 0.5356)),
            Row("B+C", NO_RECONSTRUCTION),
            Row("B+M+C", MRIFE, PAPER_MRIFE),
        ),
        (("B+M", "B"), ("B+M+C", "B+M"), ("B+M+C", "B+C"), ("B+M+C", "B")),
        f"{SLIP} The paper has no B+C.",
    ),
    Table(
        "V",
        "size of the masked blocks",
        SHORT,
        (
            Row("8 × 8", MRIFE, PAPER_MRIFE),
            Row("16 × 16", MRIFE | {"block-size": "16"}, _paper(SHORT, 0.3648, 0.6548, 0.5346)),
        ),
        (("8 × 8", "16 × 16"),),
    ),
    Table(
        "VI",
        "blocks that are masked",
        SHORT,
        (
            Row("edge and background", MRIFE, PAPER_MRIFE),
            Row(
                "interior and background",
                MRIFE | {"mask-blocks": "interior"},
                _paper(SHORT, 0.3820, 0.6621, 0.5528),
            ),
            Row("all", MRIFE | {"mask-blocks": "all"}, _paper(SHORT, 0.3893, 0.6640, 0.5604)),
        ),
        (("edge and background", "interior and background"), ("edge and background", "all")),
    ),
    Table(
        "figures",
        "what the paper shows in Figs. 6 and 8 only",
        ALL,
        (
            Row("MRIFE", MRIFE),
            Row("without self-distillation (Fig. 6)", MRIFE | {"no-distillation": ""}),
            Row("branches concatenated (Fig. 8)", MRIFE | {"fusion": "concat"}),
        ),
        (
            ("MRIFE", "without self-distillation (Fig. 6)"),
            ("MRIFE", "branches concatenated (Fig. 8)"),
        ),
        "The paper gives no figures for these.",
    ),
    Table(
        "beyond",
        "what the paper does not try",
        ALL,
        (
            Row("B", BASELINE),
            Row("B, AdamW", BASELINE | ADAMW),
            Row("B, AdamW, zoom", BASELINE | ADAMW | ZOOM),
            Row("B, AdamW, jitter", BASELINE | ADAMW | JITTER),
            Row("B, AdamW, mean of the weights", BASELINE | ADAMW | AVERAGED),
            Row("B, AdamW, percentile", BASELINE | ADAMW | PERCENTILE),
            Row("B, AdamW, no stretch", BASELINE | ADAMW | UNSTRETCHED),
            Row("B, percentile", BASELINE | PERCENTILE),
            Row("B+M", NO_CONTRAST),
            Row("B+M, AdamW", NO_CONTRAST | ADAMW),
            Row("two encoders, nothing masked", TWO_ENCODERS),
            Row("B, rates 6/12/18", BASELINE | NEAR),
            Row("B+M, rates 6/12/18", NO_CONTRAST | NEAR),
            Row("B, padding mirrored", BASELINE | MIRRORED),
            Row("MRIFE, padding mirrored", MRIFE | MIRRORED),
            Row("B, from a prior", BASELINE | PRIOR),
            Row("MRIFE, from a prior", MRIFE | PRIOR),
        ),
        (
            ("B, AdamW", "B"),
            ("B, AdamW, zoom", "B, AdamW"),
            ("B, AdamW, jitter", "B, AdamW"),
            ("B, AdamW, mean of the weights", "B, AdamW"),
            ("B, AdamW, percentile", "B, AdamW"),
            ("B, AdamW, no stretch", "B, AdamW"),
            ("B, percentile", "B"),
            ("B+M, AdamW", "B+M"),
            ("B+M, AdamW", "B, AdamW"),
            ("B+M", "two encoders, nothing masked"),
            ("B, rates 6/12/18", "B"),
            ("B+M, rates 6/12/18", "B+M"),
            ("B, padding mirrored", "B"),
            ("MRIFE, padding mirrored", "B, padding mirrored"),
            ("B, from a prior", "B"),
            ("MRIFE, from a prior", "B, from a prior"),
        ),
        "The settings of `lsmap train --recipe best` were chosen by validation, before a look at "
        "the test figures. The two encoders are MRIFE's with its decoder, without its losses. The "
        "paper's rates in the ASPP reach over tiles of 512 pixels; half of them reach over 256. "
        "From a prior, networks start at a probability of 0.1, as all do at full size. "
        "Tiles are stretched by equalisation where nothing else is said, and padded with the mean "
        "colour at reduced size, with mirrored ground at full size.",
    ),
    Table(
        "moved",
        "off the middle of tiles",
        ALL,
        (
            Row("B, moved", BASELINE | MOVED),
            Row("MRIFE, moved", MRIFE | MOVED),
            Row("B, moved, from a prior", BASELINE | MOVED | PRIOR),
            Row("two encoders, moved, from a prior", TWO_ENCODERS | MOVED | PRIOR),
            Row("B+M, moved, from a prior", NO_CONTRAST | MOVED | PRIOR),
            Row("MRIFE, moved, from a prior", MRIFE | MOVED | PRIOR),
            Row("MRIFE, moved, from a prior, β 0.01", MRIFE | MOVED | PRIOR | {"beta": "0.01"}),
        ),
        (
            ("MRIFE, moved", "B, moved"),
            ("two encoders, moved, from a prior", "B, moved, from a prior"),
            ("B+M, moved, from a prior", "two encoders, moved, from a prior"),
            ("B+M, moved, from a prior", "B, moved, from a prior"),
            ("MRIFE, moved, from a prior", "B+M, moved, from a prior"),
            ("MRIFE, moved, from a prior", "B, moved, from a prior"),
            ("MRIFE, moved, from a prior, β 0.01", "B+M, moved, from a prior"),
            ("MRIFE, moved, from a prior, β 0.01", "B, moved, from a prior"),
        ),
        "Trained on tiles that are moved by up to 0.4 of their side, and measured on quarters of "
        "tiles in the middle of windows (`lsmap evaluate --moved`), so that no network gains from "
        "images that were cut around a landslide. Padding is mirrored ground. β weighs the "
        "contrast: at reduced size 0.1 where no other is named, at full size 0.01.",
    ),
)


@dataclass(frozen=True)
class Scale:
    """How large the experiments are.

    Attributes:
        name: as ``--scale`` takes it.
        tile_size: pixels a side.
        seeds: of the runs of each row.
        epochs: by data set.
        settings: the rest, which all rows share.
        by_network: what rows of a network have unless they name it.
        workers: processes that read tiles.
    """

    name: str
    tile_size: int
    seeds: tuple[int, ...]
    epochs: Mapping[str, int]
    settings: Settings
    by_network: Mapping[str, Settings]
    workers: int

    def settings_of(self, row: Row) -> dict[str, str]:
        """What sets a row apart from the others, at this scale."""
        own = {n: value for n, value in row.settings.items() if self.settings.get(n) != value}
        return {**self.by_network.get(row.settings["arch"], {}), **own}


SCALES = {
    # Table II of the paper; β is what validation chose at reduced size.
    "full": Scale(
        "full",
        512,
        (0, 1, 2),
        {"bijie": 100, "sichuan": 100},
        {
            "backbone": "resnet101",
            "last-layer": "4",
            "aspp-channels": "256",
            "dropout": "0.1",
            "prior": "0.1",
            "gamma": "1",
            "batch-size": "4",
            "lr": "0.007",
            "momentum": "0.9",
            "weight-decay": "0.0005",
            "schedule": "constant",
            "unseen": "mirror",
        },
        {"mrife": {"ema": "0.996", "beta": "0.01"}, "icssn": {"beta": "0.1"}},
        4,
    ),
    # What two CPU cores can do in a night, with the recipe of the bundled model. The data sets get
    # about 650 steps each. EMA 0.99, because a memory of 250 steps is too long for that.
    "reduced": Scale(
        "reduced",
        256,
        (0,),
        {"bijie": 4, "sichuan": 10},
        {
            "backbone": "resnet18",
            "last-layer": "3",
            "aspp-channels": "128",
            "dropout": "0.1",
            "gamma": "1",
            "batch-size": "4",
            "lr": "0.03",
            "momentum": "0.9",
            "weight-decay": "0.0005",
            "schedule": "poly",
            "unseen": "mean",
        },
        {"mrife": {"ema": "0.99", "beta": "0.1"}, "icssn": {"beta": "0.1"}},
        0,
    ),
}

DATA = {"bijie": "Bijie", "sichuan": "Sichuan"}
"""Public data sets: folder below ``--data``, and name in headings."""

SPLIT_FILE = "manifest.csv"


def prepare_config(
    name: str, raw: Path, output: Path, tile_size: int, stretch: str
) -> PrepareConfig:
    """How a public data set is prepared: folders of images and masks, or scenes with polygons.

    Images larger than a tile are scaled down, as the paper does; Sichuan's orthophotos, all far
    larger, are cut up. An image without a mask has no landslide. `raw`/manifest.csv, where there
    is one, says which images go to train, val and test.

    Raises:
        LsmapError: `raw` holds neither.
    """
    split_file = raw / SPLIT_FILE
    common = {
        "output": output,
        "tile_size": tile_size,
        "stretch": stretch,
        "split_file": split_file if split_file.is_file() else None,
    }
    if (raw / "images").is_dir() and (raw / "masks").is_dir():
        return PrepareConfig(
            pairs=((raw / "images", raw / "masks"),),
            negatives="all",
            pairs_fit="crop" if name == "sichuan" else "scale",
            missing_mask="background",
            **common,
        )
    scenes = sorted((raw / "scenes").glob("*.tif"))
    if scenes and (raw / "labels.shp").is_file():
        return PrepareConfig(
            scenes=tuple(map(str, scenes)), labels=str(raw / "labels.shp"), **common
        )
    raise LsmapError(
        f"{raw}: neither images/ and masks/ nor scenes/*.tif and labels.shp are there; "
        f"examples/{name}/README.md says how to get them, --data where they are looked for"
    )
