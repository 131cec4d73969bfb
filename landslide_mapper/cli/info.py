"""``lsmap info``: what is in a file or folder."""

from __future__ import annotations

import json

import click

from landslide_mapper.cli.group import LsmapCommand
from landslide_mapper.cli.options import asset


@click.command("info", cls=LsmapCommand)
@click.argument("path")
@asset
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
def info_command(path: str, asset: tuple[str, ...], as_json: bool) -> None:
    """Say what is in PATH: scene, labels, dataset, run or model.

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
    from landslide_mapper.info import describe

    report = describe(path, asset)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
    if not as_json and (command := report.next_command):
        click.echo(f"Next: {command}")
