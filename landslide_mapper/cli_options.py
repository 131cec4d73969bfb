"""The options of ``lsmap`` commands that have many, in groups; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from landslide_mapper.config import (
    ARCHITECTURES,
    BACKBONES,
    BEST_AT,
    FUSED_VIEWS,
    FUSIONS,
    MASK_BLOCKS,
    OPTIMIZERS,
    SCHEDULES,
    ModelConfig,
    TrainConfig,
)
from landslide_mapper.data.config import (
    MISSING_MASKS,
    NEGATIVES,
    PAIRS_FITS,
    SAMPLINGS,
    STRETCHES,
)


def _integers(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    """Whole numbers out of text such as 4,3,2."""
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter("give whole numbers with commas between, e.g. 1,2,3") from None


def _negatives(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    """A number, "all", or None when the option was not given."""
    if value is None or value == "all":
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter("give a number such as 0.33, or 'all'") from None


def _bbox(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    """Four numbers out of text such as 1.5,2,3,4."""
    if value is None:
        return None
    try:
        west, south, east, north = (float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter("give west,south,east,north, e.g. 103.1,31.2,103.3,31.4") from None
    return west, south, east, north


def _names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names out of text such as red,green,blue."""
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def _gsd(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    """Metres, "model", "native", or None when the option was not given."""
    if value is None or value in ("model", "native"):
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter("give model, native, or metres such as 0.5") from None


def _together(*options: Any) -> Any:
    """One decorator out of several options, which are shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


prepare_settings = _together(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("dataset"),
        show_default=True,
        help="Folder of the data set; it appears when it is complete.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the data set that is there."),
    click.option("--layer", help="Layer of LABELS, when it has several."),
    click.option("--where", help="SQL condition for the landslides, e.g. \"type = 'slide'\"."),
    click.option("--ignore-where", help="SQL condition for polygons that are neither yes nor no."),
    click.option("--aoi", type=str, help="Polygons (any format); what is outside is ignored."),
    click.option(
        "--labels-crs", help="CRS of LABELS when the file does not know it, e.g. EPSG:4326."
    ),
    click.option(
        "--bands", callback=_integers, help="Bands to use, from 1.  [default: first three]"
    ),
    click.option("--tile-size", type=int, default=512, show_default=True, help="Pixels a side."),
    click.option("--stride", type=int, help="Pixels from window to window.  [default: tile size]"),
    click.option(
        "--sampling",
        type=click.Choice(SAMPLINGS),
        default="grid",
        show_default=True,
        help="Windows of a grid, or a crop around each landslide (large ones scaled to fit).",
    ),
    click.option(
        "--negatives",
        callback=_negatives,
        help="Tiles without landslide per tile with, or 'all'.  "
        f"[default: {NEGATIVES}; all with --pairs]",
    ),
    click.option(
        "--stretch",
        type=click.Choice(STRETCHES),
        default="equalize",
        show_default=True,
        help="From pixel values to 1..255, one rule for a whole scene; detect does the same.",
    ),
    click.option(
        "--pairs",
        nargs=2,
        multiple=True,
        metavar="IMAGES MASKS",
        type=click.Path(path_type=Path),
        help="Two folders instead of SCENE... LABELS: PNG, JPEG, TIFF or HDF5, paired by name.",
    ),
    click.option(
        "--pairs-fit",
        type=click.Choice(PAIRS_FITS),
        default="scale",
        show_default=True,
        help="Images larger than a tile are scaled down or cut up; smaller ones get a margin.",
    ),
    click.option(
        "--missing-mask",
        type=click.Choice(MISSING_MASKS),
        default="error",
        show_default=True,
        help="Images of --pairs without a mask: stop, or take them as free of landslides.",
    ),
    click.option("--gsd", type=float, help="Pixel size in metres of images that do not know it."),
    click.option(
        "--split-file",
        type=click.Path(path_type=Path),
        help="CSV with the scene or image in its first column and train, val or test in 'split'.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of split and draw."),
    click.option("--workers", type=int, help="Threads.  [default: one per processor]"),
)

detect_outputs = _together(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("landslides.gpkg"),
        show_default=True,
        help="Polygons: .gpkg, .shp, .geojson (always WGS 84), .fgb or .parquet.",
    ),
    click.option(
        "--model",
        help="Model file, run, or bundled.  [default: newest in ./runs, else the bundled]",
    ),
    click.option(
        "--mask",
        type=click.Path(path_type=Path),
        help="Also write a COG: 0, 1 landslide, 255 not seen. A folder for several REGIONs.",
    ),
    click.option(
        "--probability",
        type=click.Path(path_type=Path),
        help="Also write a COG: percent, 255 not seen. A folder for several REGIONs.",
    ),
    click.option(
        "--overlay",
        type=click.Path(path_type=Path),
        help="Also write a picture (.png) with the outlines. A folder for several REGIONs.",
    ),
)

detect_rules = _together(
    click.option("--threshold", type=float, help="Landslide from here on.  [default: the model's]"),
    click.option("--overlap", type=int, help="Pixels windows share.  [default: a quarter window]"),
    click.option(
        "--min-area",
        type=float,
        default=0.0,
        show_default=True,
        help="Leave out landslides smaller than this, m² (also in the mask).",
    ),
    click.option(
        "--fill-holes",
        type=float,
        default=0.0,
        show_default=True,
        help="Fill holes smaller than this, m² (also in the mask).",
    ),
    click.option(
        "--simplify",
        type=float,
        help="Metres an outline may move; 0 follows the pixel edges.  [default: half a pixel]",
    ),
    click.option("--tta", is_flag=True, help="Mean over 8 flips and turns: 8 times slower."),
)

asset_option = click.option(
    "--asset",
    callback=_names,
    metavar="NAME[,NAME...]",
    help="Assets of STAC items.  [default: visual, else the only raster, else red,green,blue]",
)

detect_area = _together(
    click.option(
        "--bbox",
        callback=_bbox,
        metavar="W,S,E,N",
        help="Only what lies in this rectangle, in the CRS of REGION or of --bbox-crs.",
    ),
    click.option("--bbox-crs", help="CRS of --bbox, e.g. EPSG:4326.  [default: that of REGION]"),
    click.option("--aoi", help="Only what lies in the polygons of this file (any format)."),
    click.option(
        "--gsd",
        callback=_gsd,
        metavar="model|native|METRES",
        help="Pixel size to work at.  [default: native within 1.5 times the model's or beyond 8, "
        "else model]",
    ),
    asset_option,
    click.option(
        "--bands", callback=_integers, help="Bands to use, from 1.  [default: the model's]"
    ),
)

detect_machine = _together(
    click.option(
        "--batch-size", type=int, help="Windows at once.  [default: chosen for the device]"
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--workers", type=int, help="Processes on this machine (Dask)."),
    click.option(
        "--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler (tcp://...)."
    ),
    click.option(
        "--scratch",
        help="Folder or s3:// address for unfinished parts.  [default: beside the output]",
    ),
)


evaluate_settings = _together(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("evaluation"),
        show_default=True,
        help="Folder of the results; they appear when all is done.",
    ),
    click.option(
        "--split", type=click.Choice(["train", "val", "test"]), help="Of DATASET.  [default: test]"
    ),
    click.option("--threshold", type=float, help="Landslide from here on.  [default: the model's]"),
    click.option(
        "--tune/--no-tune",
        default=True,
        show_default=True,
        help="Measure at the best threshold of the validation split as well.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--aoi", help="Polygons: only what lies inside is compared (inventories)."),
    click.option("--layer", help="Layer of SLIDES, when it has several."),
    click.option("--reference-layer", help="Layer of REFERENCE, when it has several."),
    click.option("--overwrite", is_flag=True, help="Replace the results that are there."),
)


explain_outputs = _together(
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path("explained"),
        show_default=True,
        help="Folder of the files, which are called after REGION.",
    ),
    click.option("--labels", help="Known landslides (any format): outlines and figures."),
    click.option(
        "--threshold",
        type=float,
        help="Explain what is called landslide from here on.  [default: the model's]",
    ),
)


_DEFAULTS = vars(ModelConfig()) | vars(TrainConfig())


def _setting(*names: str, kind: Any, text: str, **more: Any) -> Any:
    """An option of `train` that stays unset unless given, so that it can override ``--config``.

    The help has the default of the configuration.
    """
    default = _DEFAULTS[names[-1].lstrip("-").replace("-", "_")]
    if isinstance(default, bool):  # named by the first or second of --this/--that
        shown = names[0].split("/")[0 if default else 1].lstrip("-")
    elif isinstance(default, tuple):
        shown = ",".join(map(str, default))
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    help_text = f"{text}  [default: {shown}]"
    return click.option(*names, type=kind, default=None, help=help_text, **more)


train_settings = _together(
    _setting("--epochs", kind=int, text="Passes over the training tiles."),
    _setting("--batch-size", kind=int, text="Tiles per step and process, even."),
    _setting("--optimizer", kind=click.Choice(OPTIMIZERS), text="Optimiser."),
    _setting("--lr", kind=float, text="Learning rate."),
    _setting("--momentum", kind=float, text="Momentum (β1 of AdamW)."),
    _setting("--weight-decay", kind=float, text="Weight decay."),
    _setting("--schedule", kind=click.Choice(SCHEDULES), text="Learning rate over the run."),
    _setting("--warmup", kind=float, text="Epochs until the full learning rate."),
    _setting("--zoom", kind=float, text="Tiles are zoomed by up to this factor."),
    _setting(
        "--jitter",
        kind=float,
        text="Bands are darkened or brightened by exponents of up to this; 1.5 is much.",
    ),
    _setting(
        "--best-at",
        kind=click.Choice(BEST_AT),
        text="Keep the epoch that is best on validation at p ≥ 0.5, or at its own threshold.",
    ),
    _setting("--workers", kind=int, text="Processes that read tiles."),
    _setting("--device", kind=str, text="auto, cpu, cuda or cuda:N."),
    _setting("--seed", kind=int, text="Seed of all random numbers."),
    _setting("--compile/--no-compile", "compile", kind=bool, text="Compile the network."),
    _setting(
        "--weights",
        kind=str,
        text="Start: imagenet, none, a safetensors file of a backbone; or a model to go on from, "
        "network and all: its file, its run, or bundled.",
    ),
    _setting(
        "--arch",
        kind=click.Choice(ARCHITECTURES),
        text="The network: MRIFE, or one that it is compared with.",
    ),
    _setting("--backbone", kind=click.Choice(BACKBONES), text="ResNet of the encoders."),
    _setting("--last-layer", kind=int, text="Stage the backbone ends with, 3 or 4."),
    _setting("--aspp-channels", kind=int, text="Width of the features."),
    _setting(
        "--aspp-rates",
        kind=str,
        text="Dilations in the ASPP, in cells of 8 pixels; smaller for tiles below 512.",
        callback=_integers,
        metavar="N,N,...",
    ),
    _setting("--mfm/--no-mfm", "mfm", kind=bool, text="Reconstruct masked features."),
    _setting("--sfce/--no-sfce", "sfce", kind=bool, text="Contrast masked features."),
    _setting(
        "--distillation/--no-distillation",
        "distillation",
        kind=bool,
        text="Let a teacher follow the student.",
    ),
    _setting("--fusion", kind=click.Choice(FUSIONS), text="How the two branches are joined."),
    _setting(
        "--fused-view",
        kind=click.Choice(FUSED_VIEWS),
        text="Image whose student features are fused; masked is the paper's and leaks labels.",
    ),
    _setting("--block-size", kind=int, text="Side of a masked block in pixels, 8 or 16."),
    _setting(
        "--mask-blocks", kind=click.Choice(MASK_BLOCKS), text="Blocks that stand for landslide."
    ),
    _setting("--mask-ratio", kind=float, text="Share of those blocks that is masked."),
    _setting("--ema", kind=float, text="Momentum of the teacher."),
    _setting("--temperature", kind=float, text="Temperature of the contrast."),
    _setting("--alpha", kind=float, text="Weight of the reconstruction."),
    _setting("--beta", kind=float, text="Weight of the contrast."),
    _setting("--gamma", kind=float, text="Weight of the cross-entropy."),
    _setting("--round-epochs", kind=int, text="Epochs until ICSSN's two networks take turns."),
    _setting("--dropout", kind=float, text="Dropout in the decoder."),
)
