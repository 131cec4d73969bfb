"""``lsmap prepare``: scenes and labels become tiles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import bands, output, overwrite, parsed, word_or_number
from landslide_mapper.config import STRETCHES
from landslide_mapper.data.config import (
    MISSING_MASKS,
    NEGATIVES,
    PAIRS_FITS,
    SAMPLINGS,
    PrepareConfig,
)


def _choice(name: str, allowed: tuple[str, ...], text: str) -> Any:
    """An option that is one of some words; its default is the configuration's."""
    default = getattr(PrepareConfig, name.lstrip("-").replace("-", "_"))
    return click.option(
        name, type=click.Choice(allowed), default=default, show_default=True, help=text
    )


@click.command("prepare", cls=LsmapCommand)
@click.argument("paths", nargs=-1, metavar="SCENE... LABELS")
@output("dataset", "Folder of the data set; it appears when it is complete.")
@overwrite("Replace the data set that is there.")
@click.option("--layer", help="Layer of LABELS, when it has several.")
@click.option("--where", help="SQL condition for the landslides, e.g. \"type = 'slide'\".")
@click.option(
    "--ignore-where",
    help="SQL condition for polygons that are left out, neither landslide nor background.",
)
@click.option("--aoi", type=str, help="Polygons (any format); what is outside is ignored.")
@click.option("--labels-crs", help="CRS of LABELS when the file does not know it, e.g. EPSG:4326.")
@bands("first three")
@click.option("--tile-size", type=int, default=512, show_default=True, help="Pixels a side.")
@click.option("--stride", type=int, help="Pixels from window to window.  [default: tile size]")
@_choice(
    "--sampling",
    SAMPLINGS,
    "Windows of a grid, or a crop around each landslide (large ones scaled to fit).",
)
@click.option(
    "--negatives",
    callback=parsed(word_or_number("all"), "a number such as 0.33, or 'all'"),
    help="Tiles without landslide per tile with, or 'all'.  "
    f"[default: {NEGATIVES}; all with --pairs]",
)
@_choice(
    "--stretch",
    STRETCHES,
    "From pixel values to 1..255, one rule for a whole scene; detect does the same.",
)
@click.option(
    "--pairs",
    nargs=2,
    multiple=True,
    metavar="IMAGES MASKS",
    type=click.Path(path_type=Path),
    help="Two folders instead of SCENE... LABELS: PNG, JPEG, TIFF or HDF5, paired by name.",
)
@_choice(
    "--pairs-fit",
    PAIRS_FITS,
    "Images larger than a tile are scaled down or cut up; smaller ones get a margin.",
)
@_choice(
    "--missing-mask",
    MISSING_MASKS,
    "Images of --pairs without a mask: stop, or take them as free of landslides.",
)
@click.option("--gsd", type=float, help="Pixel size in metres of images that do not know it.")
@click.option(
    "--split-file",
    type=click.Path(path_type=Path),
    help="CSV with the scene or image in its first column and train, val or test in 'split'.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of split and draw.")
@click.option("--workers", type=int, help="Threads.  [default: one per processor]")
def prepare_command(
    paths: tuple[str, ...],
    pairs: tuple[tuple[Path, Path], ...],
    negatives: float | str | None,
    **options: Any,
) -> None:
    """Cut scenes and label polygons into tiles for training.

    SCENE is anything GDAL opens (GeoTIFF, COG, VRT, URL), a folder or a quoted pattern; several may
    be given. LABELS, the last argument, is any vector format in any CRS. Train, validation and test
    (6:2:2) never share ground. Images of --pairs are drawn as wholes, and two may show the same
    ground: --split-file says which one goes where.

    \b
    Examples:
      lsmap prepare scene.tif landslides.shp
      lsmap prepare scenes/*.tif slides.gpkg --layer mapped --where "certainty > 1" -o dataset
      lsmap prepare --pairs images masks --split-file split.csv -o dataset
    """
    from landslide_mapper.prepare import prepare

    report = prepare(
        PrepareConfig(
            scenes=paths[:-1],
            labels=paths[-1] if paths else None,
            pairs=pairs,
            negatives=negatives,
            command=("lsmap", *sys.argv[1:]),
            **options,
        )
    )
    click.echo("\n".join(report.lines()))
