"""``lsmap export``: a model becomes ONNX."""

from __future__ import annotations

from typing import Any

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import output, overwrite


@click.command("export", cls=LsmapCommand)
@click.argument("model", required=False)
@output("model.onnx", "The ONNX file; it appears when it is complete and checked.")
@click.option("--scene", help="Put the stretch of this scene (uint8) into the graph.")
@click.option("--opset", type=int, default=18, show_default=True, help="Version of the operators.")
@overwrite("Replace the file that is there.")
def export_command(**options: Any) -> None:
    """Write MODEL as ONNX, for GeoDeep, Deepness and onnxruntime.

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
