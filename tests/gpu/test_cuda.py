"""What needs CUDA: bf16 steps that learn, prediction that agrees with the CPU and never waits."""

from __future__ import annotations

import copy
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from learning import training_step

from landslide_mapper.checkpoint import ModelInfo, bundled_model, save_model
from landslide_mapper.config import ARCHITECTURES, OPTIMIZERS, ModelConfig, TrainConfig
from landslide_mapper.nn.build import build
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.on_cuda import CudaPredictor
from landslide_mapper.nn.optimiser import follow, make_optimizer
from landslide_mapper.predictors import default_batch, load_predictor

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
    for _ in range(30):
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
        mean = copy.deepcopy(network)
        torch.cuda.set_sync_debug_mode("error")
        try:
            training_step(network, optimizer, images, labels, generator)
            follow(mean, network, 9, 10)
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


def test_the_bundled_model_agrees_with_the_cpu() -> None:
    batch = noise(3)
    on_cpu, on_cuda = (load_predictor(bundled_model(), name)[0] for name in ("cpu", "cuda"))
    found, expected = on_cuda(batch), on_cpu(batch)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.03
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
    batches = [noise(16)] * 40
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
