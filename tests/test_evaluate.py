"""``lsmap evaluate`` on a model: a whole small data set, against scikit-learn."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from fakes import UTM, blobs, brightness, model_info, write_scene
from PIL import Image
from running import run
from sklearn import metrics as sk

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.data.dataset import TileDataset
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluation.boundary import boundary_counts, boundary_rates
from landslide_mapper.evaluation.model import evaluate_dataset
from landslide_mapper.evaluation.objects import label_components
from landslide_mapper.evaluation.page import render
from landslide_mapper.evaluation.pictures import choose_tiles, gallery
from landslide_mapper.evaluation.tiles import _pixel_area
from landslide_mapper.geo.views import Quarters, SymmetryAverage
from landslide_mapper.metrics import histogram, reliability
from landslide_mapper.predictors import info_of, load_predictor

SIDE, TILE = 256, 64
SLIDE = shapely.box(40, 40, 150, 100)  # in pixels: over six tiles


def on_map(shape: shapely.Geometry, down: float) -> shapely.Geometry:
    """From pixels to the map of the scene that starts `down` metres further south."""
    a, c, e, f = UTM.a, UTM.c, UTM.e, UTM.f - down
    return shapely.transform(shape, lambda p: np.column_stack([c + a * p[:, 0], f + e * p[:, 1]]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes, one for each split: bright where the landslide is, but for some noise."""
    folder = tmp_path_factory.mktemp("evaluate")
    shapes, rows = [], ["scene,split"]
    for number, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng(number)
        band = rng.integers(1, 120, (SIDE, SIDE)).astype(np.uint8)
        band[45:100, 40:155] += 100
        band[blobs(number, (SIDE, SIDE), 0.02)] = 210
        band[200:, 220:] = 0  # not seen
        down = number * 1000.0
        transform = Affine(UTM.a, 0.0, UTM.c, 0.0, UTM.e, UTM.f - down)
        write_scene(folder / f"{split}.tif", band, transform=transform, nodata=0)
        shapes += [on_map(SLIDE, down), on_map(shapely.box(200, 150, 215, 165), down)]
        rows.append(f"{split},{split}")
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32648").to_file(folder / "labels.gpkg")
    (folder / "split.csv").write_text("\n".join(rows), "utf-8")
    scenes = [folder / f"{split}.tif" for split in ("train", "val", "test")]
    options = ["--tile-size", TILE, "--stretch", "none", "--negatives", "all", "--workers", 1]
    split_file = ["--split-file", folder / "split.csv"]
    run("prepare", *scenes, folder / "labels.gpkg", "-o", folder / "data", *options, *split_file)
    return folder / "data"


@pytest.mark.parametrize("least", [0.5, 0.02])  # the lower one maps what borders on the unseen
def test_equals_scikit_learn_on_the_same_pixels(dataset: Path, least: float) -> None:
    found = evaluate_dataset(brightness, model_info(threshold=least), load_dataset(dataset), "test")
    tiles = load_dataset(dataset).split("test")
    data = TileDataset(tiles)
    pixels = [data[0, number] for number in range(len(tiles))]
    probability = brightness(np.stack([image.numpy() for image, _ in pixels]))
    truth = np.stack([mask.numpy() for _, mask in pixels])
    seen = truth != 255
    assert 0 < (~seen).sum() < seen.sum()
    assert [at.origin for at in found.at] == ["model", "validation"]
    for at in found.at:
        said, true = probability[seen] >= at.threshold, truth[seen] == 1
        wanted = {
            "accuracy": sk.accuracy_score(true, said),
            "precision": sk.precision_score(true, said),
            "recall": sk.recall_score(true, said),
            "f1": sk.f1_score(true, said),
            "landslide_iou": sk.jaccard_score(true, said),
            "mean_iou": sk.jaccard_score(true, said, average="macro"),
        }
        assert at.metrics == pytest.approx(wanted, abs=1e-9)
        drawn = (probability >= at.threshold) & seen
        edges = [boundary_counts(*tile) for tile in zip(drawn, truth == 1, seen, strict=True)]
        np.testing.assert_array_equal(at.boundary, edges)
    each = [histogram(*tile) for tile in zip(probability, truth, strict=True)]
    np.testing.assert_array_equal(found.unit_counted, each)
    assert found.calibration == pytest.approx(reliability(probability, truth))


def test_the_validation_threshold_is_the_best_one_there(dataset: Path) -> None:
    found = evaluate_dataset(brightness, model_info(threshold=0.9), load_dataset(dataset), "test")
    own, tuned = found.at
    assert own.threshold == 0.9
    on_val = evaluate_dataset(brightness, model_info(), load_dataset(dataset), "val")
    assert len(on_val.at) == 1
    assert tuned.threshold == on_val.curve.best_threshold()
    assert tuned.metrics["landslide_iou"] > own.metrics["landslide_iou"]
    assert (
        len(
            evaluate_dataset(brightness, model_info(), load_dataset(dataset), "test", tune=False).at
        )
        == 1
    )


def test_validation_without_landslide_shows_nothing(dataset: Path) -> None:
    whole = load_dataset(dataset)
    bare = [replace(t, landslide_px=t.landslide_px * (t.split != "val")) for t in whole.tiles]
    without = replace(whole, tiles=tuple(bare))
    assert len(evaluate_dataset(brightness, model_info(), without, "test").at) == 1
    with pytest.raises(LsmapError, match="no landslide in its 'val' split"):
        evaluate_dataset(brightness, model_info(), without, "val")


def test_landslides_that_tiles_cut_are_whole_objects(dataset: Path) -> None:
    def oracle(images: np.ndarray) -> np.ndarray:
        band = images[:, 0]  # 0 where it is not seen
        return np.float32(0.5) * ((band >= 101) | (band == 0))  # which is the threshold

    found = evaluate_dataset(oracle, model_info(), load_dataset(dataset), "test", tune=False)
    objects = found.at[0].objects
    assert objects.unit == "m²"
    assert objects.all.reference == 2
    assert (objects.all.found, objects.all.matched_reference) == (1, 1)
    with rasterio.open(dataset.parent / "test.tif") as scene:
        assert objects.all.mapped == label_components(scene.read(1) >= 101)[1]
    by_size = {name: counts.reference for name, counts in objects.classes if counts.reference}
    # 15 × 15 and 110 × 60 pixels of a quarter of a square metre.
    assert by_size == {"< 100 m²": 1, "1 000 – 10 000 m²": 1}


@pytest.mark.parametrize("blocks", ["scenes", "tiles"])
def test_ground_that_counts_again_is_told(
    dataset: Path, tmp_path: Path, blocks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a stride below the tile size, windows overlap in blocks that are larger than a tile."""
    folder = dataset.parent
    scenes = [folder / f"{split}.tif" for split in ("train", "val", "test")]
    options = ["--tile-size", TILE, "--stride", TILE // 2, "--stretch", "none", "--workers", 1]
    split_file = ["--split-file", folder / "split.csv"] if blocks == "scenes" else []
    run("prepare", *scenes, folder / "labels.gpkg", "-o", tmp_path / "d", *options, *split_file)
    capsys.readouterr()
    found = evaluate_dataset(brightness, model_info(), load_dataset(tmp_path / "d"), tune=False)
    again = blocks == "scenes"
    assert found.to_dict()["overlapping"] == found.overlapping == again
    said = "tiles overlap, so pixels and landslides count as often as tiles show them"
    assert (f"{tmp_path / 'd'}: {said}; to measure" in capsys.readouterr().err) == again
    assert (said.capitalize() in render(found, b"", None, None)) == again
    reference = found.at[0].objects.all.reference
    assert reference > 2 if again else reference <= 2


def test_batches_and_streams_change_nothing(dataset: Path) -> None:
    class Streaming:
        batch_size = 5

        def __call__(self, images: np.ndarray) -> np.ndarray:
            raise AssertionError("stream is the faster way")

        def stream(self, batches):  # type: ignore[no-untyped-def]
            batches = iter(batches)
            waiting = [next(batches)]
            for batch in batches:  # one batch ahead, as on CUDA
                waiting.append(batch)
                yield brightness(waiting.pop(0))
            yield brightness(waiting.pop())

    plain = evaluate_dataset(brightness, model_info(), load_dataset(dataset))
    assert (
        evaluate_dataset(Streaming(), model_info(), load_dataset(dataset)).to_dict()
        == plain.to_dict()
    )


def test_units_give_the_whole(dataset: Path) -> None:
    found = evaluate_dataset(brightness, model_info(), load_dataset(dataset), threshold=0.3)
    at = found.at[0]
    assert at.origin == "given"
    names, counts = found.units(at)
    assert found.unit == "tile"  # one scene cannot be drawn from
    assert len(names) == len(counts) == 16
    shown = found.to_dict()
    assert shown["at"][0]["tiles"]["tp"] == at.counts[:, 0].tolist()
    assert sum(shown["at"][0]["tiles"]["fn"]) == shown["at"][0]["confusion"]["fn"]
    low, high = found.intervals(at)["landslide_iou"]
    assert low < at.metrics["landslide_iou"] < high
    for edges in shown["at"][0]["boundary"].values():
        for name in ("precision", "recall", "f1"):
            assert edges["intervals"][name][0] < edges[name] < edges["intervals"][name][1]
    two, five = shown["at"][0]["boundary"].values()
    assert two["intervals"] != five["intervals"]
    low, high = shown["average_precision_interval"]
    assert low < shown["average_precision"] < high
    few = replace(at, counts=np.array([[0, 0, 0, 9], [0, 1, 0, 8], [0, 0, 1, 8], [2, 1, 1, 5]]))
    np.testing.assert_array_equal(found.tile_iou(few), [np.nan, 0, 0, 0.5])
    worst = choose_tiles(at).worst
    wrong = at.counts[:, 1] + at.counts[:, 2]
    assert wrong[worst[0]] == wrong.max()


@pytest.mark.parametrize("sources", [7, 8])
def test_with_eight_sources_they_are_drawn_instead_of_tiles(dataset: Path, sources: int) -> None:
    whole = load_dataset(dataset)
    tiles = [replace(tile, source=f"{n % sources}") for n, tile in enumerate(whole.split("test"))]
    scattered = replace(whole, tiles=tuple(tiles))
    found = evaluate_dataset(brightness, model_info(), scattered, "test", tune=False)
    at = found.at[0]
    names, counts = found.units(at)
    objects = found.to_dict()["at"][0]["objects"]["intervals"]
    assert len(counts) == len(found.unit_counted) == (8 if sources == 8 else 16)
    assert found.unit_counted.sum() == counts.sum() == at.counts.sum()
    assert found.to_dict()["tiles"]["source"] == [tile.source for tile in tiles]
    if sources == 8:
        assert (found.unit, names) == ("source", found.sources)
        assert counts[3].tolist() == (at.counts[3] + at.counts[11]).tolist()
        assert all(0 <= low <= high <= 1 for low, high in objects.values())
        assert (at.source_objects[:, 1] > 0).all()  # noise is mapped in all
        assert objects["recall"][0] < at.objects.to_dict()["recall"] < objects["recall"][1]
    else:
        assert (found.unit, names, objects) == ("tile", found.tiles, None)


def test_the_table_says_what_was_found(dataset: Path) -> None:
    info = model_info(threshold=0.6)
    found = evaluate_dataset(brightness, info, load_dataset(dataset), "test")
    own, tuned = found.at
    lines = [" ".join(line.split()) for line in found.lines()]

    def shown(value: float, ends: tuple[float, float]) -> str:
        return "{:.4f} [{:.4f}, {:.4f}]".format(value, *ends)

    ends = found.intervals(own)
    for name in ("accuracy", "precision", "recall", "f1", "landslide_iou", "mean_iou"):
        label = name.replace("_iou", " IoU")
        text = f"{label} {shown(own.metrics[name], ends[name])} {tuned.metrics[name]:.4f}"
        assert text in lines
    edges, ends = boundary_rates(own.boundary.sum(axis=0)), found.boundary_intervals(own)
    for radius in ("2px", "5px"):
        text = shown(edges[radius]["f1"], ends[radius]["f1"])
        assert f"boundary F1, {radius} {text}" in lines
    assert f"average precision {shown(found.average_precision, found.precision_interval)}" in lines
    assert f"ECE {found.ece:.4f}" in lines
    counts = own.objects.all.to_dict()
    names = ("reference", "found", "matched_reference", "recall")
    names += ("mapped", "matched_mapped", "precision")
    row = [f"{n:.3f}" if isinstance(n := counts[name], float) else str(n) for name in names]
    assert f"all {' '.join(row)}" in lines
    assert counts["found"] > counts["matched_reference"]


def test_a_tile_without_crs_has_pixels_as_large_as_its_transform_says() -> None:
    source = {"gsd": 0.5, "determinant": 4.0}
    assert _pixel_area(Affine.scale(6, -3), None, 64, source) == 0.25 * 18 / 4


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"band_count": 4}, {}, "takes 4"),
        ({}, {"threshold": 0.0}, "--threshold"),
        ({}, {"split": "all"}, "--split"),
    ],
)
def test_what_does_not_fit_is_refused(
    dataset: Path, changes: dict[str, int], options: dict[str, object], said: str
) -> None:
    with pytest.raises(LsmapError, match=said):
        evaluate_dataset(brightness, model_info(**changes), load_dataset(dataset), **options)  # type: ignore[arg-type]


def test_another_stretch_is_a_warning(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_dataset(
        brightness, model_info(radiometry="equalize"), load_dataset(dataset), tune=False
    )
    assert "--stretch none" in capsys.readouterr().err


def test_ground_that_is_not_counted_is_told(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half as many negatives as landslide tiles are drawn; the scene has more."""
    scene, labels = dataset.parent / "test.tif", dataset.parent / "labels.gpkg"
    options = ["--tile-size", TILE, "--stretch", "none", "--workers", 1, "--negatives", 0.5]
    split_file = ["--split-file", dataset.parent / "split.csv"]
    run("prepare", scene, labels, "-o", tmp_path / "d", *options, *split_file)
    drawn, every = load_dataset(tmp_path / "d"), load_dataset(dataset)
    capsys.readouterr()
    for tiles in (drawn, every):
        found = evaluate_dataset(brightness, model_info(), tiles, tune=False)
        lacking = len(every.split("test")) - len(tiles.split("test"))
        assert (lacking > 0) == (tiles is drawn)
        assert found.to_dict()["undrawn_negatives"] == found.undrawn == lacking
        said = f"{lacking} windows without landslide are not in it"
        assert (said in capsys.readouterr().err) == (tiles is drawn)
        assert (said in render(found, b"", None, None)) == (tiles is drawn)


def test_figures_on_what_was_learnt_or_chosen_by_are_said_to_flatter(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = load_dataset(dataset)
    trained = model_info(digests={"data": tiles.digest})
    for split, said in (
        ("train", "fake was trained on these tiles: the figures flatter it"),
        ("val", "epoch, threshold and calibration of fake were chosen by these tiles"),
        ("test", ""),
    ):
        evaluate_dataset(brightness, trained, tiles, split, tune=False)
        err = capsys.readouterr().err
        assert said in err if said else err == ""
        evaluate_dataset(brightness, model_info(), tiles, split, tune=False)
        assert capsys.readouterr().err == ""


def test_tiles_of_another_size_are_told(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size, told in ((TILE, False), (TILE // 2, True)):
        evaluate_dataset(brightness, model_info(tile_size=size), load_dataset(dataset), tune=False)
        said = f"{dataset} has tiles of {TILE} pixels; detect shows fake windows of {size},"
        assert (said in capsys.readouterr().err) == told


def test_another_pixel_size_is_a_warning(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for gsd, told in ((0.4, False), (0.2, True), (10.0, True), (None, False)):
        evaluate_dataset(brightness, model_info(gsd=gsd), load_dataset(dataset), tune=False)
        said = f"{dataset}: pixels are 0.5 m, and fake was trained at {gsd} m: landslides look"
        assert (said.replace("10.0", "10") in capsys.readouterr().err) == told


def test_one_scene_is_said_to_be_one(dataset: Path) -> None:
    found = evaluate_dataset(brightness, model_info(), load_dataset(dataset), tune=False)
    assert "There is only 1 scene, too few to draw" in render(found, b"", None, None)


def test_titles_are_whole(dataset: Path) -> None:
    tiles = load_dataset(dataset).split("test")[:1]
    found = evaluate_dataset(brightness, model_info(), load_dataset(dataset), tune=False)
    with Image.open(BytesIO(gallery(brightness, found, tiles, 3))) as picture:
        shown = np.asarray(picture.convert("L"))
    assert (shown[[0, -1]] == 255).all()


def test_long_titles_do_not_run_into_each_other(dataset: Path) -> None:
    tiles = load_dataset(dataset).split("test")[:1]
    found = evaluate_dataset(brightness, model_info(), load_dataset(dataset), tune=False)
    number = found.tiles.index(tiles[0].tile_id)
    name = f"orthomosaic_of_the_whole_county{'_x' * 30}_r00512_c01024"
    names = tuple(name if n == number else old for n, old in enumerate(found.tiles))
    long = replace(found, tiles=names), [replace(tiles[0], tile_id=name)]
    with Image.open(BytesIO(gallery(brightness, found, tiles, 1))) as picture:
        width = picture.width
    with Image.open(BytesIO(gallery(brightness, *long, 1))) as picture:
        assert picture.width == width


class Page(HTMLParser):
    """Collects tags that are open at the end and the sources of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_command_writes_a_report(dataset: Path, bundled_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    output = run("evaluate", bundled_model, dataset, "--device", "cpu", "-o", folder)
    assert "landslide IoU" in output
    assert f"Next: look at {folder / 'report.html'}" in output
    names = {path.name for path in folder.iterdir()}
    assert {"metrics.json", "report.html", "curves.png"} <= names <= {*names, "best.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    page = Page()
    text = (folder / "report.html").read_text("utf-8")
    page.feed(text)
    assert page.open == []
    assert len(page.pictures) == len([name for name in names if name.endswith(".png")])
    assert all(picture.startswith("data:image/png;base64,") for picture in page.pictures)
    assert "http" not in text
    with Image.open(folder / "curves.png") as picture:
        assert min(picture.size) > 500

    predict, info = load_predictor(bundled_model, "cpu")
    again = evaluate_dataset(predict, info, load_dataset(dataset))
    assert json.loads((folder / "metrics.json").read_text("utf-8")) == json.loads(
        json.dumps(again.to_dict())
    )


@pytest.mark.parametrize(
    ("option", "view", "words"),
    [("tta", SymmetryAverage, "mean over 8 flips and turns"), ("moved", Quarters, "tiles moved")],
)
def test_other_views_of_tiles_are_measured_and_said(
    dataset: Path, bundled_model: Path, tmp_path: Path, option: str, view: Any, words: str
) -> None:
    output = run(
        "evaluate", bundled_model, dataset, f"--{option}", "--device", "cpu", "-o", tmp_path / "out"
    )
    assert f", {words} on test of" in output
    assert f", {words} on" in (tmp_path / "out" / "report.html").read_text("utf-8")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    predict, info = load_predictor(bundled_model, "cpu")
    data = load_dataset(dataset)
    seen = evaluate_dataset(view(predict), info, data).to_dict()
    assert found == json.loads(json.dumps(seen | {option: True}))
    plain = evaluate_dataset(predict, info, data).to_dict()
    assert found["curve"] != plain["curve"]
    counts = (values["at"][0]["confusion"] for values in (found, plain))
    assert len({sum(each.values()) for each in counts}) == 1


def test_a_batch_is_as_large_as_tiles_of_the_data_set_allow(
    dataset: Path, bundled_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = []

    def load(path: Path, _device: str, tile_size: int) -> tuple[Any, ModelInfo]:
        sides.append(tile_size)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")

    monkeypatch.setattr("landslide_mapper.evaluate.load_predictor", load)
    output = run("evaluate", bundled_model, dataset, "-o", tmp_path / "out", code=1)
    assert "the device ran out of memory; give --device cpu, or prepare with a smaller" in output
    assert sides == [load_dataset(dataset).tile_size]
    assert sides != [info_of(bundled_model).tile_size]


def test_results_are_not_overwritten_unasked(
    dataset: Path, bundled_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", "utf-8")
    handed_on = tmp_path / "run"  # of a run, the model is enough
    handed_on.mkdir()
    shutil.copy(bundled_model, handed_on / "best.safetensors")
    arguments = ("evaluate", handed_on, dataset, "-o", folder, "--no-tune")
    assert "--overwrite" in run(*arguments, code=2)
    assert "holds no evaluation" in run(*arguments, "--overwrite", code=2)
    (folder / "metrics.json").write_text("{}", "utf-8")
    (folder / "verdicts.gpkg").write_text("of two inventories", "utf-8")
    run(*arguments, "--overwrite")
    assert (folder / "notes.txt").read_text("utf-8") == "mine"
    assert not (folder / "verdicts.gpkg").exists()
    assert json.loads((folder / "metrics.json").read_text("utf-8"))["kind"] == "model"


def test_results_never_replace_what_is_compared(dataset: Path, tmp_path: Path) -> None:
    labels, out = dataset.parent / "labels.gpkg", tmp_path / "out"
    run("evaluate", labels, labels, "-o", out)
    verdicts = out / "verdicts.gpkg"
    before = verdicts.read_bytes()
    for pair in ((verdicts, labels), (labels, verdicts)):
        assert "is an input" in run("evaluate", *pair, "-o", out, "--overwrite", code=2)
    assert verdicts.read_bytes() == before


def test_a_place_that_cannot_be_written_is_said_first(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    out = tmp_path / "out"
    assert "cannot be written to" in run("evaluate", "absent.gpkg", dataset, "-o", out, code=2)


def test_one_tile_has_no_interval(dataset: Path, bundled_model: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(dataset, tmp_path / "alone")
    with sqlite3.connect(alone / "tiles.gpkg") as database:
        # Triggers of the spatial index need functions that only GDAL has.
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(
            "DELETE FROM tiles WHERE split = 'test' AND tile_id <> "
            "(SELECT tile_id FROM tiles WHERE split = 'test' ORDER BY landslide_px DESC LIMIT 1)"
        )
    output = run("evaluate", bundled_model, alone, "-o", tmp_path / "out", "--no-tune")
    assert "no intervals" in output
    assert "[" not in output
    found = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert found["at"][0]["intervals"] is None
    assert found["at"][0]["boundary"]["2px"]["intervals"] is None
    assert found["average_precision_interval"] is None
    assert "There is one tile only" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_a_data_set_that_is_damaged_is_one_line(
    dataset: Path, bundled_model: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    tile = load_dataset(copy).split("test")[0]
    with rasterio.open(tile.image) as raster:
        profile, pixels = raster.profile, raster.read()
    with rasterio.open(tile.image, "w", **(profile | {"height": TILE - 8})) as raster:
        raster.write(pixels[:, : TILE - 8])
    out = ("-o", tmp_path / "out")
    assert "its mask" in run("evaluate", bundled_model, copy, *out, code=1)
    assert "its mask" in run("explain", bundled_model, tile.image, *out, code=2)
    (copy / "dataset.json").write_text('{"schema_version": 1}', "utf-8")
    assert "unusable tile_size" in run("evaluate", bundled_model, copy, *out, code=2)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(
    dataset: Path, bundled_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr("landslide_mapper.evaluation.pictures.curves", full)
    output = run("evaluate", bundled_model, dataset, "-o", tmp_path / "out", code=1)
    assert "no space left" in output
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_pair_is_said(dataset: Path, bundled_model: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    labels = dataset.parent / "labels.gpkg"
    assert "two vector files" in run("evaluate", labels, dataset, *out, code=2)
    assert "lsmap prepare" in run("evaluate", bundled_model, labels, *out, code=2)
    assert "lsmap prepare" in run("evaluate", labels, *out, code=2)
    said = run("evaluate", dataset, bundled_model, *out, code=2)
    assert f"a data set comes last, after the model: lsmap evaluate MODEL {dataset}" in said
    assert "no meaning" in run("evaluate", bundled_model, dataset, "--aoi", labels, *out, code=2)
    assert "no meaning" in run("evaluate", labels, labels, "--no-tune", *out, code=2)
    said = run("evaluate", "nowhere", "neither", "--moved", *out, code=2)  # not what --moved means
    assert "nowhere: there is no such file" in said
    assert "no meaning" in run("evaluate", labels, labels, "--device", "cpu", *out, code=2)
    assert "[MODEL] DATASET" in run("evaluate", labels, labels, labels, *out, code=2)
    assert not (tmp_path / "out").exists()


def test_without_a_model_the_bundled_one_is_taken(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "(bundled" in run("evaluate", dataset, "--split", "val")
    assert (tmp_path / "evaluation" / "report.html").is_file()
