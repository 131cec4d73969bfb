"""What runs on CUDA, traced with CUDA tensors that have no values, on a machine without a GPU.

A tensor of the CPU among them raises, and so does whoever wants to know a value: on a GPU that
would be an error, or a wait for the device. Only backward passes are not traced: torch wants a GPU
for them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from landslide_mapper.config import ARCHITECTURES, ModelConfig, TrainConfig
from landslide_mapper.device import computes_bf16
from landslide_mapper.errors import LsmapError
from landslide_mapper.metrics import BINS
from landslide_mapper.nn import gradcam, on_cuda
from landslide_mapper.nn.build import build
from landslide_mapper.nn.folding import fold
from landslide_mapper.nn.optimiser import RunningMean, make_optimizer
from landslide_mapper.train import _train_epoch
from landslide_mapper.training.loaders import Validation
from landslide_mapper.training.parallel import Process, join_processes
from landslide_mapper.training.session import Session
from landslide_mapper.training.validation import validate

pytestmark = pytest.mark.skipif(
    torch.version.cuda is None or torch.__version__ < (2, 14),
    reason="needs a torch that is built for CUDA; 2.6 aborts in the step that is pretended",
)

GPU = torch.device("cuda:0")
SIDE = 64
SMALL = ModelConfig(backbone="resnet18", last_layer=3, aspp_channels=32, aspp_rates=(2, 3, 4))
OTHER_WAYS = {
    "fusion": "concat",
    "fused_view": "masked",
    "mask_blocks": "all",
    "block_size": 16,
    "distillation": False,
    "band_count": 4,
}
ONLY_FUSED = {"mfm": False, "sfce": False, "mask_blocks": "interior"}
TRAINED = {
    "mrife": ("sgd", {}),
    "mrife, all the other ways": ("adamw", OTHER_WAYS),
    "mrife, only fused": ("sgd", ONLY_FUSED),
    "deeplabv3plus": ("adamw", {"arch": "deeplabv3plus"}),
    "icssn": ("sgd", {"arch": "icssn"}),
    "icssn, adamw": ("adamw", {"arch": "icssn"}),
}


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that computes in bf16, as far as torch asks."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_args, **_options: True)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)


def moved(network: nn.Module) -> Any:
    """The network with its registered tensors on the GPU."""

    def empty(tensor: Tensor) -> Tensor:
        made = torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)
        return made.to(memory_format=torch.channels_last) if made.ndim == 4 else made

    for part in network.modules():
        for name, old in list(part._parameters.items()):
            if old is not None:
                part._parameters[name] = nn.Parameter(empty(old), old.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = empty(buffer)
    return network


def images(bands: int = 3) -> Tensor:
    return torch.empty((4, bands, SIDE, SIDE), dtype=torch.uint8)


def batches(bands: int = 3) -> Any:
    """One batch as a loader gives it, on the CPU."""
    return [(images(bands), torch.empty((4, SIDE, SIDE), dtype=torch.uint8))]


class OnlyOnTheGpu(TorchDispatchMode):
    """Refuses tensors of the CPU that torch would silently copy, as indices or scalars."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        assert {it.device for it in tree_leaves(found) if isinstance(it, Tensor)} <= {GPU}, func
        return found


class EpochIsOver(Exception):
    """The first time that values are asked for."""


class Training(Process):
    """Ends the epoch where its means are asked for."""

    def total(self, values: Tensor) -> NoReturn:
        assert values.device == GPU
        raise EpochIsOver


class Validating(Process):
    """Brings the histograms to the CPU, and that there was no NaN."""

    def total(self, values: Tensor) -> Any:
        assert values.device == GPU
        return torch.empty_like(values, device="cpu") if values.ndim else 0


def leaves(root: Any) -> Iterator[Tensor]:
    """The parameters that a loss depends on."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


def backward(loss: Tensor) -> None:
    """Gradients for whoever has a way to the loss."""
    assert loss.device == GPU
    assert loss.dtype == torch.float32
    for parameter in leaves(loss.grad_fn):
        parameter.grad = torch.empty_like(parameter)


def fused_sgd(*lists: list[Tensor], **_options: object) -> None:
    """The kernel takes parameters, gradients and momenta of one kind, on the GPU."""
    for tensors in zip(*lists, strict=True):
        assert {(tensor.device, tensor.dtype) for tensor in tensors} == {(GPU, torch.float32)}


def lerp(means: list[Tensor], values: list[Tensor], weight: float) -> None:
    """The kernel takes pairs of one kind and layout, and a weight that the host knows."""
    fused_sgd(means, values)
    assert isinstance(weight, float)
    for mean, value in zip(means, values, strict=True):
        assert mean.stride() == value.stride()


@pytest.mark.parametrize(("kind", "changes"), TRAINED.values(), ids=TRAINED)
def test_an_epoch_stays_on_the_gpu_and_never_waits(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    monkeypatch.setattr(torch, "_foreach_lerp_", lerp)  # a mean on the CPU would not be noticed
    drawn, generator = [], torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: drawn.append(device) or generator())
    model = dataclasses.replace(SMALL, **changes)
    config = TrainConfig(model=model, optimizer=kind, epochs=4, average=2.0)
    network, spare = build(model), build(model)
    kinds = set()
    with FakeTensorMode():
        moved(network).trained_encoders()[0].attention.register_forward_pre_hook(
            lambda _module, inputs: kinds.add(inputs[0].dtype)
        )
        optimizer = make_optimizer(config, network, GPU)
        tiles, process = batches(model.band_count), Training(0, 1, GPU)
        with monkeypatch.context() as patch:  # tensors of this kind cannot be copied
            patch.setattr(copy, "deepcopy", lambda _network: moved(spare))
            mean = RunningMean(network)
        session = Session(network, mean, optimizer, [], "", (), [])

        def guarded(*arguments: Any) -> Any:
            with OnlyOnTheGpu():
                return network(*arguments)

        for epoch in range(2):
            with pytest.raises(EpochIsOver):
                _train_epoch(config, epoch, guarded, session, tiles, process)
            idle = [it for it in network.parameters() if it.requires_grad and it.grad is None]
            # Several processes wait for the gradients of all, unless they know that some rest.
            assert bool(idle) == network.rests
    assert drawn == [GPU, GPU]
    assert kinds == {torch.bfloat16}
    if not network.rests:
        assert optimizer.defaults["fused"]
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.empty((), device=GPU).item()  # else nothing here would notice


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_validation_stays_on_the_gpu(arch: str) -> None:
    network = build(dataclasses.replace(SMALL, arch=arch))
    with FakeTensorMode(shape_env=ShapeEnv()):  # how many pixels were seen may be asked
        shown = Validation(batches(), [[1.0, 1.0, 2.5, 1.0]], [1.0, 2.5])
        seen = validate(moved(network), shown, Validating(0, 1, GPU))
    assert seen.shape == (2, BINS)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_captured_forward_stays_on_the_gpu(
    arch: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: None)
    network = fold(build(dataclasses.replace(SMALL, arch=arch)).eval())
    monkeypatch.setattr(nn.Module, "to", lambda self, *_args, **_options: self)
    predict = on_cuda.CudaPredictor(network, GPU, 4)
    monkeypatch.undo()
    with FakeTensorMode(), torch.inference_mode():
        moved(predict._normalise)
        for parameter in moved(network).parameters():
            parameter.data = parameter.data.to(predict._kind)
        found = predict._forward(images().to(GPU))
    assert (found.device, found.dtype) == (GPU, torch.float32)
    assert predict._kind == (torch.bfloat16 if capability >= (8, 0) else torch.float32)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradcam_stays_on_the_gpu(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(target: Tensor, features: list[Tensor]) -> list[Tensor]:
        assert target.device == GPU
        return [torch.empty_like(feature) for feature in features]

    monkeypatch.setattr(torch.autograd, "grad", gradients)
    # What is asked for, the number of pixels and the like.
    monkeypatch.setattr(gradcam, "float", lambda value: 1.0 if value.device == GPU else None, False)
    network = build(dataclasses.replace(SMALL, arch=arch))
    network.drop_training_parts()
    with FakeTensorMode():
        cam = gradcam.GradCam(moved(network), network.explained(), 0.5)
        windows, wanted = images().to(GPU), torch.ones((4, SIDE, SIDE), device=GPU)
        cam.gather(windows, wanted)
        assert cam.maps(windows).device == GPU


@pytest.mark.parametrize("name", ["cuda:1", "auto"])
def test_training_uses_no_other_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch pins the memory of batches with the current one."""
    current: list[torch.device] = []

    @contextmanager
    def using(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", using)
    with join_processes(name) as process:
        assert current == [process.device]
        assert process.device == torch.device("cuda" if name == "auto" else name)
    with join_processes("cpu"):
        assert not current


def test_several_gpus_need_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which torch is without on Windows."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LsmapError, match="without NCCL"), join_processes("auto"):
        raise AssertionError("nobody may come in")


def test_which_devices_compute_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computes_bf16(GPU)
    assert not computes_bf16(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert not computes_bf16(GPU)
