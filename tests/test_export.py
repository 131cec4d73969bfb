"""ONNX files: the network's answers, the metadata that other tools read, and GeoDeep as proof."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from rasterio.enums import ColorInterp

from landslide_mapper import export as export_module
from landslide_mapper.checkpoint import ModelInfo, load_model, save_model
from landslide_mapper.cli import main
from landslide_mapper.config import ModelConfig
from landslide_mapper.detect import detect
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.export import ExportConfig, export, metadata
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.info import describe
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.nn.build import build
from landslide_mapper.predictors import info_of, load_predictor
from tests.fakes import nothing_but, write_scene

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def save_small(path: Path, **changes: object) -> ModelInfo:
    """A small network on windows of 64 pixels; without training, but not constant."""
    torch.manual_seed(1)
    bands = changes.pop("bands", (1, 2, 3))
    config = ModelConfig(
        arch=changes.pop("arch", "mrife"),  # type: ignore[arg-type]
        backbone="resnet18",
        last_layer=3,
        aspp_channels=16,
        aspp_rates=(2, 3),
        band_count=len(bands),  # type: ignore[arg-type]
        unseen=changes.pop("unseen", "mirror"),  # type: ignore[arg-type]
    )
    values = {"radiometry": "none", "tile_size": 64, "gsd": 0.5, "threshold": 0.3} | changes
    info = ModelInfo("small", config, bands, **values)  # type: ignore[arg-type]
    save_model(build(config), info, path)
    return info


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model without a stretch."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_small(path)
    return path


@pytest.fixture(scope="module")
def exported(small: Path) -> Path:
    """`small` as ONNX."""
    return export(ExportConfig(small.with_suffix(".onnx"), str(small))).output


@pytest.mark.parametrize("arch", ["deeplabv3plus", "icssn"])
def test_other_architectures_are_exported_too(arch: str, tmp_path: Path) -> None:
    """`export` itself holds the file against the network; here lsmap predicts with it."""
    save_small(tmp_path / "m.safetensors", arch=arch)
    report = export(ExportConfig(tmp_path / "m.onnx", str(tmp_path / "m.safetensors")))
    windows = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    (one, info), (two, _) = (
        load_predictor(path, "cpu") for path in (report.output, tmp_path / "m.safetensors")
    )
    assert info.arch == arch
    assert np.abs(one(windows) - two(windows)).max() < 1e-4


@pytest.fixture(scope="module")
def bundled_onnx(bundled_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as ONNX."""
    path = tmp_path_factory.mktemp("bundled") / "model.onnx"
    return export(ExportConfig(path, str(bundled_model))).output


def properties(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """What onnxruntime answers to float32 (N, B, h, w)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def as_tools_do(pixels: np.ndarray) -> np.ndarray:
    """uint8 → float32 0..1, with double precision in between, as GeoDeep has it."""
    return (pixels / 255.0).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_answers_as_the_network_does(small: Path, exported: Path, count: int) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    pixels[:, :, 20:40, 10:50] = 0  # not seen
    answer = run(exported, as_tools_do(pixels))
    network, _ = load_model(small)
    with torch.inference_mode():
        expected = torch.sigmoid(network(torch.from_numpy(pixels))).numpy()
    assert answer.shape == (count, 2, 64, 64)
    assert answer.dtype == np.float32
    assert not answer[:, 0].any()
    assert np.ptp(expected) > 1e-3
    assert np.abs(answer[:, 1] - expected).max() < 1e-5


def test_the_metadata_is_what_other_tools_read(bundled_onnx: Path, bundled_model: Path) -> None:
    info = info_of(bundled_model)
    found = properties(bundled_onnx)
    expected = {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "landslide"},
        "resolution": round(100 * (info.gsd or 0), 2),  # centimetres
        "tiles_size": 256,
        "tile_size": 256,
        "tiles_overlap": 25,  # percent
        "seg_thresh": info.threshold,
        "seg_small_segment": 0,
        "standardization_mean": [0, 0, 0],
        "standardization_std": [1, 1, 1],
    }
    assert {key: json.loads(found[key]) for key in expected} == expected
    assert set(found) == {*expected, "lsmap"}
    assert info_of(bundled_onnx) == info


def test_the_file_is_whole_old_enough_and_keeps_no_paths(
    bundled_onnx: Path, bundled_model: Path
) -> None:
    made = onnx.load(bundled_onnx, load_external_data=False)
    assert (made.ir_version, made.opset_import[0].version) == (8, 18)
    (image,) = made.graph.input
    sides = [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim]
    assert sides == ["windows", 3, 256, 256]
    assert not any(tensor.external_data for tensor in made.graph.initializer)
    assert str(Path(export_module.__file__).parent).encode() not in bundled_onnx.read_bytes()
    assert "stretched to 1..255 with equalize" in made.doc_string
    assert nothing_but(bundled_onnx.parent, "model.onnx")


def test_detect_gets_the_same_probabilities_from_onnx(small: Path, exported: Path) -> None:
    batch = np.random.default_rng(0).integers(1, 256, (2, 3, 64, 64), dtype=np.uint8)
    batch[:, :, :9] = 0
    plain, info = load_predictor(small, "cpu")
    predict, same = load_predictor(exported, "cpu")
    assert same == info
    assert (predict.device, predict.batch_size) == (torch.device("cpu"), 1)
    found = predict(batch)
    assert found.dtype == np.float32
    assert np.abs(found - plain(batch)).max() < 1e-5
    again, _ = load_predictor(exported, "cpu")
    assert np.array_equal(predict(batch), found)
    assert np.array_equal(again(batch), found)


def test_a_graph_that_is_not_what_it_says_is_refused(tmp_path: Path, exported: Path) -> None:
    model = onnx.load(exported)
    for entry in model.metadata_props:
        if entry.key == "lsmap":
            said = json.loads(entry.value)
            entry.value = json.dumps(said | {"tile_size": 2 * said["tile_size"]})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(LsmapError, match=r"other\.onnx takes .* where its metadata says \['n', 3"):
        load_predictor(tmp_path / "other.onnx", "cpu")


def test_a_graph_without_its_sigmoid_is_refused(tmp_path: Path, exported: Path) -> None:
    model = onnx.load(exported)
    last = model.graph.output[0].name
    (node,) = (node for node in model.graph.node if last in node.output)
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], [last]))
    node.output[0] = "before"
    onnx.save(model, tmp_path / "twice.onnx")
    predict, info = load_predictor(tmp_path / "twice.onnx", "cpu")
    side = info.tile_size
    with pytest.raises(LsmapFailure, match="which are no probabilities"):
        predict(np.full((1, 3, side, side), 99, np.uint8))


def test_onnx_is_for_the_cpu(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landslide_mapper.predictors.choose_device", torch.device)
    with pytest.raises(LsmapError, match=r"safetensors"):
        load_predictor(exported, "cuda")


def test_a_scene_s_stretch_in_the_graph_is_that_of_detect(tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    info = save_small(model, radiometry="equalize", unseen="mean")  # tools mirror nothing
    values = np.random.default_rng(0).gamma(3, 20, (64, 64)).clip(1, 254).astype(np.uint8)
    values[:10] = 255
    scene = open_scene(write_scene(tmp_path / "scene.tif", values, nodata=255))
    config = ExportConfig(tmp_path / "baked.onnx", str(model), scene=scene.path)
    assert export(config).next_command() == f"geodeep {scene.path} {tmp_path / 'baked.onnx'}"
    with SceneReader(scene) as reader:
        raw, valid = reader.read(0, 0, 64, 64)
    assert not valid[:10].any()
    stretched = fit(scene, info.radiometry).apply(raw, valid)
    expected = load_predictor(model, "cpu")[0](stretched[None])
    assert np.abs(run(config.output, as_tools_do(raw[None]))[:, 1] - expected).max() < 1e-5
    # What tools fill with beyond the scene's edge is not seen either.
    raw[:, 50:], stretched[:, 50:] = 0, 0
    expected = load_predictor(model, "cpu")[0](stretched[None])
    assert np.abs(run(config.output, as_tools_do(raw[None]))[:, 1] - expected).max() < 1e-5


def test_transparent_pixels_that_tools_would_feed_are_said(
    tmp_path: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((64, 64), 9, np.uint8), count=4)
    with rasterio.open(scene, "r+") as raster:
        raster.colorinterp = [
            *(ColorInterp.red, ColorInterp.green, ColorInterp.blue),
            ColorInterp.alpha,
        ]
    export(ExportConfig(tmp_path / "baked.onnx", str(small), scene=scene))
    assert "transparent pixels" in capsys.readouterr().err


def test_detect_refuses_a_model_with_a_scene_s_stretch(tmp_path: Path, small: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((64, 64), 9, np.uint8))
    path = export(ExportConfig(tmp_path / "baked.onnx", str(small), scene=scene)).output
    assert info_of(path) == info_of(small)
    assert properties(path)["lsmap_scene"] == "scene.tif"
    report = describe(str(path))
    assert "that of scene.tif is inside" in report.to_text()
    assert report.next_command is None  # detect refuses it
    with pytest.raises(LsmapError, match=r"stretch of scene\.tif.*without --scene"):
        load_predictor(path)


def lsmap(*args: object) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = CliRunner().invoke(main, ["export", *map(str, args)])
    return result.exit_code, result.output


def test_the_command(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "m.onnx"
    code, said = lsmap(small, "-o", path, "--opset", 20)
    assert code == 0, said
    assert "small" in said
    assert f"Next: lsmap detect REGION.tif -o slides.gpkg --model {path}" in said
    assert onnx.load(path).opset_import[0].version == 20
    assert nothing_but(tmp_path, "m.onnx")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"radiometry": "equalize"}, "stretched with 'equalize'"),
        ({"gsd": None}, "set the resolution"),
        ({"bands": (4, 3, 2, 1)}, "GeoDeep feeds three"),
    ],
)
def test_what_a_person_must_know_is_said(
    tmp_path: Path, changes: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_small(tmp_path / "m.safetensors", **changes)
    notes: list[str] = []
    monkeypatch.setattr(export_module, "note", notes.append)
    # What is written is another test's; it takes seconds.
    monkeypatch.setattr(export_module, "_write", lambda *args: args[-1].touch())
    monkeypatch.setattr(export_module, "_compare", lambda *args: 0.0)
    report = export(ExportConfig(tmp_path / "m.onnx", str(tmp_path / "m.safetensors")))
    (one,) = notes
    assert said in one
    assert ("resolution" in metadata(report.info)) == (report.info.gsd is not None)


def test_errors_are_one_line_and_leave_nothing_behind(tmp_path: Path, small: Path) -> None:
    there = tmp_path / "there.onnx"
    there.write_text("mine")
    fine = tmp_path / "new.onnx"
    deep = write_scene(tmp_path / "deep.tif", np.full((64, 64), 900, np.uint16))
    grey = write_scene(tmp_path / "grey.tif", np.full((64, 64), 9, np.uint8), count=1)
    swapped = write_scene(tmp_path / "swapped.tif", np.full((64, 64), 9, np.uint8))
    with rasterio.open(swapped, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    for args, said in [
        ((small, "-o", there), "--overwrite"),
        ((small, "-o", tmp_path / "m.pt"), r"ends with .onnx"),
        ((small, "-o", tmp_path / "no" / "m.onnx"), "no such folder"),
        ((small, "-o", fine, "--opset", 9), "18 to"),
        ((tmp_path / "gone.safetensors", "-o", fine), "does not exist"),
        ((there, "-o", fine), "ONNX already"),
        ((deep, "-o", fine), "not a safetensors file"),
        ((small, "-o", fine, "--scene", deep), "uint16"),
        ((small, "-o", fine, "--scene", tmp_path / "gone.tif"), "no such file"),
        ((small, "-o", fine, "--scene", swapped), "gdal_translate -b 3 -b 2 -b 1"),
        ((small, "-o", fine, "--scene", grey), "the model wants red, green, blue"),
    ]:
        code, output = lsmap(*args)
        assert code == 2, args
        assert said in output
        assert output.count("\n") == 1
    assert there.read_text() == "mine"
    assert nothing_but(tmp_path, "deep.tif", "grey.tif", "swapped.tif", "there.onnx")


def test_a_missing_extra_is_named(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # type: ignore[arg-type]
    with pytest.raises(LsmapError, match=r"needs onnxscript.*lsmap\[onnx\]"):
        export(ExportConfig(tmp_path / "m.onnx", str(small)))


def test_a_file_that_predicts_something_else_is_not_published(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    with pytest.raises(LsmapFailure, match="off by"):
        export(ExportConfig(tmp_path / "m.onnx", str(small)))
    assert nothing_but(tmp_path)


def test_a_file_that_somebody_made_in_the_meantime_is_kept(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.onnx"

    def compare(*_: object) -> float:
        target.write_text("theirs", "utf-8")
        return 0.0

    monkeypatch.setattr(export_module, "_compare", compare)
    with pytest.raises(LsmapError, match="in the meantime"):
        export(ExportConfig(target, str(small)))
    assert nothing_but(tmp_path, "m.onnx")
    assert target.read_text("utf-8") == "theirs"


def detected(scene: Path, model: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """lsmap's mask and probability in percent of a scene."""
    folder.mkdir()
    mask, percent = folder / "mask.tif", folder / "percent.tif"
    detect(
        DetectConfig(
            (str(scene),),
            folder / "slides.gpkg",
            model=str(model),
            mask=mask,
            probability=percent,
            device="cpu",
        )
    )
    with rasterio.open(mask) as one, rasterio.open(percent) as other:
        return one.read(1) == 1, other.read(1)


def agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((one & two).sum() / (one | two).sum())


@pytest.mark.slow
def test_detect_maps_the_bundled_scene_alike_with_both_kinds_of_model(
    tmp_path: Path, bundled_model: Path, bundled_scene: Path, bundled_onnx: Path
) -> None:
    plain, _ = detected(bundled_scene, bundled_model, tmp_path / "plain")
    portable, _ = detected(bundled_scene, bundled_onnx, tmp_path / "portable")
    assert plain.any()
    assert (plain != portable).sum() <= 5  # probabilities within 1e-5 of the threshold


@pytest.mark.slow
def test_geodeep_maps_the_bundled_scene_as_lsmap_does(
    tmp_path: Path, bundled_model: Path, bundled_scene: Path, bundled_onnx: Path
) -> None:
    geodeep = pytest.importorskip("geodeep", reason="needs geodeep from PyPI")
    baked = tmp_path / "baked.onnx"
    export(ExportConfig(baked, str(bundled_model), scene=str(bundled_scene)))
    ours, percent = detected(bundled_scene, bundled_model, tmp_path / "ours")
    assert 0.05 < ours.mean() < 0.95
    info = info_of(bundled_model)
    sure = np.abs(percent.astype(float) - 100 * info.threshold) > 8
    assert sure.mean() > 0.9

    def alike(found: np.ndarray) -> None:
        """GeoDeep cuts windows off in place of blending them and takes a median of 5 × 5.

        That moves probabilities by some percent, so what is sure must agree best.
        """
        assert found.shape == ours.shape
        assert agreement(found[sure] == 1, ours[sure]) > 0.98
        assert agreement(found == 1, ours) > 0.95

    raw = geodeep.segment(str(bundled_scene), str(baked), max_threads=1)
    alike(raw)

    # Without --scene it is fed what lsmap's stretch makes of the scene. Black pixels, which are
    # valid in this scene, are not seen where the stretch is in the graph.
    with rasterio.open(bundled_scene) as source:
        profile = {key: source.profile[key] for key in ("width", "height", "crs", "transform")}
    scene = open_scene(str(bundled_scene), info.bands)
    with SceneReader(scene) as reader:
        image = fit(scene, info.radiometry).apply(*reader.read(0, 0, scene.height, scene.width))
    stretched = tmp_path / "stretched.tif"
    with rasterio.open(stretched, "w", driver="GTiff", count=3, dtype="uint8", **profile) as out:
        out.write(image)
    fed = geodeep.segment(str(stretched), str(bundled_onnx), max_threads=1)
    alike(fed)
    assert (fed == raw).mean() > 0.999
