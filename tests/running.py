"""Commands run in this process, and trainings that are quick."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner

from landslide_mapper.cli import main

LIGHT = ["--backbone", "resnet18", "--last-layer", "3", "--aspp-channels", "32"]
QUICK = [*LIGHT, "--weights", "none", "--workers", "0", "--device", "cpu", "--batch-size", "8"]


def run(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; its output."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def full_disk(limit: int) -> dict[str, Any]:
    """Settings of `subprocess.run` that stand for a full disk: no file gets more bytes."""
    resource = pytest.importorskip("resource", reason="limits on files are those of POSIX")
    return {"preexec_fn": partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))}
