"""What needs CUDA: bf16 steps that learn, prediction that agrees with the CPU and never waits.

Then the commands, from the one device to the other.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from learning import training_step
from running import LIGHT, run

from landslide_mapper.checkpoint import ModelInfo, bundled_model, save_model
from landslide_mapper.config import ARCHITECTURES, OPTIMIZERS, ModelConfig, TrainConfig
from landslide_mapper.nn.build import build
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.on_cuda import CudaPredictor
from landslide_mapper.nn.optimiser import RunningMean, make_optimizer
from landslide_mapper.predictors import default_batch, load_predictor
from landslide_mapper.training.history import read_log

pytestmark = pytest.mark.gpu

SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=64)


def batch(samples: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 120, (samples, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(samples, size, size, dtype=torch.uint8)
    labels[:, 40:120, 30:150] = 1
    images[:, :, 40:120, 30:150] += 90
    return images.cuda(), labels.cuda()


def test_bf16_steps_learn() -> None:
    torch.manual_seed(0)
    model = MRIFE(SMALL).cuda().to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(TrainConfig(lr=0.01), model, torch.device("cuda"))
    images, labels = batch(4, 256)
    generator = torch.Generator("cuda").manual_seed(0)
    entropies = []
    for _ in range(100):
        losses = training_step(model, optimizer, images, labels, generator)
        assert torch.isfinite(losses.total)
        entropies.append(losses.parts["cross_entropy"].item())
    assert entropies[-1] < 0.5 * entropies[0]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_training_step_never_waits(kind: str, arch: str) -> None:
    """torch raises at the first question that the host asks the device."""
    torch.manual_seed(0)
    network = build(dataclasses.replace(SMALL, arch=arch)).cuda().train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(TrainConfig(optimizer=kind), network, torch.device("cuda"))
    images, labels = batch(4, 256)
    generator = torch.Generator("cuda").manual_seed(0)

    for epoch in (0, 1):  # in each, libraries may ask for something once
        network.begin_epoch(epoch)
        training_step(network, optimizer, images, labels, generator)
        mean = RunningMean(network)
        torch.cuda.set_sync_debug_mode("error")
        try:
            training_step(network, optimizer, images, labels, generator)
            mean.take(9, 10)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_prediction_agrees_with_the_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    info = ModelInfo("test", SMALL, (1, 2, 3), "equalize", 256, None, 0.5)
    save_model(MRIFE(SMALL), info, tmp_path / "m.safetensors")
    images = batch(2, 256)[0].cpu().numpy()
    found = [
        load_predictor(tmp_path / "m.safetensors", device)[0](images) for device in ("cpu", "cuda")
    ]
    assert np.abs(found[0] - found[1]).max() < 0.03  # bf16 has 8 bits of mantissa


def noise(count: int, side: int = 256) -> np.ndarray:
    """Windows of noise, a part of them not seen."""
    made = np.random.default_rng(count).integers(1, 256, (count, 3, side, side), dtype=np.uint8)
    made[:, :, : side // 8] = 0
    return made


def real_windows(scene: Path) -> np.ndarray:
    """A scene as it is, in 16 windows, one of them with a part that was not seen."""
    with rasterio.open(scene) as raster:
        image = raster.read()
    rows = [image[:, row : row + 256] for row in range(0, 1024, 256)]
    made = np.stack([row[:, :, col : col + 256] for row in rows for col in range(0, 1024, 256)])
    made[0, :, :32] = 0
    return made


def test_the_bundled_model_agrees_with_the_cpu(bundled_scene: Path) -> None:
    windows = real_windows(bundled_scene)
    on_cpu, on_cuda = (load_predictor(bundled_model(), name)[0] for name in ("cpu", "cuda"))
    found = on_cuda(windows)
    expected = np.concatenate([on_cpu(window[None]) for window in windows])
    assert expected.min() < 0.1 < 0.9 < expected.max()
    assert found.dtype == np.float32
    error = np.abs(found - expected)
    print(f"bf16: {error.max():.4f} at most, {error.mean():.5f} in the mean")
    assert error.max() < 0.04
    assert error.mean() < 0.002
    assert ((found >= 0.5) != (expected >= 0.5)).mean() < 0.005


def test_a_stream_answers_in_order_whatever_the_sizes() -> None:
    predict, _ = load_predictor(bundled_model(), "cuda")
    assert isinstance(predict, CudaPredictor)
    batches = [noise(count) for count in (4, 0, 3, 4, 7, 1, 0, 0, 5, 4)]
    answers = list(predict.stream(iter(batches)))
    assert [len(answer) for answer in answers] == [len(batch) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        assert answer.shape == (len(batch), 256, 256)
        assert np.array_equal(answer, predict(batch))


def test_streams_and_calls_do_not_disturb_each_other() -> None:
    predict, _ = load_predictor(bundled_model(), "cuda")
    assert isinstance(predict, CudaPredictor)
    batches = [np.roll(noise(4), 7 * number, axis=2) for number in range(6)]
    expected = [predict(batch) for batch in batches]
    one, two = predict.stream(batches), predict.stream(batches[::-1])
    for number in range(6):
        assert np.array_equal(next(one), expected[number])
        assert np.array_equal(predict(batches[3]), expected[3])
        assert np.array_equal(next(two), expected[5 - number])


def test_equal_batches_give_equal_bits_in_another_predictor() -> None:
    batch = noise(6)
    one, two = (load_predictor(bundled_model(), "cuda")[0] for _ in range(2))
    first = one(batch)
    one(noise(2, 128))  # another shape, whose graph shares the memory
    assert np.array_equal(one(batch), first)
    assert np.array_equal(two(batch), first)


def test_the_batch_that_is_chosen_fits() -> None:
    predict, info = load_predictor(bundled_model(), "cuda")
    assert predict.batch_size == default_batch(predict.device, info.tile_size) >= 1
    free, total = torch.cuda.mem_get_info()
    predict(noise(predict.batch_size, info.tile_size))
    used = free - torch.cuda.mem_get_info()[0]
    assert used < total / 2
    print(f"{predict.batch_size} windows took {used / 2**20:.0f} MiB")


def test_streaming_is_faster_than_one_batch_after_the_other() -> None:
    predict, _ = load_predictor(bundled_model(), "cuda")
    assert isinstance(predict, CudaPredictor)
    batches = [np.maximum(noise(16), 1)] * 40  # to mirror what was not seen would take longest
    list(predict.stream(batches[:4]))
    began = time.perf_counter()
    for batch in batches:
        predict(batch)
    singly = time.perf_counter() - began
    began = time.perf_counter()
    for _ in predict.stream(batches):
        pass
    streamed = time.perf_counter() - began
    print(f"40 batches of 16: singly {singly:.3f} s, streamed {streamed:.3f} s")
    assert streamed < singly


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_goes_on_on_the_other_device(kind: str, dataset: Path, tmp_path: Path) -> None:
    """With processes that read, page-locked batches and a running mean of the weights."""
    folder = tmp_path / "run"
    options = [*LIGHT, "--weights", "none", "--batch-size", 8, "--lr", 1e-3, "--average", 1]
    new = ["train", dataset, "-o", folder, *options, "--optimizer", kind, "--epochs", 1]
    run(*new, "--workers", 2, "--device", "cuda")
    for epochs, device in ((2, "cpu"), (3, "cuda")):
        run("train", "--resume", "-o", folder, "--epochs", epochs, "--device", device)
    rows = read_log(folder / "log.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert rows[2]["cross_entropy"] < rows[0]["cross_entropy"]

    found = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        run("evaluate", folder, dataset, "--split", "val", "--device", device, "-o", out)
        found.append(json.loads((out / "metrics.json").read_text("utf-8"))["at"][0]["pixels"])
    for name in ("accuracy", "landslide_iou"):
        assert found[0][name] == pytest.approx(found[1][name], abs=0.05)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(dataset: Path, tmp_path: Path) -> None:
    options = [*LIGHT, "--weights", "none", "--batch-size", 8, "--lr", 1e-3, "--epochs", 2]
    new = ["train", dataset, *options, "--dropout", 0, "--workers", 2, "--device", "cuda", "-o"]
    run(*new, tmp_path / "plain")
    run(*new, tmp_path / "compiled", "--compile")
    logs = [read_log(tmp_path / name / "log.csv") for name in ("plain", "compiled")]
    for one, two in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=0.05)


def mapped(scene: Path, folder: Path, *options: object) -> np.ndarray:
    """Percent of probability, float, of `lsmap detect` with the bundled model."""
    folder.mkdir()
    layer, raster = folder / "slides.gpkg", folder / "p.tif"
    given = ["--model", "bundled", "--gsd", "native", "--probability", raster, *options]
    run("detect", scene, "-o", layer, *given)
    assert layer.is_file()
    with rasterio.open(raster) as opened:
        return opened.read(1).astype(float)


@pytest.mark.parametrize("option", [[], ["--batch-size", 3], ["--tta"]], ids=str)
def test_maps_agree_with_those_of_the_cpu(
    option: list[object], train_scenes: list[Path], tmp_path: Path
) -> None:
    expected, found = (
        mapped(train_scenes[0], tmp_path / name, "--device", name, *option)
        for name in ("cpu", "cuda")
    )
    assert len(np.unique(expected)) > 50
    assert np.abs(found - expected).max() <= 5


def test_processes_share_a_gpu(train_scenes: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra distributed")
    one = mapped(train_scenes[0], tmp_path / "one", "--device", "cuda")
    two = mapped(train_scenes[0], tmp_path / "two", "--device", "cuda", "--workers", 2)
    assert np.abs(one - two).max() <= 5


def test_explanations_agree_with_those_of_the_cpu(train_scenes: list[Path], tmp_path: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        run("explain", "bundled", train_scenes[0], "--device", device, "-o", out)
        found.append(json.loads((out / "sichuan_006.json").read_text("utf-8")))
    one, two = found
    assert one["target"]["pixels"] == pytest.approx(two["target"]["pixels"], rel=0.02)
    for name, layer in one["layers"].items():
        other = two["layers"][name]["maximum_logit"]
        assert layer["maximum_logit"] == pytest.approx(other, rel=0.05, abs=0.01)
