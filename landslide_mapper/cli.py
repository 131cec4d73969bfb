"""The ``lsmap`` commands: parse, call one function, print. No logic.

Heavy imports stay inside the commands, so that ``lsmap --help`` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import click

from landslide_mapper import __version__
from landslide_mapper.cli_options import (
    asset_option,
    detect_area,
    detect_machine,
    detect_outputs,
    detect_rules,
    evaluate_settings,
    explain_outputs,
    prepare_settings,
    train_settings,
)
from landslide_mapper.config import RECIPES
from landslide_mapper.errors import LsmapError, one_line

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _remember_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta["verbose"] = True


class LsmapCommand(click.Command):
    """A command with ``-v``, which every command of lsmap has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_remember_verbose,
                help="Show the full traceback of an error.",
            )
        )


class LsmapGroup(click.Group):
    """Turns errors into one line and an exit code; ``-v`` shows the traceback as well."""

    command_class = LsmapCommand

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of lsmap end the process with their exit code."""
        try:
            return super().invoke(ctx)
        except LsmapError as error:
            if ctx.meta.get("verbose"):
                traceback.print_exc()
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("verbose"):
                raise
            click.echo(
                f"Error: lsmap did not expect this ({type(error).__name__}: {one_line(error)}); "
                "run it again with -v and report what it shows",
                err=True,
            )
            sys.exit(1)


@click.group(cls=LsmapGroup, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="lsmap")
def main() -> None:
    """Map landslides in large georeferenced images.

    \b
    lsmap prepare scene.tif labels.shp      tiles for training, in ./dataset
    lsmap train                             a model, in ./runs
    lsmap detect region.tif -o slides.gpkg  landslide polygons, ready for QGIS
    """


@main.command()
@click.argument("paths", nargs=-1, metavar="SCENE... LABELS")
@prepare_settings
def prepare(
    paths: tuple[str, ...],
    pairs: tuple[tuple[Path, Path], ...],
    negatives: float | str | None,
    **options: Any,
) -> None:
    """Cut scenes and label polygons into tiles for training.

    SCENE is anything GDAL opens (GeoTIFF, COG, VRT, URL), a folder or a quoted pattern; several may
    be given. LABELS, the last argument, is any vector format in any CRS. Train, validation and test
    (6:2:2) never share ground.

    \b
    Examples:
      lsmap prepare scene.tif landslides.shp
      lsmap prepare scenes/*.tif slides.gpkg --layer mapped --where "certainty > 1" -o dataset
      lsmap prepare --pairs images masks --split-file split.csv -o dataset
    """
    import shlex

    from landslide_mapper.prepare import PrepareConfig
    from landslide_mapper.prepare import prepare as run_prepare

    report = run_prepare(
        PrepareConfig(
            scenes=paths[:-1],
            labels=paths[-1] if paths else None,
            pairs=pairs,
            negatives=negatives,
            command=shlex.join(["lsmap", *sys.argv[1:]]),
            **options,
        )
    )
    click.echo("\n".join(report.lines()))


@main.command("train")
@click.argument("datasets", nargs=-1, type=click.Path())
@click.option(
    "-o",
    "--output",
    "run",
    type=click.Path(path_type=Path),
    help="Folder of the run.  [default: runs/<arch>-<backbone>-<number>]",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Read the settings of an earlier run's config.json; options given here override it.",
)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    help="Defaults: the paper's, or those that did best in a few short runs.  [default: paper]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run of -o (else the last one) after its last finished epoch.",
)
@click.option(
    "--final",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Train once more as RUN did, on its validation tiles as well: see above.",
)
@click.option("--tensorboard", is_flag=True, help="Write events for TensorBoard as well.")
@train_settings
def train_command(
    datasets: tuple[str, ...],
    run: Path | None,
    config_file: Path | None,
    recipe: str | None,
    resume: bool,
    final: Path | None,
    tensorboard: bool,
    **settings: Any,
) -> None:
    """Train a network on the tiles of DATASET (default: ./dataset).

    The defaults are MRIFE with the paper's settings but for --fused-view, and guesses where it
    gives none (α, β, γ, τ). Several datasets are trained on together.
    With few labels, or without a GPU, go on from a trained model: --weights bundled.

    Once the settings are chosen, --final RUN repeats RUN on training and validation tiles together,
    for as many epochs as its best one had; calibration and threshold are RUN's. Such a model has
    seen more ground, and only the test split can still measure it.

    \b
    Examples:
      lsmap train
      lsmap train dataset --weights bundled --recipe best --epochs 5
      lsmap train dataset --backbone resnet18 --epochs 20 --device cpu
      lsmap train dataset --arch deeplabv3plus
      lsmap train dataset --no-sfce
      lsmap train --resume
      lsmap train --final runs/mrife-resnet18-1
      torchrun --nproc-per-node=2 -m landslide_mapper train dataset
    """
    from landslide_mapper.train import train
    from landslide_mapper.training.runs import plan_run

    run, config = plan_run(run, config_file, recipe, resume, datasets, settings, final)
    report = train(config, run, resume, tensorboard)
    if report.leads:
        click.echo(report.summary())
        click.echo(f"Next: lsmap detect REGION.tif -o slides.gpkg --model {report.run}")


@main.command("detect")
@click.argument("scenes", nargs=-1, required=True, metavar="REGION...")
@detect_outputs
@detect_rules
@detect_area
@detect_machine
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
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
    click.echo(f"Next: open it in QGIS: {report.qgis_command()}")


@main.command("evaluate")
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL] DATASET | SLIDES REFERENCE")
@evaluate_settings
def evaluate_command(paths: tuple[str, ...], **options: Any) -> None:
    """Measure how good a model is, or how good an inventory.

    MODEL (a model file, a run, or bundled; by default as in detect) predicts the tiles of a split
    of DATASET: metrics of pixels, landslides as objects, boundaries, calibration, and bootstrap
    intervals, as metrics.json and as report.html.

    SLIDES and REFERENCE are polygons in any formats and CRS, two inventories of the same ground:
    shared area, and which landslides match, are missed or are false alarms, as metrics.json and
    as verdicts.gpkg for QGIS.

    \b
    Examples:
      lsmap evaluate dataset
      lsmap evaluate runs/mrife-resnet18-1 dataset --split val -o evaluation-val
      lsmap evaluate slides.gpkg reference.shp --aoi mapped.gpkg
    """
    from landslide_mapper.evaluate import EvaluateConfig, evaluate

    if len(paths) > 2:
        raise click.UsageError("give [MODEL] DATASET, or two vector files SLIDES REFERENCE")
    subject = paths[0] if len(paths) == 2 else None
    report = evaluate(EvaluateConfig(subject=subject, reference=paths[-1], **options))
    click.echo("\n".join(report.table))
    click.echo(f"Next: look at {report.look_at}")


@main.command("explain")
@click.argument("paths", nargs=-1, required=True, metavar="[MODEL] REGION")
@explain_outputs
@detect_area
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def explain_command(paths: tuple[str, ...], **options: Any) -> None:
    """Show where a model looks when it maps REGION: Grad-CAM of its branches.

    MODEL is a model file, a run, or bundled; by default as in detect. REGION is a scene of any
    size, or a tile of a data set (DATASET/images/TILE.tif), which brings its labels. What speaks
    for the pixels that the model calls landslide is drawn for the segmentation branch, the
    enhancement branch and both fused: as rasters (percent of each one's maximum, 255 not seen)
    with a style, as pictures, and as figures in a JSON file.

    \b
    Examples:
      lsmap explain region.tif --labels landslides.gpkg
      lsmap explain runs/mrife-resnet18-1 dataset/images/TILE.tif -o explained
      lsmap explain region.tif --bbox 103.1,31.2,103.3,31.4 --bbox-crs EPSG:4326
    """
    from landslide_mapper.explain import ExplainConfig, explain

    if len(paths) > 2:
        raise click.UsageError("give [MODEL] REGION, one scene or tile at a time")
    model = paths[0] if len(paths) == 2 else None
    report = explain(ExplainConfig(source=paths[-1], model=model, **options))
    click.echo(report.summary())
    click.echo(f"Next: look at {report.overview}, or in QGIS: {report.qgis_command()}")


@main.command()
@click.argument("path")
@asset_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
def info(path: str, asset: tuple[str, ...], as_json: bool) -> None:
    """Say what is in PATH: a scene, a label layer, a dataset, a run or a model.

    A folder, a quoted pattern or a STAC item stand for scenes, as in detect.

    \b
    Examples:
      lsmap info scene.tif
      lsmap info sheets/
      lsmap info labels.shp
      lsmap info dataset
      lsmap info runs/mrife-resnet18-1 --json
      lsmap info bundled
    """
    import json

    from landslide_mapper.info import describe

    report = describe(path, asset)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not as_json and (command := report.next_command):
        click.echo(f"Next: {command}")


@main.command("export")
@click.argument("model", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("model.onnx"),
    show_default=True,
    help="The ONNX file; it appears when it is complete and checked.",
)
@click.option("--scene", help="Put the stretch of this scene (uint8) into the graph.")
@click.option("--opset", type=int, default=18, show_default=True, help="Version of the operators.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
def export_command(**options: Any) -> None:
    """Write MODEL as ONNX, for GeoDeep, Deepness in QGIS, and onnxruntime.

    MODEL is a model file, the folder of a run, or bundled; by default the newest run in ./runs,
    else the bundled model. Normalisation is inside the graph, and what the tools need to know
    (classes, threshold, resolution, window, overlap) in its metadata. With --scene they may be fed
    raw pixels of that scene. Without, lsmap detect --model takes the file as well.

    \b
    Examples:
      lsmap export -o model.onnx
      lsmap export runs/mrife-resnet18-1 -o model.onnx
      lsmap export -o region.onnx --scene region.tif
      geodeep region.tif region.onnx
    """
    from landslide_mapper.export import ExportConfig, export

    report = export(ExportConfig(**options))
    click.echo(report.summary())
    click.echo(f"Next: {report.next_command()}")
