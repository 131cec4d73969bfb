"""The house: what imports what. Each floor rests on the floors below, and help needs no library."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import landslide_mapper

PACKAGE = Path(landslide_mapper.__file__).parent

# From the ground up. A room (a folder, or a module beside the folders) may use the floors below its
# own and, inside a folder, its own modules; rooms of one floor do not know each other.
FLOORS = (
    ("__init__", "errors", "mask_values", "shell"),
    ("config", "device", "metrics", "staging"),
    ("geo", "nn"),
    ("checkpoint", "data"),
    ("learnt", "predictors", "serving"),
    ("training",),
    ("mapping", "evaluation", "explanation", "inspection"),
    ("prepare", "train", "detect", "evaluate", "explain", "export", "info"),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

# Libraries that a room does without, so that it can be used and tested without them.
TORCH = {"torch", "torchvision", "safetensors", "onnx", "onnxruntime"}
MAPS = {"rasterio", "geopandas", "pyogrio", "shapely", "pyproj", "affine"}
SCREEN = {"click", "tqdm", "matplotlib"}
WITHOUT = {
    "geo": TORCH | {"click", "tqdm"},  # matplotlib: `picture` draws on a panel that it is given
    "nn": MAPS | SCREEN,
    "mapping": {"click", "matplotlib"},
    "metrics": TORCH | MAPS | SCREEN,
    "config": TORCH | MAPS | SCREEN | {"numpy"},
    "cli": TORCH | MAPS | {"numpy"},
}
# The help of a command waits for none of these.
HEAVY = TORCH | MAPS | {"numpy", "pandas", "matplotlib", "tqdm", "filelock"}


class Import(NamedTuple):
    """One import: who (``geo.scene``), what (``geo.remote``, or a library), in which line."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    """``geo.scene`` of geo/scene.py; a folder's own name of its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> Iterator[Import]:
    """All imports of a module, those inside functions and for type checkers as well."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
            own, _, inside = node.module.partition(".")
            if own != PACKAGE.name:
                yield Import(module, node.module, node.lineno)
                continue
            for alias in node.names:  # a module of the folder, or a name in a module
                below = f"{inside}.{alias.name}".lstrip(".")
                found = below if below in MODULES else inside or "__init__"
                yield Import(module, found, node.lineno)


IMPORTS = [found for module in MODULES for found in imports(module)]
OWN = [found for found in IMPORTS if found.target in MODULES]
LIBRARIES = [found for found in IMPORTS if found.target not in MODULES]


def room(module: str) -> str:
    """The folder that a module is in, else itself."""
    return module.partition(".")[0]


def test_every_room_is_on_a_floor() -> None:
    assert {room(module) for module in MODULES} == set(LEVEL)


def test_each_floor_rests_on_those_below() -> None:
    wrong = [
        str(found)
        for found in OWN
        if room(found.target) != room(found.module)
        and LEVEL[room(found.target)] >= LEVEL[room(found.module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in OWN:
        graph[found.module].add(found.target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_rooms_do_without_the_libraries_of_others() -> None:
    wrong = [
        str(found)
        for found in LIBRARIES
        if found.target.partition(".")[0] in WITHOUT.get(room(found.module), ())
    ]
    assert not wrong, "\n".join(wrong)


def test_the_largest_room_has_a_plan_that_names_all_of_its_modules() -> None:
    named = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse(MODULES["geo"].read_text())) or "")
    assert sorted(named) == sorted(m.partition(".")[2] for m in MODULES if m.startswith("geo."))


def test_files_can_be_read_in_one_go() -> None:
    long = {
        module: count
        for module, path in MODULES.items()
        if (count := len(path.read_text("utf-8").splitlines())) > 400
    }
    assert not long


COMMANDS = ("prepare", "train", "detect", "evaluate", "explain", "export", "info")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from landslide_mapper.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"print([name for name in {sorted(HEAVY)!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
