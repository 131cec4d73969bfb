"""Which device to compute on, and what to say when its memory does not do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from landslide_mapper.errors import LsmapError, LsmapFailure, note, once

if TYPE_CHECKING:
    import torch

NO_CUDA = "this torch is built without CUDA (https://pytorch.org/get-started/locally has others)"


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that exists.

    ``auto`` is the first GPU that this torch can compute on, else the CPU.

    Raises:
        LsmapError: an unknown name, or CUDA where there is none.
    """
    import torch

    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LsmapError(f"device {name!r} is not known: give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise LsmapError(f"device {name!r} cannot be used: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        why = NO_CUDA if torch.version.cuda is None else "torch sees no CUDA GPU"
        raise LsmapError(f"device {name!r} was asked for, but {why}: give --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LsmapError(
            f"device {name!r} does not exist: this machine has {torch.cuda.device_count()}"
        )
    if device.type == "cuda" and (reason := _too_old(device)) is not None:
        raise LsmapError(f"{reason}: give --device cpu")
    return device


def _best() -> str:
    """The GPU if there is one to compute on."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    if (reason := _too_old(torch.device("cuda"))) is not None:
        once(note, f"{reason}: going on with the CPU")
        return "cpu"
    return "cuda"


def _too_old(device: torch.device) -> str | None:
    """Why torch cannot compute on a GPU that it sees: its kernels are for newer ones."""
    import torch

    built = [int(name[3:]) for name in torch.cuda.get_arch_list() if re.fullmatch(r"sm_\d+", name)]
    major, minor = torch.cuda.get_device_capability(device)
    if not built or 10 * major + minor >= min(built):
        return None
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and this "
        f"torch is built for {min(built) / 10:.1f} and newer (an older torch may do)"
    )


def computes_bf16(device: torch.device) -> bool:
    """Whether the device is a GPU that has bf16 in hardware (compute capability 8: Ampere, 2020).

    Older ones can do it, but torch then leaves cuDNN out, and float32 is faster by far.
    """
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def check_compiler(device: torch.device) -> None:
    """Raise `LsmapError` where torch has nothing to compile a network for the device with."""
    if device.type == "cuda" and find_spec("triton") is None:
        raise LsmapError(
            "--compile needs Triton, which is not installed (torch brings it along on Linux only): "
            "train without it"
        )


# What CUDA, cuDNN and cuBLAS, and the CPU say when memory is short. cuDNN finds no engine where
# none has room to work in.
SHORT = (
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "allocate memory",
    "not enough memory",
    "unable to find an engine",
)


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Raise `LsmapFailure` with the advice when the device runs out of memory."""
    try:
        yield
    except RuntimeError as error:  # CUDA's torch.OutOfMemoryError is one, the CPU has none
        if not any(sign in str(error) for sign in SHORT):
            raise
        raise LsmapFailure(f"the device ran out of memory; {advice()}") from error
