"""The commands as a person meets them: help, errors, exit codes, speed of the first answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from landslide_mapper import __version__
from landslide_mapper.cli import main
from landslide_mapper.errors import LsmapFailure


def lsmap(
    *args: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m landslide_mapper`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "landslide_mapper", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | variables,
    )


def test_all_commands_are_there() -> None:
    names = {"prepare", "train", "detect", "evaluate", "explain", "export", "info"}
    assert set(main.commands) == names


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_of_every_command_shows_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    # An example line starts the command as it is typed, unwrapped.
    assert f"\n    lsmap {name} " in result.output


def test_the_list_of_commands_has_whole_sentences() -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("Commands:")
    assert len(listed[2].splitlines()) == 1 + len(main.commands)
    assert "..." not in listed[2]


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_of_every_command_has_a_help_text(name: str) -> None:
    options = [p for p in main.commands[name].params if isinstance(p, click.Option)]
    assert [option.opts for option in options if not option.help] == []
    assert "--verbose" in {opt for option in options for opt in option.opts}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_answer_that_finds_no_room_is_one_line(bundled_scene: Path) -> None:
    command = [sys.executable, "-m", "landslide_mapper", "info", str(bundled_scene)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: the disk is full (")
    assert len(result.stderr.splitlines()) == 1


def test_python_m_prints_the_version() -> None:
    result = lsmap("--version")
    assert result.returncode == 0
    assert __version__ in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs wait4")
def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    def seconds() -> float:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "landslide_mapper", "--help"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, status, usage = os.wait4(child, 0)
        assert status == 0
        return usage.ru_utime + usage.ru_stime

    # CPU time, and the least of several: other work on the machine does not count.
    assert min(seconds() for _ in range(5)) < 0.5


def test_what_nobody_expected_is_one_line_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all\nthings")

    monkeypatch.setattr("landslide_mapper.info.describe", broken)
    result = CliRunner().invoke(main, ["info", "bundled"])
    assert result.exit_code == 1
    assert "ZeroDivisionError: of all things" in result.output
    assert "-v" in result.output
    assert result.output.count("\n") == 1
    result = CliRunner().invoke(main, ["info", "bundled", "-v"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_the_backend_of_a_notebook_is_no_matter(bundled_scene: Path) -> None:
    code = (
        "from landslide_mapper.cli import main\n"
        f"main(['info', {str(bundled_scene)!r}], standalone_mode=False)\n"
        "import matplotlib.figure\n"
    )
    ours = {"PYTHONPATH": str(Path(__file__).parents[1])}
    inherited = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ours | inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_signs_that_the_terminal_does_not_know_end_no_run(bundled_labels: Path) -> None:
    result = lsmap("info", str(bundled_labels), PYTHONIOENCODING="iso8859-2")
    assert result.returncode == 0
    assert r" m\xb2 (geodesic)" in result.stdout


def test_info_says_what_may_come_next(bundled_scene: Path, bundled_labels: Path) -> None:
    for path, command in (
        (bundled_scene, f"Next: lsmap detect {bundled_scene} -o slides.gpkg"),
        (bundled_labels, f"Next: lsmap prepare SCENE... {bundled_labels}"),
    ):
        assert CliRunner().invoke(main, ["info", str(path)]).output.splitlines()[-1] == command


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = lsmap("info", "nowhere.tif", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["Error: nowhere.tif: there is no such file or folder"]


def test_bad_usage_is_exit_code_2(tmp_path: Path) -> None:
    result = lsmap("info", "--no-such-option", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    result = lsmap("info", "-v", "nowhere.tif", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert "there is no such file" in result.stderr


def test_a_failure_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, _assets: object) -> None:
        raise LsmapFailure(f"{path}: the disk is full")

    monkeypatch.setattr("landslide_mapper.info.describe", fail)
    result = CliRunner().invoke(main, ["info", "scene.tif"])
    assert result.exit_code == 1
    assert "Error: scene.tif: the disk is full" in result.output
