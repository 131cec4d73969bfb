"""What users are told to do next, as it is done on this system."""

from __future__ import annotations

import os
import shlex
import subprocess


def command_line(*words: str) -> str:
    """The words as one line, those in quotes that need them."""
    return shlex.join(words) if os.name == "posix" else subprocess.list2cmdline(words)


def mapping_command(model: str) -> str:
    """The command that maps a region with a model file or a run."""
    return f"lsmap detect REGION.tif -o slides.gpkg --model {command_line(model)}"


def in_qgis(*files: str) -> str:
    """How to see the files in QGIS; Windows does not find its command."""
    if os.name == "posix":
        return command_line("qgis", *files)
    return f"drag {command_line(*files)} into its window"
