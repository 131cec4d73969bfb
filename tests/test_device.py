"""Which device is computed on, and what is said of one that does not do."""

from __future__ import annotations

import pytest
import torch

from landslide_mapper import device as device_module
from landslide_mapper.device import check_compiler, choose_device, enough_memory
from landslide_mapper.errors import LsmapError, LsmapFailure, once

CUDA = torch.device("cuda")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU of 2016 and a torch for later ones."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "GeForce GTX 1070")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    once.cache_clear()
    return monkeypatch


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "mps"):
        with pytest.raises(LsmapError, match="cuda:N"):
            choose_device(name)


@pytest.mark.parametrize(("built", "reason"), [("13.0", "sees no CUDA"), (None, "without CUDA")])
def test_why_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, built: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(LsmapError, match=rf"{reason}.*: give --device cpu$"):
        choose_device("cuda")


@pytest.mark.usefixtures("card")
def test_a_gpu_that_torch_has_no_kernels_for_is_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert choose_device("auto").type == "cpu"
    assert choose_device("auto").type == "cpu"
    said = capsys.readouterr().err
    assert said.count("GTX 1070 has compute capability 6.1") == 1
    assert "built for 7.5 and newer" in said
    assert "going on with the CPU" in said
    with pytest.raises(LsmapError, match=r"6\.1.*: give --device cpu$"):
        choose_device("cuda:0")


@pytest.mark.parametrize("names", [["sm_60", "sm_90"], ["gfx906"], []])
def test_a_gpu_that_torch_may_have_kernels_for_is_used(
    card: pytest.MonkeyPatch, names: list[str]
) -> None:
    card.setattr(torch.cuda, "get_arch_list", lambda: names)
    assert choose_device("auto") == CUDA


def test_to_compile_for_a_gpu_takes_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "find_spec", lambda _name: None)
    check_compiler(torch.device("cpu"))
    with pytest.raises(LsmapError, match="Triton"):
        check_compiler(CUDA)
    monkeypatch.setattr(device_module, "find_spec", lambda _name: object())
    check_compiler(CUDA)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "GET was unable to find an engine to execute this computation",
        "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_does_not_do_is_told_from_other_faults(words: str) -> None:
    short = pytest.raises(LsmapFailure, match="ran out of memory; take less")
    with short, enough_memory(lambda: "take less"):
        raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="illegal"), enough_memory(lambda: "take less"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
