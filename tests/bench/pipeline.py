"""What the pipeline of `detect` costs without a network, and where the time goes.

The total is CPU time as the system counts it, all threads, on one thread per library. The
shares are those of the stacks that py-spy sees while a thread is at work, by the innermost
function of lsmap: what numpy, GDAL or shapely do counts for who called them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import (
    ONE_THREAD,
    ROOT,
    WINDOW,
    detect_pixels,
    measured,
    print_table,
    run_child,
    smooth_scene,
)

SIDES, WARM = (4096, 16384), 1024
RATE = 100  # samples per second
STAGES = {
    "reading": ("scene.py", "scene_reader.py", "reading.py"),
    "stretch": ("radiometry.py",),
    "the predictor": ("common.py",),
    "blending": ("blend.py",),
    "vectorising": ("vectorize.py", "rings.py", "scan.py", "joining.py"),
    "shaping and measuring": ("features.py", "simplify.py", "measure.py"),
    "parts": ("parts.py", "store.py", "work.py", "workspace.py"),
    "joining and writing": ("join.py", "vectors.py", "rasters.py", "staging.py", "style.py"),
}
REST = "other"


def _child(scene: str, warm: str, folder: str) -> None:
    """Measure one run; `warm` is empty for one that is profiled."""

    def work(path: str) -> int:
        return detect_pixels(path, Path(folder) / "slides.gpkg")

    print(json.dumps(measured(lambda: work(scene), lambda: work(warm) if warm else None)))


def shares(scene: Path, folder: Path) -> dict[str, float]:
    """Shares of the stages in the time at work; empty where there is no py-spy."""
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if spy is None:
        return {}
    stacks = folder / "stacks.txt"
    command = [spy, "record", "--format", "raw", "--full-filenames", "--rate", str(RATE)]
    command += ["--output", str(stacks), "--", sys.executable, __file__, "child"]
    subprocess.run(
        [*command, str(scene), "", str(folder)],
        check=True, capture_output=True, env=os.environ | ONE_THREAD,
    )  # fmt: skip
    counts: Counter[str] = Counter()
    for line in stacks.read_text(encoding="utf-8").splitlines():
        stack, count = line.rsplit(" ", 1)
        stage = _stage(stack)
        if stage and "_find_and_load (" not in stack:  # imports
            counts[stage] += int(count)
    return {stage: counts[stage] / counts.total() for stage in (*STAGES, REST)}


def _stage(stack: str) -> str | None:
    """The stage of the innermost frame that is lsmap's, None if there is none."""
    for frame in reversed(stack.split(";")):
        path = frame.rpartition("(")[2].rpartition(":")[0]
        if path.startswith((str(ROOT / "landslide_mapper"), str(Path(__file__).parent))):
            name = Path(path).name
            return next((stage for stage, files in STAGES.items() if name in files), REST)
    return None


def run(sides: tuple[int, ...] = SIDES) -> None:
    """Print the tables."""
    for side in sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scene, warm = smooth_scene(folder, side), smooth_scene(folder, WARM)
            found = run_child(__file__, scene, warm, folder)
            parts = shares(scene, folder)
        total = found["cpu"] / side**2 * 1e6
        rows = [("all", f"{total:.4f}", "100%")]
        rows += [(stage, f"{total * part:.4f}", f"{part:.0%}") for stage, part in parts.items()]
        print_table(
            f"detect without network, {side} x {side} pixels, windows of {WINDOW}, "
            f"{found['result']} polygons, wall {found['wall']:.1f} s",
            ("stage", "CPU s/Mpx", "share"),
            rows,
        )
        if not parts:
            print("  for the stages: pip install py-spy")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smaller scene")
    run(SIDES[:1] if parser.parse_args().quick else SIDES)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(*sys.argv[2:])
    else:
        main()
