"""`explain`: Grad-CAM of networks with known answers, then files that are opened again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from click.testing import CliRunner
from fakes import UTM, nothing_but, write_scene
from matplotlib.image import imread
from torch import Tensor, nn

from landslide_mapper import explain as explain_module
from landslide_mapper.checkpoint import ModelInfo, load_model, save_model
from landslide_mapper.cli import main
from landslide_mapper.config import ModelConfig
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.explain import ExplainConfig, ExplainReport, explain
from landslide_mapper.nn.build import NETWORKS, build
from landslide_mapper.nn.gradcam import GradCam
from landslide_mapper.nn.mrife import MRIFE

LAYERS = ("segmentation", "enhancement", "fused")
SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=16)


class Pooled(nn.Module):
    """Mean colours of 8 × 8 blocks, weighted: a logit per block, shown by all its pixels."""

    def __init__(self, weights: list[float], bias: float) -> None:
        super().__init__()
        self.features = nn.AvgPool2d(8)
        self.weights = nn.Parameter(torch.tensor(weights))
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.einsum("nchw,c->nhw", self.features(images.float()), self.weights)
        return (logits + self.bias).repeat_interleave(8, 1).repeat_interleave(8, 2)

    def explained(self) -> dict[str, nn.Module]:
        return {"features": self.features}


def pooled_cam(images: Tensor, wanted: Tensor, threshold: float = 0.5) -> GradCam:
    network = Pooled([0.02, -0.01, 0.0], -1.0)
    cam = GradCam(network, network.explained(), threshold)
    cam.gather(images, wanted)
    return cam


def test_the_weights_of_a_network_with_known_answer() -> None:
    """Its logit is linear in its features, so the weights are those of the network."""
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    images[:, 0, :16] = 255
    cam = pooled_cam(images, torch.ones(2, 32, 48))
    expected = torch.tensor([0.02, -0.01, 0.0], dtype=torch.float64)
    torch.testing.assert_close(cam.weights()["features"], expected, rtol=1e-5, atol=1e-8)
    found = cam.maps(images)[:, 0]
    # At the middle between four points bilinear is their mean.
    blocks = nn.functional.avg_pool2d(images.float(), 8)
    coarse = torch.einsum("nchw,c->nhw", blocks, expected.float())
    mean = (coarse[:, 0, 0] + coarse[:, 1, 0] + coarse[:, 0, 1] + coarse[:, 1, 1]) / 4
    torch.testing.assert_close(found[:, 7:9, 7:9].mean(dim=(1, 2)), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 0, 0], coarse[:, 0, 0], rtol=1e-4, atol=1e-5)


def test_the_target_is_what_is_wanted_and_called_landslide() -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, 0, :8] = 250  # logit 4; below it -1
    wanted = torch.zeros(1, 16, 16)
    wanted[:, :, :8] = 0.25
    target = pooled_cam(images, wanted).target()
    assert target.pixels == 64 * 0.25
    assert target.logit == pytest.approx(4)
    assert target.highest == pytest.approx(1 / (1 + np.exp(-4)))


def test_the_highest_probability_is_of_what_is_wanted() -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, 0, :8] = 250
    wanted = torch.ones(1, 16, 16)
    wanted[:, :8] = 0
    target = pooled_cam(images, wanted).target()
    assert target.pixels == 0
    assert target.highest == pytest.approx(1 / (1 + np.e))


def test_nothing_called_landslide_is_said() -> None:
    cam = pooled_cam(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.ones(1, 16, 16))
    assert cam.target().pixels == 0
    with pytest.raises(ValueError, match="threshold"):
        cam.weights()


def test_windows_in_any_batches_give_the_same_weights() -> None:
    torch.manual_seed(0)
    network = MRIFE(SMALL)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    found = []
    for size in (1, 4):
        cam = GradCam(network, network.explained(), 0.01)
        for part in images.split(size):
            cam.gather(part, torch.ones(len(part), 64, 64))
        found.append(cam.weights())
    for name in LAYERS:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_point_wise_fusion_makes_branches_comparable(fusion: str) -> None:
    torch.manual_seed(0)
    network = MRIFE(dataclasses.replace(SMALL, fusion=fusion)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before = network(images)
    points = network.explained()
    assert tuple(points) == LAYERS
    cam = GradCam(network, points, 0.01)
    cam.gather(images, torch.ones(2, 64, 64))
    segmentation, enhancement, fused = cam.maps(images).unbind(1)
    same = torch.allclose(segmentation + enhancement, fused, rtol=1e-3, atol=1e-4)
    assert same == (fusion == "add")
    torch.testing.assert_close(network(images), before)  # no hook is left behind


def test_the_weights_are_the_logits_slope() -> None:
    """Against finite differences: a shift of one fused channel, seen by the decoder."""
    torch.manual_seed(0)
    network = MRIFE(SMALL).eval().double()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    network.normalise = nn.Sequential(network.normalise, _Double())  # type: ignore[assignment]
    cam = GradCam(network, network.explained(), 0.01)
    cam.gather(images, torch.ones(1, 64, 64, dtype=torch.float64))
    with torch.no_grad():
        normalised = network.normalise(images)
        fused = network.segmentation(normalised) + network.teacher(normalised)
        shift = torch.zeros_like(fused)
        shift[:, 3] = 1e-6
        slope = (network.decoder(fused + shift) - network.decoder(fused - shift)).mean() / 2e-6
    assert cam.weights()["fused"][3].item() == pytest.approx(slope.item(), rel=1e-4)


class _Double(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.double()


@pytest.mark.parametrize("arch", NETWORKS)
def test_every_architecture_is_explained(arch: str) -> None:
    torch.manual_seed(0)
    network = build(dataclasses.replace(SMALL, arch=arch))
    network.drop_training_parts()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    cam = GradCam(network, network.explained(), 0.01)
    cam.gather(images, torch.ones(1, 64, 64))
    found = cam.maps(images)
    assert found.shape == (1, len(cam.names), 64, 64)
    assert len(cam.names) == (3 if arch == "mrife" else 1)
    assert (found.abs().amax(dim=(0, 2, 3)) > 0).all()


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, windows of 64 pixels, for which every feature speaks for landslide."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    info = ModelInfo(
        "small", SMALL, bands=(1, 2, 3), radiometry="none", tile_size=64, gsd=0.5, threshold=0.01
    )
    network = MRIFE(SMALL)
    with torch.no_grad():
        for layer in network.decoder.layers:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.abs_()
    save_model(network, info, path)
    return path


def explained(model: Path, scene: str | Path, output: Path, **options: Any) -> ExplainReport:
    return explain(ExplainConfig(str(scene), output, model=str(model), device="cpu", **options))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width)).astype(np.uint8)


def names(stem: str) -> list[str]:
    ends = [f"_{layer}.{suffix}" for layer in LAYERS for suffix in ("tif", "qml", "png")]
    return [f"{stem}{end}" for end in (".json", ".png", *ends)]


def test_rasters_lie_on_the_scene(tmp_path: Path, model: Path) -> None:
    band = noise(150, 170)
    band[:70, :70] = 0
    scene = write_scene(tmp_path / "scene.tif", band, nodata=0)
    report = explained(model, scene, tmp_path / "out")
    assert nothing_but(tmp_path / "out", *names("scene"))
    assert nothing_but(tmp_path, "out", "scene.tif")
    for layer in LAYERS:
        with rasterio.open(tmp_path / "out" / f"scene_{layer}.tif") as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert (raster.shape, raster.transform) == ((150, 170), UTM)
            assert raster.crs == "EPSG:32648"
            assert raster.nodata == 255
            values = raster.read(1)
        assert ((values == 255) == (band == 0)).all()
        seen = values[band > 0]
        assert seen.max() == (100 if report.figures["layers"][layer]["maximum_logit"] else 0)
        height, width, channels = imread(tmp_path / "out" / f"scene_{layer}.png").shape
        assert (height % 150, width % 170, channels) == (0, 0, 4)
    assert report.figures == json.loads((tmp_path / "out" / "scene.json").read_text("utf-8"))
    assert report.figures["target"]["pixels"] == pytest.approx((band > 0).sum(), rel=1e-4)


def test_one_window_is_the_networks_own_map(tmp_path: Path, model: Path) -> None:
    band = noise(64, 64)
    scene = write_scene(tmp_path / "scene.tif", band)
    report = explained(model, scene, tmp_path / "out")
    network, info = load_model(model)
    cam = GradCam(network, network.explained(), info.threshold)
    images = torch.from_numpy(np.stack([band] * 3)[None])
    cam.gather(images, torch.ones(1, 64, 64))
    for layer, expected in zip(LAYERS, cam.maps(images).unbind(1), strict=True):
        heat = expected[0].clamp(min=0).numpy()
        highest = report.figures["layers"][layer]["maximum_logit"]
        assert highest == pytest.approx(heat.max(), rel=1e-4)
        with rasterio.open(tmp_path / "out" / f"scene_{layer}.tif") as raster:
            np.testing.assert_allclose(raster.read(1), 100 * heat / heat.max(), atol=0.51)


def test_a_box_of_a_scene(tmp_path: Path, model: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(200, 210))
    west, north = UTM * (40, 30)
    east, south = UTM * (120, 90)
    report = explained(model, scene, tmp_path / "out", bbox=(west, south, east, north))
    with rasterio.open(tmp_path / "out" / "scene_fused.tif") as raster:
        assert raster.shape == (60, 80)
        assert raster.transform * (0, 0) == pytest.approx((west, north))
        assert raster.read(1).max() == 100
    assert report.figures["target"]["pixels"] == pytest.approx(60 * 80, rel=1e-4)
    with pytest.raises(LsmapError, match="no pixel of it lies"):
        explained(model, scene, tmp_path / "other", bbox=(0, 0, 1, 1))


def test_figures_of_zones(tmp_path: Path, model: Path) -> None:
    """Against the raster itself, with a square label in another CRS."""
    scene = write_scene(tmp_path / "scene.tif", noise(128, 128))
    corners = [UTM * point for point in ((32, 32), (96, 32), (96, 96), (32, 96))]
    labels = geopandas.GeoDataFrame(geometry=[shapely.Polygon(corners)], crs="EPSG:32648")
    labels.to_crs("EPSG:4326").to_file(tmp_path / "labels.gpkg")
    report = explained(model, scene, tmp_path / "out", labels=str(tmp_path / "labels.gpkg"))
    inside = np.zeros((128, 128), bool)
    inside[32:96, 32:96] = True
    interior = np.zeros_like(inside)
    interior[40:88, 40:88] = True
    around = np.zeros_like(inside)
    around[24:104, 24:104] = True  # but for its rounded corners
    for layer in LAYERS:
        with rasterio.open(tmp_path / "out" / f"scene_{layer}.tif") as raster:
            heat = raster.read(1) / 100
        row = report.figures["layers"][layer]
        assert row["mean_inside"] == pytest.approx(heat[inside].mean(), abs=0.003)
        assert row["mean_interior"] == pytest.approx(heat[interior].mean(), abs=0.003)
        assert row["mean_edge"] == pytest.approx(heat[around & ~interior].mean(), abs=0.01)
        assert row["mean_outside"] == pytest.approx(heat[~around].mean(), abs=0.01)
        assert row["heat_inside"] == pytest.approx(heat[inside].sum() / heat.sum(), abs=0.005)


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    """The one tile of a data set, half of it landslide, one row of it ignored."""
    pairs = tmp_path / "pairs"
    for folder in ("images", "masks"):
        (pairs / folder).mkdir(parents=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 1
    write_scene(pairs / "images" / "a.tif", noise(64, 64), crs=None)
    write_scene(pairs / "masks" / "a.tif", mask, crs=None, count=1)
    command = ["prepare", "--pairs", str(pairs / "images"), str(pairs / "masks"), "-o"]
    command += [str(tmp_path / "dataset"), "--tile-size", "64", "--stretch", "none"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    (found,) = (tmp_path / "dataset" / "images").glob("*.tif")
    return found


def test_a_tile_brings_its_labels(
    tmp_path: Path, model: Path, tile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tile.parents[1] / "dataset.json"
    known = manifest.read_text("utf-8").replace('"gsd": null', '"gsd": 5.0', 1)
    manifest.write_text(known, "utf-8")
    mask = tile.parents[1] / "masks" / tile.name
    with rasterio.open(mask, "r+") as raster:
        values = raster.read(1)
        values[60:] = 255
        raster.write(values, 1)
    report = explained(model, tile, tmp_path / "out")
    assert "pixels are 5 m, and small was trained at 0.5 m" in capsys.readouterr().err
    with rasterio.open(tmp_path / "out" / f"{tile.stem}_fused.tif") as raster:
        heat = raster.read(1) / 100
    row = report.figures["layers"]["fused"]
    assert row["mean_interior"] == pytest.approx(heat[:24].mean(), abs=0.003)
    assert row["mean_edge"] == pytest.approx(heat[24:40].mean(), abs=0.003)
    assert row["mean_outside"] == pytest.approx(heat[40:60].mean(), abs=0.003)


def test_options_without_meaning_for_a_tile_are_refused(
    tmp_path: Path, model: Path, tile: Path
) -> None:
    for option, value in (("gsd", 0.5), ("bands", (1, 2, 3)), ("asset", ("red",))):
        with pytest.raises(LsmapError, match=f"--{option} has no meaning for a tile"):
            explained(model, tile, tmp_path / "out", **{option: value})
    mask = tile.parents[1] / "masks" / tile.name
    mask.write_bytes(mask.read_bytes()[:200])
    with pytest.raises(LsmapFailure, match="cannot be read"):
        explained(model, tile, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_leave_nothing_behind(tmp_path: Path, model: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    out = tmp_path / "out"
    with pytest.raises(LsmapError, match="highest probability"):
        explained(model, scene, out, threshold=1.0)
    with pytest.raises(LsmapError, match="--threshold"):
        explained(model, scene, out, threshold=0.0)
    for gsd in (float("nan"), float("inf"), 0.0):
        with pytest.raises(LsmapError, match="give metres above 0"):
            explained(model, scene, out, gsd=gsd)
    with pytest.raises(LsmapError, match="no gradients"):
        explained(tmp_path / "model.onnx", scene, out)
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32648")
    points.to_file(tmp_path / "points.gpkg")
    with pytest.raises(LsmapError, match="no polygon in it"):
        explained(model, scene, out, labels=str(tmp_path / "points.gpkg"))
    (tmp_path / "points.gpkg").unlink()
    write_scene(tmp_path / "other.tif", noise(64, 64))
    with pytest.raises(LsmapError, match="one at a time"):
        explained(model, tmp_path / "*.tif", out)
    assert nothing_but(tmp_path, "scene.tif", "other.tif")
    explained(model, scene, out)
    with pytest.raises(LsmapError, match="--overwrite"):
        explained(model, scene, out)
    explained(model, scene, out, overwrite=True)
    assert nothing_but(out, *names("scene"))


def test_what_somebody_made_in_the_meantime_is_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    out = tmp_path / "out"
    write = explain_module._write

    def and_meanwhile(*args: Any) -> None:
        write(*args)
        out.mkdir(exist_ok=True)
        (out / "scene.png").write_text("theirs", "utf-8")

    monkeypatch.setattr(explain_module, "_write", and_meanwhile)
    with pytest.raises(LsmapError, match="in the meantime"):
        explained(model, scene, out)
    assert nothing_but(out, "scene.png")
    assert (out / "scene.png").read_text("utf-8") == "theirs"


@pytest.mark.slow
def test_landslides_light_up_in_the_bundled_scene(
    tmp_path: Path, bundled_scene: Path, bundled_labels: Path, bundled_model: Path
) -> None:
    command = ["explain", str(bundled_model), str(bundled_scene), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, "--labels", str(bundled_labels)])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out" / "sichuan_015.json").read_text("utf-8"))
    with rasterio.open(bundled_scene) as scene:
        place = (scene.shape, scene.transform, scene.crs)
    for layer in LAYERS:
        row = figures["layers"][layer]
        if layer != "segmentation":  # that of the bundled model finds the forest, not landslides
            factor = 3 if layer == "enhancement" else 1.5
            assert row["mean_inside"] > factor * row["mean_outside"]
        with rasterio.open(tmp_path / "out" / f"sichuan_015_{layer}.tif") as raster:
            assert (raster.shape, raster.transform, raster.crs) == place


def test_labels_after_a_scene_are_told_their_place(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", noise(64, 64))
    result = CliRunner().invoke(main, ["explain", scene, str(tmp_path / "labels.gpkg")])
    assert result.exit_code == 2
    assert "scene.tif is a scene, and MODEL comes before it; labels go after" in result.output
