"""``lsmap explain``: where a model looks."""

from __future__ import annotations

from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import area, device, output, overwrite, threshold


@click.command("explain", cls=LsmapCommand)
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL] REGION")
@output("explained", "Folder of the files, which are called after REGION.")
@click.option("--labels", help="Known landslides (any format): outlines and figures.")
@threshold("Probability from which on a pixel is landslide, and explained.")
@area
@device
@overwrite("Replace files that exist.")
def explain_command(paths: tuple[str, ...], **options: Any) -> None:
    """Show where a model looks in REGION: Grad-CAM of its branches.

    MODEL is a model file, a run, or bundled; by default as in detect. REGION is a scene of any
    size, or a tile of a data set (DATASET/images/TILE.tif), which brings its labels. What speaks
    for the pixels that the model calls landslide is drawn for the segmentation branch, the
    enhancement branch and both fused: as rasters (percent of each one's maximum, 255 not seen)
    with a style, as pictures, and as figures in a JSON file. With labels these are the mean heat
    inside them, on their edge, in their interior and outside, in percent of the map's maximum, and
    (heat_inside) the share of all heat that lies inside.

    \b
    Examples:
      lsmap explain region.tif --labels landslides.gpkg
      lsmap explain runs/mrife-resnet18-1 dataset/images/TILE.tif -o explained
      lsmap explain region.tif --bbox 103.1,31.2,103.3,31.4 --bbox-crs EPSG:4326
    """
    from landslide_mapper.explain import ExplainConfig, explain
    from landslide_mapper.geo.scene import is_raster

    if len(paths) > 2:
        raise click.UsageError("give [MODEL] REGION, one scene or tile at a time")
    model = paths[0] if len(paths) == 2 else None
    if model is not None and is_raster(model):
        raise click.UsageError(
            f"{model} is a scene, and MODEL comes before it; labels go after --labels"
        )
    report = explain(ExplainConfig(source=paths[-1], model=model, **options))
    click.echo(report.summary())
    click.echo(f"Next: look at {report.overview}, or in QGIS: {report.in_qgis()}")
