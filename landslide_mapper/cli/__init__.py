"""The ``lsmap`` commands, one module each: parse, call one function, print.

Heavy imports stay inside the commands, so that ``lsmap --help`` answers at once.
"""

from landslide_mapper.cli.detect import detect_command
from landslide_mapper.cli.evaluate import evaluate_command
from landslide_mapper.cli.explain import explain_command
from landslide_mapper.cli.export import export_command
from landslide_mapper.cli.group import main
from landslide_mapper.cli.info import info_command
from landslide_mapper.cli.prepare import prepare_command
from landslide_mapper.cli.train import train_command

__all__ = ["main", "train_command"]

for command in (
    prepare_command,
    train_command,
    detect_command,
    evaluate_command,
    explain_command,
    info_command,
    export_command,
):
    main.add_command(command)
