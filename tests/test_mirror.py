"""Mirrored ground where nothing was seen, and that every way to a network leads through it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from fakes import write_scene
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.checkpoint import ModelInfo, save_model
from landslide_mapper.config import UNSEEN, ModelConfig, TrainConfig, override
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.data.manifest import load_dataset
from landslide_mapper.data.report import PrepareReport
from landslide_mapper.detect import detect
from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluate import EvaluateConfig, evaluate
from landslide_mapper.explain import ExplainConfig, explain
from landslide_mapper.export import ExportConfig, export
from landslide_mapper.info import describe
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mask_values import IGNORE
from landslide_mapper.nn import mirror
from landslide_mapper.nn.build import build
from landslide_mapper.nn.mirror import mirror_unseen, shown
from landslide_mapper.predictors import load_predictor
from landslide_mapper.prepare import prepare
from landslide_mapper.training.loaders import load_datasets, make_loaders, warn_of_tiles
from landslide_mapper.training.parallel import Process

SIDE = 64
SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=16, aspp_rates=(2, 3))


def numbered(height: int, width: int) -> np.ndarray:
    """(3, H, W) of which every pixel has a colour of its own, none 0 in every band."""
    rows, cols = np.indices((height, width), dtype=np.uint8)
    return np.stack([rows, cols, np.full_like(rows, 9)])


@st.composite
def partly_seen(draw: st.DrawFn) -> np.ndarray:
    """A numbered image with holes, stripes and specks that were not seen, and some that was."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    seen = rng.random((height, width)) < draw(st.floats(0, 1))
    seen &= rng.random((height, 1)) < draw(st.floats(0, 1))
    seen[rng.integers(height), rng.integers(width)] = True
    return numbered(height, width) * seen


def ground_of(seen: np.ndarray) -> np.ndarray:
    """What lies in squares of 8 seen pixels; everything that was seen where there is none."""
    found = np.zeros_like(seen)
    for row, col in np.ndindex(*np.maximum(0, np.subtract(seen.shape, 7))):
        square = slice(row, row + 8), slice(col, col + 8)
        found[square] |= seen[square].all()
    return found if found.any() else seen


@given(partly_seen())
def test_what_was_seen_stays_and_all_else_is_ground_of_the_image(image: np.ndarray) -> None:
    seen = image.any(axis=0)
    filled = mirror_unseen(image)
    assert np.array_equal(filled[:, seen], image[:, seen])
    assert filled.any(axis=0).all()
    rows, cols, _ = filled[:, ~seen]
    assert ground_of(seen)[rows, cols].all()  # the colours tell where they come from


@given(partly_seen())
def test_the_ground_beside_what_was_seen_is_that_ground(image: np.ndarray) -> None:
    """No outline: a pixel beside the ground has the colour of the ground beside it."""
    seen = image.any(axis=0)
    rows, cols, _ = mirror_unseen(image).astype(int)
    beside = np.zeros_like(seen)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        moved = np.roll(ground_of(seen), step, axis)
        edge = [slice(None)] * 2
        edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
        moved[tuple(edge)] = False
        beside |= moved
    beside &= ~seen
    down, across = np.indices(seen.shape)
    assert (np.abs(rows - down) + np.abs(cols - across))[beside].max(initial=1) == 1


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    frame=st.tuples(*[st.integers(0, 30)] * 4),
)
def test_a_frame_is_filled_with_mirrored_ground(
    size: tuple[int, int], frame: tuple[int, int, int, int]
) -> None:
    """To and fro, however often; numpy's "symmetric" does so from 2.0 on."""
    top, bottom, left, right = frame
    image = numbered(*size)

    def mirrored(before: int, count: int, after: int) -> np.ndarray:
        place = np.arange(-before, count + after) % (2 * count)
        return np.minimum(place, 2 * count - 1 - place)

    expected = image[:, mirrored(top, size[0], bottom)][:, :, mirrored(left, size[1], right)]
    framed = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    assert np.array_equal(mirror_unseen(framed), expected)


def test_specks_in_a_collar_are_no_ground() -> None:
    """Lossy compression leaves them there, nearly black: mirrored, they would fill the collar."""
    image = numbered(40, 40)
    rows, cols = np.indices((40, 40))
    ground = cols < 20
    specks = ~ground & ((rows % 5 == 0) & (cols % 6 == 1) | (cols > 32))  # the last ones 7 wide
    filled = mirror_unseen(image * (ground | specks))
    assert np.array_equal(filled, np.where(specks, image, mirror_unseen(image * ground)))


def test_few_holes_take_little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes may have a black pixel in every window; a GPU would wait for each of them."""
    image = np.full((3, 64, 48), 9, np.uint8)
    image[:, [15, 15, 50], [10, 30, 10]] = 0  # in two rows and in two columns
    worked, last = [], mirror._last

    def counted(there: np.ndarray) -> np.ndarray:
        worked.append(there.shape)
        return last(there)

    monkeypatch.setattr(mirror, "_last", counted)
    assert (mirror_unseen(image) == 9).all()
    assert set(worked) == {(2, 48), (2, 64)}


def test_nothing_to_fill_and_nothing_to_fill_from() -> None:
    whole = numbered(5, 7)
    assert mirror_unseen(whole) is whole
    empty = np.zeros_like(whole)
    assert mirror_unseen(empty) is empty
    batch = np.stack([whole, empty, whole * (np.arange(7) < 3)])
    filled = mirror_unseen(batch)
    assert np.array_equal(filled[:2], batch[:2])
    assert np.array_equal(filled[2, 1, 0], [0, 1, 2, 2, 1, 0, 0])
    assert not batch[2, :, :, 3:].any()  # what was given is left alone


def save_small(folder: Path, unseen: str) -> Path:
    torch.manual_seed(1)
    path = folder / f"{unseen}.safetensors"
    config = ModelConfig(**{**vars(SMALL), "unseen": unseen})
    save_model(build(config), ModelInfo("small", config, (1, 2, 3), "none", SIDE, 0.5, 0.4), path)
    return path


def collared(seed: int) -> np.ndarray:
    """Noise of which a corner, cut off aslant, was not seen."""
    rows, cols = np.indices((SIDE, SIDE))
    noise = np.random.default_rng(seed).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
    return noise * (rows + 2 * cols > 50)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_model_is_shown_what_it_learnt_from(tmp_path: Path, kind: str) -> None:
    image = collared(0)[None]
    answers = {}
    for unseen in UNSEEN:
        path = save_small(tmp_path, unseen)
        if kind == "onnx":
            pytest.importorskip("onnxruntime", reason="needs the extra onnx")
            path = export(ExportConfig(tmp_path / f"{unseen}.onnx", str(path))).output
        predict, _ = load_predictor(path, "cpu")
        answers[unseen] = predict(image)
        assert np.array_equal(predict(shown(image, unseen)), answers[unseen])
    filled = load_predictor(save_small(tmp_path, "mean"), "cpu")[0](mirror_unseen(image))
    assert np.abs(answers["mirror"] - filled).max() < 1e-5
    assert np.abs(answers["mean"] - answers["mirror"]).max() > 1e-3


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[str, str, np.ndarray]:
    """A scene with a collar, the same with mirrored ground in its place, and what was seen."""
    grey = collared(1)[:1]
    paths = [
        write_scene(tmp_path / f"{name}.tif", values[0], nodata=0)
        for name, values in (("collar", grey), ("filled", mirror_unseen(grey)))
    ]
    return paths[0], paths[1], grey[0] != 0


def test_a_scene_is_mapped_as_if_its_collar_were_ground(
    tmp_path: Path, scenes: tuple[str, str, np.ndarray]
) -> None:
    collar, filled, seen = scenes
    found = {}
    for unseen, scene in (("mirror", collar), ("mean", filled), ("mean", collar)):
        out, raster = tmp_path / "slides.gpkg", tmp_path / "probability.tif"
        config = DetectConfig(
            (scene,), out, str(save_small(tmp_path, unseen)), probability=raster, overwrite=True
        )
        detect(config)
        with rasterio.open(raster) as opened:
            found[unseen, scene] = opened.read(1)
    assert np.array_equal(found["mirror", collar] != 255, seen)
    expected = found["mean", filled][seen]
    assert np.array_equal(found["mirror", collar][seen], expected)
    assert not np.array_equal(found["mean", collar][seen], expected)


def test_what_is_explained_is_what_the_network_was_shown(
    tmp_path: Path, scenes: tuple[str, str, np.ndarray]
) -> None:
    """The target: the highest probability that is wanted, which a threshold of 1 makes it tell."""
    collar, _, seen = scenes
    predict, _ = load_predictor(save_small(tmp_path, "mirror"), "cpu")
    with rasterio.open(collar) as opened:
        answer = predict(opened.read()[None])[0][seen]
    model = str(save_small(tmp_path, "mirror"))
    config = ExplainConfig(collar, tmp_path / "out", model, device="cpu")
    with pytest.raises(LsmapError, match=rf"highest probability is {answer.max():.3g};"):
        explain(replace(config, threshold=1.0))
    report = explain(replace(config, threshold=float(answer.min())))
    assert report.figures["target"]["pixels"] == seen.sum()
    assert report.figures["target"]["mean_logit"] == pytest.approx(
        float(np.log(answer / (1 - answer)).mean()), abs=1e-4
    )


def padded_tiles(folder: Path, place: slice = slice(10, 30)) -> Path:
    """A data set of images of 40 pixels in tiles of 64, each with a landslide at `place`."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), np.uint8)
    mask[place, place] = 1
    for number in range(20):
        image = rng.integers(1, 255, (40, 40), dtype=np.uint8)
        write_scene(folder / "images" / f"{number}.tif", image, crs=None)
        write_scene(folder / "masks" / f"{number}.tif", mask, crs=None, count=1)
    pairs = ((folder / "images", folder / "masks"),)
    prepare(PrepareConfig(pairs=pairs, output=folder / "tiles", tile_size=SIDE, stretch="none"))
    return folder / "tiles"


def test_landslides_in_the_middle_of_all_tiles_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The middle 20 pixels of images of 40 in tiles of 64: all in the middle half of both axes."""
    root = padded_tiles(tmp_path)
    config = TrainConfig(datasets=(str(root),))
    (dataset,) = load_datasets(config)
    assert dataset.in_the_middle() == 1
    warn_of_tiles(config, [dataset])
    said = capsys.readouterr().err
    assert "100% of the landslide in its train tiles lies in their middle quarter" in said
    assert "--shift 0.4" in said
    warn_of_tiles(replace(config, shift=0.4), [dataset])
    assert capsys.readouterr().err == ""
    warn_of_tiles(override(config, {"shift": 0.4, "unseen": "mean"}), [dataset])
    said = capsys.readouterr().err
    assert "train with --unseen mirror" in said
    assert len(said.splitlines()) == 1
    evaluate(EvaluateConfig(str(root), tmp_path / "plain", "bundled"))
    said = capsys.readouterr().err
    assert "100% of the landslide in its test tiles lies in their middle quarter" in said
    assert "--moved shows tiles off the middle" in said
    evaluate(EvaluateConfig(str(root), tmp_path / "moved", "bundled", moved=True))
    said = capsys.readouterr().err
    assert "their middle" not in said
    assert "frames" not in said
    mean = str(save_small(tmp_path, "mean"))
    evaluate(EvaluateConfig(str(root), tmp_path / "mean", mean, moved=True))
    assert "frames of moved tiles in the mean colour" in capsys.readouterr().err
    report = PrepareReport(root, dataset.info).lines()
    said = f"{root}: 100% of the landslide in its train tiles lies in their middle quarter"
    assert [line for line in report if line.startswith(said)]
    assert report[-2:] == ["", f"Next: lsmap train {root} --shift 0.4"]
    assert ["", ""] not in [report[n : n + 2] for n in range(len(report))]
    info = describe(str(root))
    assert info.to_dict()["in_the_middle"] == 1
    assert "100% of the train tiles' landslide lies in their middle quarter" in info.to_text()
    assert info.next_command == f"lsmap train {root} --shift 0.4"
    manifest = root / "dataset.json"
    content = json.loads(manifest.read_text("utf-8"))
    del content["counts"]["train"]["middle_px"]  # as before it was counted
    manifest.write_text(json.dumps(content), "utf-8")
    assert describe(str(root)).to_dict()["in_the_middle"] is None
    assert not load_dataset(root).centred()
    assert load_dataset(root).centred("test")  # which may be all that there is
    manifest.write_text(json.dumps(content | {"counts": [1]}), "utf-8")
    with pytest.raises(LsmapError, match="unusable counts"):
        load_dataset(root)


def test_the_middle_of_small_images_is_their_own(tmp_path: Path) -> None:
    """Training moves them within their tiles."""
    dataset = load_dataset(padded_tiles(tmp_path, slice(2, 14)))  # 14 to 26 in the tile
    assert dataset.in_the_middle() == pytest.approx((4 / 12) ** 2)
    assert not dataset.centred()


def test_a_small_image_is_mapped_as_its_tile_is_measured(tmp_path: Path) -> None:
    """In the middle of a window: elsewhere another part of it would be seen together."""
    tile = padded_tiles(tmp_path) / "images" / "3.tif"
    model = save_small(tmp_path, "mean")
    with rasterio.open(tile) as opened:
        image = opened.read()
    answer = load_predictor(model, "cpu")[0](image[None])[0][12:52, 12:52]  # of 64
    raster = tmp_path / "probability.tif"
    scene = str(tmp_path / "images" / "3.tif")
    detect(DetectConfig((scene,), tmp_path / "a.gpkg", str(model), probability=raster))
    with rasterio.open(raster) as opened:
        assert np.abs(opened.read(1) - 100 * answer).max() < 0.51


def test_training_gets_padded_tiles_filled_and_moved(tmp_path: Path) -> None:
    """Images smaller than a tile lie in its middle; in training they lie anywhere."""
    config = TrainConfig(datasets=(str(padded_tiles(tmp_path)),), workers=0)
    datasets = load_datasets(config)
    process, size = Process(0, 1, torch.device("cpu")), {}
    for unseen in UNSEEN:
        one = override(config, {"unseen": unseen})
        batches, training, validation = make_loaders(one, datasets, process)
        places = set()
        for epoch in range(4):
            batches.epoch = epoch
            for images, labels in training:
                for image, mask in zip(images.numpy(), labels.numpy(), strict=True):
                    known = np.argwhere(mask != IGNORE)
                    places.add(tuple(known.min(axis=0)))
                    assert image.any(axis=0).all() == (unseen == "mirror")
        for images, _ in validation.loader:
            assert images.any(dim=1).all() == (unseen == "mirror")
        size[unseen] = len(places)
    assert size["mean"] == 1
    assert size["mirror"] > 10
