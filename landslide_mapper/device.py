"""Which device to compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from landslide_mapper.errors import LsmapError

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
            f"device {name!r} does not exist: there are {torch.cuda.device_count()} GPUs"
        )
    return device
