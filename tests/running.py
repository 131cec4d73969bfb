"""Commands run in this process, and trainings that are quick."""

from __future__ import annotations

from click.testing import CliRunner

from landslide_mapper.cli import main

LIGHT = ["--backbone", "resnet18", "--last-layer", "3", "--aspp-channels", "32"]
QUICK = [*LIGHT, "--weights", "none", "--workers", "0", "--device", "cpu", "--batch-size", "8"]


def run(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; its output."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output
