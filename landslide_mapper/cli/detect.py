"""``lsmap detect``: scenes become polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import area, device, output, overwrite, threshold, tta


@click.command("detect", cls=LsmapCommand)
@click.argument("scenes", nargs=-1, required=True, metavar="REGION...")
@output("landslides.gpkg", "Polygons: .gpkg, .shp, .geojson (always WGS 84), .fgb or .parquet.")
@click.option(
    "--model",
    help="Model file, run, or bundled.  [default: newest in ./runs, else the bundled]",
)
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Also write a GeoTIFF: 0 background, 1 landslide, 255 not seen. A folder for several "
    "REGIONs.",
)
@click.option(
    "--probability",
    type=click.Path(path_type=Path),
    help="Also write a GeoTIFF: percent, 255 not seen. A folder for several REGIONs.",
)
@click.option(
    "--overlay",
    type=click.Path(path_type=Path),
    help="Also write a picture (.png) with the outlines. A folder for several REGIONs.",
)
@threshold()
@click.option("--overlap", type=int, help="Pixels windows share.  [default: a quarter window]")
@click.option(
    "--min-area",
    type=float,
    default=0.0,
    show_default=True,
    help="Leave out landslides smaller than this, m² (also in the mask).",
)
@click.option(
    "--fill-holes",
    type=float,
    default=0.0,
    show_default=True,
    help="Fill holes smaller than this, m² (also in the mask).",
)
@click.option(
    "--simplify",
    type=float,
    help="Metres an outline may move; 0 follows the pixel edges.  [default: half a pixel]",
)
@tta
@area
@click.option("--batch-size", type=int, help="Windows at once.  [default: chosen for the device]")
@device
@click.option("--workers", type=int, help="Processes on this machine (Dask).")
@click.option(
    "--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler (tcp://...)."
)
@click.option(
    "--scratch",
    help="Folder or s3:// address for unfinished parts.  [default: beside the output]",
)
@overwrite("Replace outputs that exist.")
def detect_command(**options: Any) -> None:
    """Map the landslides of REGION and write them as polygons.

    REGION is anything GDAL opens (GeoTIFF, VRT, a COG at an https:// or s3:// address), a folder,
    a quoted pattern or a STAC item, and may be larger than memory; several go into one layer, in
    the CRS of the first. Each polygon has its geodesic area and lengths in metres, the mean and
    highest probability, and an empty field for your review.

    A run that was interrupted goes on when the same command is given again.

    \b
    Examples:
      lsmap detect region.tif -o slides.gpkg
      lsmap detect region.tif -o slides.gpkg --mask mask.tif --probability percent.tif
      lsmap detect sheets/*.tif -o slides.gpkg --min-area 500 --fill-holes 200 --overlay pictures
      lsmap detect region.tif --model runs/mrife-resnet18-1 --threshold 0.6 --tta
      lsmap detect https://example.com/cog.tif --bbox 103.1,31.2,103.3,31.4 --bbox-crs EPSG:4326
      lsmap detect item.json --asset red,green,blue --aoi district.gpkg -o slides.gpkg
      lsmap detect drone.tif -o slides.gpkg --gsd 0.5 --workers 8
    """
    from landslide_mapper.detect import detect
    from landslide_mapper.mapping.config import DetectConfig

    report = detect(DetectConfig(**options))
    click.echo(report.summary())
    click.echo(f"Next: open it in QGIS: {report.in_qgis()}")
