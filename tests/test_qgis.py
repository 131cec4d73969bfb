"""Real QGIS opens what `detect` writes: valid, in place, in its own colours, without a click."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import blobs, grey, model_info, write_scene
from fakes import detect_brightness as run

# Debian's python3-qgis belongs to the system's own Python.
SYSTEM_PYTHON = "/usr/bin/python3"
QUIET = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": ""}

LOOK = """
import json, sys
from qgis.core import (Qgis, QgsApplication, QgsMapRendererParallelJob, QgsMapSettings,
                       QgsRasterLayer, QgsVectorLayer)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor
app = QgsApplication([], False)
app.initQgis()
scene, picture, *files = sys.argv[1:]
rasters = [f for f in files if f.endswith(".tif")]
layers = [QgsVectorLayer(f, f, "ogr") for f in files if f not in rasters]
layers += [QgsRasterLayer(f, f) for f in rasters]
said = [
    {"valid": layer.isValid(), "crs": layer.crs().authid(), "renderer": layer.renderer().type(),
     "extent": [layer.extent().xMinimum(), layer.extent().yMinimum(),
                layer.extent().xMaximum(), layer.extent().yMaximum()]}
    for layer in layers
]
base = QgsRasterLayer(scene, "scene")
settings = QgsMapSettings()
settings.setLayers([layers[0], base])
settings.setDestinationCrs(base.crs())
settings.setExtent(base.extent())
settings.setOutputSize(QSize(400, 400))
settings.setBackgroundColor(QColor(255, 255, 255))
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(picture)
print("SAID" + json.dumps([Qgis.QGIS_VERSION, said]))
"""


@pytest.fixture(scope="module")
def qgis() -> None:
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"no {SYSTEM_PYTHON} that could import qgis")
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], env=QUIET, check=False)
    if found.returncode:
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis (Debian: apt install python3-qgis)")


def look(folder: Path, scene: str, files: list[Path]) -> list[dict[str, Any]]:
    """What QGIS says of each file; the first is rendered over the scene as map.png."""
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", LOOK, scene, str(folder / "map.png"), *map(str, files)],
        env={**QUIET, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [line[4:] for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert answers, done.stderr
    layers: list[dict[str, Any]] = json.loads(answers[0])[1]
    return layers


@pytest.mark.usefixtures("qgis")
def test_qgis_shows_polygons_and_rasters_in_place_and_in_colour(tmp_path: Path) -> None:
    mask = blobs(3, (200, 200), smooth=6)
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    files = [tmp_path / f"slides{suffix}" for suffix in (".gpkg", ".shp", ".geojson", ".fgb")]
    options = {"mask": tmp_path / "mask.tif", "probability": tmp_path / "percent.tif"}
    run(scene, files[0], model_info(threshold=0.7), **options)
    for path in files[1:]:
        run(scene, path, model_info(threshold=0.7))
    said = look(tmp_path, scene, [*files, *options.values()])
    assert all(layer["valid"] for layer in said)
    renderers = [layer["renderer"] for layer in said]
    assert renderers == ["graduatedSymbol"] * 4 + ["paletted", "singlebandpseudocolor"]
    assert [layer["crs"] for layer in said] == [
        "EPSG:4326" if path.suffix == ".geojson" else "EPSG:32648"
        for path in [*files, *options.values()]
    ]
    rows, cols = np.nonzero(mask)
    expected = [300000 + cols.min() / 2, 3500000 - rows.max() / 2 - 0.5]
    expected += [300000 + cols.max() / 2 + 0.5, 3500000 - rows.min() / 2]
    for layer in (said[0], said[1], said[3]):
        np.testing.assert_allclose(layer["extent"], expected, atol=0.26)
    np.testing.assert_allclose(said[4]["extent"], [300000, 3499900, 300100, 3500000])
    with rasterio.open(tmp_path / "map.png") as raster:
        red, _, blue = raster.read()[:3].astype(int)
    coloured = red - blue > 20
    # Mean probability 0.78 of 0.7..1: the second class, orange, over grey; two pixels a pixel.
    large = np.kron(mask, np.ones((2, 2), bool))
    assert coloured[large].mean() > 0.9
    assert coloured[~large].mean() < 0.2
