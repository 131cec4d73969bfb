"""Which device to compute on, and what to say when its memory does not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from landslide_mapper.errors import LsmapError, LsmapFailure

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that exists.

    Raises:
        LsmapError: an unknown name, or CUDA where there is none.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LsmapError(f"device {name!r} is not known: give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise LsmapError(f"device {name!r} cannot be used: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LsmapError(
            f"device {name!r} was asked for, but torch sees no CUDA GPU: give --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LsmapError(
            f"device {name!r} does not exist: this machine has {torch.cuda.device_count()}"
        )
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether the device is a GPU that has bf16 in hardware (compute capability 8: Ampere, 2020).

    Older ones can do it, but torch then leaves cuDNN out, and float32 is faster by far.
    """
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


# What CUDA, cuDNN and cuBLAS, and the CPU say when memory is short.
SHORT = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "allocate memory")


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise `LsmapFailure` with the advice when the device runs out of memory."""
    try:
        yield
    except RuntimeError as error:  # CUDA's torch.OutOfMemoryError is one, the CPU has none
        if not any(sign in str(error) for sign in SHORT):
            raise
        raise LsmapFailure(f"the device ran out of memory; {advice()}") from error
