"""The group of all commands: every error is one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from io import TextIOWrapper
from typing import Any

import click

from landslide_mapper import __version__
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
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                click.echo(f"Error: the disk is full ({one_line(error)})", err=True)
                sys.exit(1)
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
    # A notebook hands its own on, which may not be installed here; lsmap opens no windows.
    os.environ.pop("MPLBACKEND", None)
    if isinstance(sys.stdout, TextIOWrapper):  # as stderr is: a terminal may not know ≥ or m²
        sys.stdout.reconfigure(errors="backslashreplace")
