"""``lsmap evaluate``: how good a model or an inventory is."""

from __future__ import annotations

from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import device, output, overwrite, threshold, tta
from landslide_mapper.config import SPLITS


@click.command("evaluate", cls=LsmapCommand)
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL] DATASET | SLIDES REFERENCE")
@output("evaluation", "Folder of the results; they appear when all is done.")
@click.option("--split", type=click.Choice(SPLITS), help="Of DATASET.  [default: test]")
@threshold()
@click.option(
    "--tune/--no-tune",
    default=True,
    show_default=True,
    help="Measure at the best threshold of the validation split as well.",
)
@click.option(
    "--moved",
    is_flag=True,
    help="Show tiles moved by a quarter of their side, as windows of a scene may: 4 times slower.",
)
@tta
@device
@click.option("--aoi", help="Polygons: only what lies inside is compared (inventories).")
@click.option("--layer", help="Layer of SLIDES, when it has several.")
@click.option("--reference-layer", help="Layer of REFERENCE, when it has several.")
@overwrite("Replace the results that are there.")
def evaluate_command(paths: tuple[str, ...], **options: Any) -> None:
    """Measure how good a model is, or how good an inventory.

    MODEL (a model file, a run, or bundled; by default as in detect) predicts the tiles of a split
    of DATASET: metrics of pixels, landslides as objects, boundaries, calibration, and bootstrap
    intervals, as metrics.json and as report.html.

    SLIDES and REFERENCE are polygons in any formats and CRS, two inventories of the same ground:
    shared area, and what became of each landslide, as metrics.json and as verdicts.gpkg for QGIS.
    A match is one to one with an IoU of at least 0.5. A landslide with at least 20 % of its area
    in the other inventory is found in part (partial), any other one is missed, or a false alarm.

    \b
    Examples:
      lsmap evaluate dataset
      lsmap evaluate runs/mrife-resnet18-1 dataset --split val -o evaluation-val
      lsmap evaluate bundled dataset --tta -o evaluation-tta
      lsmap evaluate dataset --moved -o evaluation-moved
      lsmap evaluate slides.gpkg reference.shp --aoi mapped.gpkg -o compared
    """
    from landslide_mapper.evaluate import EvaluateConfig, evaluate

    if len(paths) > 2:
        raise click.UsageError("give [MODEL] DATASET, or two vector files SLIDES REFERENCE")
    subject = paths[0] if len(paths) == 2 else None
    report = evaluate(EvaluateConfig(subject=subject, reference=paths[-1], **options))
    click.echo("\n".join(report.table))
    click.echo(f"Next: look at {report.look_at}")
