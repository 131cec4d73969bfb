"""Real QGIS opens what `detect` writes: valid, in place, in its own colours, without a click."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import numpy as np
import pytest
import rasterio
from fakes import blobs, grey, model_info, write_scene
from fakes import detect_brightness as run

from landslide_mapper.evaluate import EvaluateConfig, evaluate
from landslide_mapper.evaluation.verdicts import verdict_qml
from landslide_mapper.explain import ExplainConfig, explain
from landslide_mapper.geo.style import polygon_qml, split_qml
from landslide_mapper.prepare import PrepareConfig, prepare

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


# Opens files as a drag and drop would, and says of each what a person would see.
ASK = """
import json, sys
from osgeo import ogr
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()

def said(path):
    raster = path.endswith(".tif")
    layer = QgsRasterLayer(path, path) if raster else QgsVectorLayer(path, path, "ogr")
    if not layer.isValid():
        return {"valid": False}
    extent, renderer = layer.extent(), layer.renderer()
    facts = {
        "valid": True,
        "crs": layer.crs().authid(),
        "renderer": renderer.type(),
        "extent": [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()],
        "abstract": layer.metadata().abstract(),
    }
    if raster:
        facts["legend"] = [label for label, _ in renderer.legendSymbologyItems()]
        facts["nodata"] = layer.dataProvider().sourceNoDataValue(1)
    else:
        facts["legend"] = [item.label() for item in renderer.legendSymbolItems()]
        facts["count"] = layer.featureCount()
        facts["fields"] = {f.name(): f.typeName() for f in layer.fields()}
        facts["widgets"] = {
            f.name(): layer.editorWidgetSetup(i).type() for i, f in enumerate(layer.fields())
        }
        # The classes of every feature; one without is drawn by nothing.
        from qgis.core import QgsRenderContext
        context = QgsRenderContext()
        context.expressionContext().appendScopes(
            __import__("qgis.core").core.QgsExpressionContextUtils.globalProjectLayerScopes(layer))
        own = renderer.clone()
        own.startRender(context, layer.fields())
        names = {item.ruleKey(): item.label() for item in renderer.legendSymbolItems()}
        facts["classes"] = []
        for feature in layer.getFeatures():
            context.expressionContext().setFeature(feature)
            keys = own.legendKeysForFeature(feature, context)
            facts["classes"].append(sorted(names[key] for key in keys if key in names))
        facts["undrawn"] = facts["classes"].count([])
        own.stopRender(context)
    return facts

answer = {"parquet": ogr.GetDriverByName("Parquet") is not None,
          "layers": [said(path) for path in sys.argv[1:]]}
print("SAID" + json.dumps(answer))
"""

# Goes through a layer as a reviewer does: yes, no, nothing, and a polygon that was missed.
REVIEW = """
import sys
from qgis.core import (QgsApplication, QgsGeometry, QgsVectorLayer, QgsVectorLayerUtils)
app = QgsApplication([], False)
app.initQgis()
path, wkt = sys.argv[1:]
layer = QgsVectorLayer(path, path, "ogr")
review = layer.fields().indexOf("review")
assert layer.startEditing()
for number, feature in enumerate(layer.getFeatures()):
    if number % 3 < 2:
        layer.changeAttributeValue(feature.id(), review, ("yes", "no")[number % 3])
drawn = QgsVectorLayerUtils.createFeature(layer, QgsGeometry.fromWkt(wkt), {review: "yes"})
assert layer.addFeature(drawn)
assert layer.commitChanges(), layer.commitErrors()
print("SAID" + str(layer.featureCount()))
"""

# Cuts the first polygon in two along a line through its middle.
SPLIT = """
import sys
from qgis.core import QgsApplication, QgsPointXY, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
(path,) = sys.argv[1:]
layer = QgsVectorLayer(path, path, "ogr")
box = next(layer.getFeatures()).geometry().boundingBox()
x = box.center().x()
assert layer.startEditing()
layer.selectByIds([next(layer.getFeatures()).id()])
layer.splitFeatures([QgsPointXY(x, box.yMinimum() - 1), QgsPointXY(x, box.yMaximum() + 1)])
assert layer.commitChanges(), layer.commitErrors()
print("SAID" + str(layer.featureCount()))
"""


@pytest.fixture(scope="module")
def qgis() -> None:
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"no {SYSTEM_PYTHON} that could import qgis")
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import qgis.core"], env=QUIET, check=False)
    if found.returncode:
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis (Debian: apt install python3-qgis)")


def in_qgis(script: str, folder: Path, *args: object) -> Any:
    """What a script says, run by the Python that has QGIS."""
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", script, *map(str, args)],
        env={**QUIET, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [line[4:] for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert answers, done.stderr
    return json.loads(answers[0])


def look(folder: Path, scene: str, files: list[Path]) -> list[dict[str, Any]]:
    """What QGIS says of each file; the first is rendered over the scene as map.png."""
    layers: list[dict[str, Any]] = in_qgis(LOOK, folder, scene, folder / "map.png", *files)[1]
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
    assert renderers == ["RuleRenderer"] * 4 + ["paletted", "singlebandpseudocolor"]
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


def ask(folder: Path, *files: Path) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = in_qgis(ASK, folder, *files)["layers"]
    return layers


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[str, Path]:
    """A scene and its polygons as a GeoPackage."""
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(3, (200, 200), smooth=6)))
    run(scene, tmp_path / "slides.gpkg", model_info(threshold=0.7))
    return scene, tmp_path / "slides.gpkg"


def test_symbols_are_in_the_words_that_older_qgis_reads() -> None:
    for qml in (polygon_qml(0.5), split_qml(), verdict_qml()):
        layers = ElementTree.fromstring(qml.partition("\n")[2]).findall(".//symbol/layer")
        assert layers
        for layer in layers:
            assert {part.tag for part in layer} == {"prop"}
            assert "outline_color" in {part.attrib["k"] for part in layer}


@pytest.mark.usefixtures("qgis")
def test_qgis_shows_every_verdict_in_its_colour(tmp_path: Path, mapped: tuple[str, Path]) -> None:
    _, slides = mapped
    table = geopandas.read_file(slides)
    moved = table.iloc[1:].translate(xoff=3.0)
    reference = geopandas.GeoDataFrame(geometry=moved, crs=table.crs).to_crs(4326)
    reference.to_file(tmp_path / "reference.gpkg")
    evaluate(EvaluateConfig(str(tmp_path / "reference.gpkg"), tmp_path / "out", str(slides)))
    (said,) = ask(tmp_path, tmp_path / "out" / "verdicts.gpkg")
    assert said["valid"]
    assert said["crs"] == "EPSG:4326"  # that of the reference
    assert said["renderer"] == "categorizedSymbol"
    assert said["count"] == 2 * len(table) - 1
    assert said["undrawn"] == 0
    assert said["legend"] == [
        "reference: matched", "reference: found in part", "reference: missed",
        "mapped: matched", "mapped: partly right", "mapped: false alarm",
    ]  # fmt: skip


@pytest.mark.usefixtures("qgis")
def test_qgis_shows_the_heat_of_explain(tmp_path: Path, bundled_scene: Path) -> None:
    scene = tmp_path / "scene.tif"
    with rasterio.open(bundled_scene) as raster:
        window = rasterio.windows.Window(256, 256, 256, 256)
        profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 3, "dtype": "uint8"}
        profile |= {"crs": raster.crs, "transform": raster.window_transform(window)}
        pixels = raster.read(window=window)
    with rasterio.open(scene, "w", **profile) as raster:
        raster.write(pixels)
        bounds = list(raster.bounds)
    report = explain(ExplainConfig(str(scene), tmp_path / "out", "bundled"))
    heat = [path for path in report.files if path.suffix == ".tif"]
    assert len(heat) == 3
    for said in ask(tmp_path, *heat):
        assert said["valid"]
        assert said["crs"] == "EPSG:32648"
        assert said["renderer"] == "singlebandpseudocolor"
        assert said["nodata"] == 255
        assert said["legend"] == [f"{percent} %" for percent in (0, 10, 20, 40, 60, 80, 100)]
        np.testing.assert_allclose(said["extent"], bounds)


@pytest.mark.usefixtures("qgis")
def test_qgis_shows_geoparquet_where_its_gdal_can(tmp_path: Path, mapped: tuple[str, Path]) -> None:
    scene, slides = mapped
    run(scene, tmp_path / "slides.parquet", model_info(threshold=0.7))
    answer = in_qgis(ASK, tmp_path, tmp_path / "slides.parquet", slides)
    parquet, package = answer["layers"]
    if not answer["parquet"]:
        assert not parquet["valid"]  # Debian's and Ubuntu's GDAL have no Arrow
        pytest.skip("this QGIS has a GDAL without Parquet")
    assert parquet["valid"]
    assert parquet["crs"] == "EPSG:32648"
    assert (parquet["renderer"], parquet["count"]) == ("RuleRenderer", package["count"])
    np.testing.assert_allclose(parquet["extent"], package["extent"])


@pytest.mark.usefixtures("qgis")
def test_a_layer_is_reviewed_in_qgis_and_read_back(
    tmp_path: Path, mapped: tuple[str, Path]
) -> None:
    _, slides = mapped
    before = geopandas.read_file(slides)
    wkt = (
        "Polygon((300001 3499999, 300009 3499999, 300009 3499991, 300001 3499991, 300001 3499999))"
    )
    assert in_qgis(REVIEW, tmp_path, slides, wkt) == len(before) + 1
    after = geopandas.read_file(slides)
    assert set(after["review"].dropna()) == {"yes", "no"}
    drawn = after.iloc[-1]
    assert drawn["review"] == "yes"
    assert np.isnan(drawn["confidence"])


@pytest.mark.usefixtures("qgis")
def test_the_halves_of_a_polygon_have_no_verdict(tmp_path: Path, mapped: tuple[str, Path]) -> None:
    _, slides = mapped
    count = len(geopandas.read_file(slides))
    assert in_qgis(SPLIT, tmp_path, slides) > count
    assert geopandas.read_file(slides)["review"].isna().all()


@pytest.mark.usefixtures("qgis")
def test_a_polygon_that_was_drawn_by_hand_is_seen(tmp_path: Path, mapped: tuple[str, Path]) -> None:
    _, slides = mapped
    wkt = (
        "Polygon((300001 3499999, 300009 3499999, 300009 3499991, 300001 3499991, 300001 3499999))"
    )
    in_qgis(REVIEW, tmp_path, slides, wkt)
    said = ask(tmp_path, slides)[0]
    assert said["undrawn"] == 0
    assert said["classes"][-1] == ["drawn by hand", "reviewed: yes"]


@pytest.mark.usefixtures("qgis")
@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_what_was_reviewed_is_seen_beside_the_confidence(tmp_path: Path, suffix: str) -> None:
    slides = tmp_path / f"slides{suffix}"
    run(write_scene(tmp_path / "scene.tif", grey(blobs(3, (200, 200), smooth=6))), slides)
    before = ask(tmp_path, slides)[0]["classes"]
    wkt = "Polygon((300001 3499999, 300009 3499999, 300009 3499991, 300001 3499999))"
    in_qgis(REVIEW, tmp_path, slides, wkt)
    after = ask(tmp_path, slides)[0]["classes"]
    assert len(before) > 3
    for number, (was, now) in enumerate(zip(before, after[:-1], strict=True)):
        assert len(was) == 1
        assert was[0].endswith(" %")
        assert now == ([*was, "reviewed: yes"], ["reviewed: no"], was)[number % 3]


@pytest.mark.usefixtures("qgis")
def test_review_is_a_choice_in_the_form(tmp_path: Path, mapped: tuple[str, Path]) -> None:
    assert ask(tmp_path, mapped[1])[0]["widgets"]["review"] == "ValueMap"


@pytest.mark.usefixtures("qgis")
def test_qgis_shows_the_split_of_tiles(tmp_path: Path) -> None:
    mask = blobs(3, (512, 512), 0.2, smooth=4)
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    run(scene, tmp_path / "slides.gpkg", model_info(threshold=0.7))
    prepare(
        PrepareConfig(
            tmp_path / "d", scenes=(scene,), labels=str(tmp_path / "slides.gpkg"), tile_size=64
        )
    )
    mask = next((tmp_path / "d" / "masks").glob("*.tif"))
    said, shown = ask(tmp_path, tmp_path / "d" / "tiles.gpkg", mask)
    assert shown["legend"] == ["no landslide", "landslide", "does not count"]
    assert said["renderer"] == "categorizedSymbol"
    assert said["legend"] == ["train", "val", "test"]
    assert said["undrawn"] == 0
    assert said["crs"] == "EPSG:32648"
