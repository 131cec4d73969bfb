"""The predictors answer as the plain network does, only faster, and always the same."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretended_cuda import Machine, pretend
from torch import nn

from landslide_mapper import predictors
from landslide_mapper.checkpoint import ModelInfo, load_model, save_model
from landslide_mapper.config import ModelConfig
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.nn.folding import fold
from landslide_mapper.nn.mirror import shown
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.network import Normalise
from landslide_mapper.nn.on_cuda import CudaPredictor, padded
from landslide_mapper.predictors import default_batch, largest_batch, load_predictor


def network(**changes: object) -> MRIFE:
    """A small network whose batch statistics and scales are no longer those of the start."""
    torch.manual_seed(3)
    config = ModelConfig(**({"backbone": "resnet18", "aspp_channels": 32} | changes))  # type: ignore[arg-type]
    model = MRIFE(config)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return model.eval()


def images(count: int, bands: int = 3, side: int = 64) -> np.ndarray:
    """Noise, a part of it not seen."""
    made = np.random.default_rng(1).integers(1, 256, (count, bands, side, side), dtype=np.uint8)
    made[:, :, : side // 4] = 0
    return made


def plain(model: MRIFE, batch: np.ndarray) -> np.ndarray:
    """What the network itself answers."""
    with torch.inference_mode():
        return torch.sigmoid(model(torch.from_numpy(batch))).numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {"last_layer": 3},
        {"backbone": "resnet50", "last_layer": 4, "fusion": "concat"},
        {"band_count": 5, "aspp_rates": (2, 3)},
    ],
)
def test_a_folded_network_gives_the_same_probabilities(changes: dict[str, object]) -> None:
    model = network(**changes)
    batch = images(2, model.config.band_count)
    expected = plain(model, batch)
    folded = fold(copy.deepcopy(model))
    kinds = {type(part) for part in folded.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.Dropout2d}
    assert np.ptp(expected) > 0.01  # the network does look at the image
    assert np.abs(plain(folded, batch) - expected).max() < 1e-5


def test_a_normalisation_without_its_convolution_is_an_error() -> None:
    model = network()
    model.decoder.layers.insert(0, nn.BatchNorm2d(32))
    with pytest.raises(ValueError, match="follows no convolution"):
        fold(model.eval())


def test_the_bundled_model_maps_the_bundled_scene_as_the_plain_network_does(
    bundled_model: Path, bundled_scene: Path
) -> None:
    model, info = load_model(bundled_model)
    predict, same = load_predictor(bundled_model, "cpu")
    assert same == info
    scene = open_scene(str(bundled_scene), info.bands)
    with SceneReader(scene) as reader:
        stretched = fit(scene, info.radiometry).apply(*reader.read(0, 0, 512, 512))
    stretched[:, :40] = 0
    for row in (0, 256):
        for col in (0, 256):
            window = stretched[None, :, row : row + 256, col : col + 256]
            expected, found = plain(model, shown(window, info.model.unseen)), predict(window)
            assert np.abs(found - expected).max() < 1e-5
            differ = (found >= info.threshold) != (expected >= info.threshold)
            assert np.all(np.abs(expected[differ] - info.threshold) < 1e-5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file."""
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    model = network(last_layer=3)
    save_model(model, ModelInfo("small", model.config, (1, 2, 3), "none", 64, 0.5, 0.4), path)
    return path


def test_equal_batches_give_equal_bits(saved: Path) -> None:
    batch = images(3)
    one, two = (load_predictor(saved, "cpu")[0] for _ in range(2))
    first = one(batch)
    assert first.dtype == np.float32
    assert first.shape == (3, 64, 64)
    for answer in (one(batch), two(batch), one(np.asfortranarray(batch))):
        assert np.array_equal(answer, first)


def test_windows_do_not_see_their_neighbours_in_a_batch(saved: Path) -> None:
    predict, _ = load_predictor(saved, "cpu")
    batch = images(4)
    alone = np.concatenate([predict(batch[i : i + 1]) for i in range(4)])
    assert np.abs(predict(batch) - alone).max() < 1e-5


def test_the_batch_suits_the_device(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, info = load_predictor(saved, "cpu")
    assert predict.device == torch.device("cpu")
    assert predict.batch_size == default_batch(predict.device, info.tile_size) == 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**27, 10**10))
    for capability, batch in (((8, 0), 16), ((7, 5), 8)):  # float32 takes twice as much as bf16
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert default_batch(torch.device("cuda"), info.tile_size) == batch


@given(st.integers(0, 2**38), st.sampled_from([64, 256, 512, 1024]))
def test_the_batch_fits_into_half_of_the_memory(free: int, tile: int) -> None:
    batch = largest_batch(free, tile)
    cost = predictors.BYTES_PER_PIXEL * tile**2
    assert batch in (1, 2, 4, 8, 16, 32, 64)
    assert batch == 1 or batch * cost <= free / 2
    assert batch == 64 or 2 * batch * cost > free / 2


@given(st.integers(1, 10_000))
def test_batches_are_filled_up_to_few_sizes(count: int) -> None:
    assert count <= padded(count) <= count * 9 / 8
    assert count > 16 or padded(count) == count
    assert padded(padded(count)) == padded(count)
    assert len({padded(number) for number in range(1, 65)}) == 32


@pytest.fixture(params=[0.0, 0.3, 0.8, 1.0], ids=lambda pace: f"pace{pace}")
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A device that does its work late, at any time or at once."""
    made = Machine(seed=int(100 * request.param), pace=request.param)
    pretend(monkeypatch, made)
    return made


@pytest.fixture
def pretended_cuda(machine: Machine) -> CudaPredictor:
    """The predictor for CUDA on the CPU: what is left is the order of its steps."""
    return CudaPredictor(Grey(), torch.device("cpu"), 4)


class Grey(nn.Module):
    """In the place of a network: the mean of the bands."""

    config = ModelConfig(unseen="mean")

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise(3)

    def predict_logits(self, normalised: torch.Tensor) -> torch.Tensor:
        """(N, B, H, W) → (N, H, W)."""
        return normalised.mean(dim=1)


def test_the_stream_for_cuda_keeps_the_order(
    machine: Machine, pretended_cuda: CudaPredictor
) -> None:
    predict = pretended_cuda
    asked: list[int] = []

    def batches() -> Iterator[np.ndarray]:
        for number, count in enumerate((4, 0, 3, 5, 4, 0, 1)):
            asked.append(number)
            yield np.roll(images(6), 7 * number, axis=2)[:count]

    expected = [predict(batch) for batch in batches()]
    asked.clear()
    found = []
    for answer in predict.stream(batches()):
        found.append(answer)
        assert len(asked) <= len(found) + 1  # one batch ahead, not more
    assert [len(answer) for answer in found] == [4, 0, 3, 5, 4, 0, 1]
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    assert machine.captures == 4  # for 4, 3, 6 and 1 windows


def test_streams_and_calls_do_not_disturb_each_other(pretended_cuda: CudaPredictor) -> None:
    predict = pretended_cuda
    batches = [np.roll(images(4), 7 * number, axis=2) for number in range(6)]
    expected = [predict(batch) for batch in batches]
    left = predict.stream(batches)
    assert np.array_equal(next(left), expected[0])
    left.close()  # with batches in flight
    one, two = predict.stream(batches), predict.stream(batches[::-1])
    for number in range(6):
        assert np.array_equal(next(one), expected[number])
        assert np.array_equal(predict(batches[3]), expected[3])
        assert np.array_equal(next(two), expected[5 - number])


@pytest.mark.parametrize(("bf16", "error"), [(True, 0.03), (False, 1e-5)])
def test_bf16_is_close_to_float32_where_a_gpu_has_it(
    bf16: bool, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, Machine(seed=0, pace=1.0))
    monkeypatch.setattr("landslide_mapper.nn.on_cuda.computes_bf16", lambda _device: bf16)
    predict = CudaPredictor(fold(network(last_layer=3)), torch.device("cpu"), 4)
    batch = images(1)
    assert not batch.any(axis=1).all()  # some of it was not seen
    expected = plain(network(last_layer=3), shown(batch, "mirror"))
    assert np.abs(predict(batch) - expected).max() < error


def test_a_stream_that_breaks_off_leaves_the_predictor_as_it_was(
    pretended_cuda: CudaPredictor,
) -> None:
    predict = pretended_cuda
    one, two = images(4), np.roll(images(4), 7, axis=2)
    expected = predict(one)

    def breaking() -> Iterator[np.ndarray]:
        yield two
        yield one
        raise OSError("the scene is gone")

    with pytest.raises(OSError, match="the scene is gone"):
        list(predict.stream(breaking()))
    assert np.array_equal(predict(one), expected)


def test_onnx_models_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    path = tmp_path / "m.onnx"
    for load in (load_predictor, predictors.info_of):
        with pytest.raises(LsmapError, match="does not exist"):
            load(path)
    path.write_bytes(b"no model")
    for load in (load_predictor, predictors.info_of):
        with pytest.raises(LsmapError, match="not an ONNX model"):
            load(path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # type: ignore[arg-type]
    with pytest.raises(LsmapError, match=r"lsmap\[onnx\]"):
        load_predictor(path)


def test_onnx_files_of_others_are_no_models_of_lsmap(tmp_path: Path) -> None:
    onnx: ModuleType = pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(LsmapError, match="not an lsmap model"):
        predictors.info_of(tmp_path / "a.onnx")
