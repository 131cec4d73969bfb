"""Errors and notes as a person at the terminal sees them: one line, what, where, what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import click

LONGEST = 300  # characters of another library's words


class LsmapError(Exception):
    """Bad usage or bad input. The message is one line; the command exits with code 2."""

    exit_code = 2


class LsmapFailure(LsmapError):
    """Good input, but the work could not be done (disk full, source vanished). Exit code 1."""

    exit_code = 1


class NothingSeenError(LsmapError):
    """A scene without a valid pixel."""


def one_line(error: BaseException) -> str:
    """What a library says went wrong, without its line breaks and not longer than a line."""
    return " ".join(str(error).split())[:LONGEST]


def note(message: str) -> None:
    """Print one line on stderr about something that was decided or left out."""
    click.echo(f"Note: {message}", err=True)


def warn(message: str) -> None:
    """Print one line on stderr about something that may spoil the result."""
    click.echo(f"Warning: {message}", err=True)


@cache
def once(say: Callable[[str], None], message: str) -> None:
    """`note` or `warn`, but not again of what this process has said already."""
    say(message)
