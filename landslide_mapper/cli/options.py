"""What the options of several commands share: how text is read, and options that are alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DEVICES = "auto, cpu, cuda or cuda:N."


def parsed(parse: Callable[[str], Any], wanted: str) -> Callable[..., Any]:
    """A callback for text that `parse` reads, which raises `ValueError` unless it is `wanted`."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            raise click.BadParameter(f"give {wanted}") from None

    return callback


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _bbox(text: str) -> tuple[float, float, float, float]:
    west, south, east, north = (float(part) for part in text.split(","))
    return west, south, east, north


def word_or_number(*words: str) -> Callable[[str], str | float]:
    """Reads one of some words, or a number."""
    return lambda text: text if text in words else float(text)


def _names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names out of text such as red,green,blue."""
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


integers = parsed(_integers, "whole numbers with commas between, e.g. 1,2,3")


def together(*options: Any) -> Any:
    """One decorator out of several options, which are shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def output(default: str, text: str) -> Any:
    """The option ``-o`` of a command that has a default name for what it writes."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        default=Path(default),
        show_default=True,
        help=text,
    )


def overwrite(text: str) -> Any:
    """The option to replace what is there."""
    return click.option("--overwrite", is_flag=True, help=text)


def bands(default: str) -> Any:
    """The option that chooses bands; `default` says which are taken without it."""
    return click.option(
        "--bands", callback=integers, help=f"Bands to use, from 1.  [default: {default}]"
    )


def threshold(text: str = "Probability from which on a pixel is landslide.") -> Any:
    """The probability from which a pixel is a landslide."""
    return click.option("--threshold", type=float, help=f"{text}  [default: the model's]")


tta = click.option("--tta", is_flag=True, help="Mean over 8 flips and turns: 8 times slower.")

device = click.option("--device", default="auto", show_default=True, help=DEVICES)

asset = click.option(
    "--asset",
    callback=_names,
    metavar="NAME[,NAME...]",
    help="Assets of STAC items.  [default: visual, else the only raster, else red,green,blue]",
)

area = together(
    click.option(
        "--bbox",
        callback=parsed(_bbox, "west,south,east,north, e.g. 103.1,31.2,103.3,31.4"),
        metavar="W,S,E,N",
        help="Only what lies in this rectangle, in the CRS of REGION or of --bbox-crs.",
    ),
    click.option("--bbox-crs", help="CRS of --bbox, e.g. EPSG:4326.  [default: that of REGION]"),
    click.option("--aoi", help="Only what lies in the polygons of this file (any format)."),
    click.option(
        "--gsd",
        callback=parsed(word_or_number("model", "native"), "model, native, or metres such as 0.5"),
        metavar="model|native|METRES",
        help="Pixel size to work at.  [default: native within 1.5 times the model's or beyond 8, "
        "else model]",
    ),
    asset,
    bands("the model's"),
)
