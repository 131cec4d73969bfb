"""Training in one process, or in several that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from landslide_mapper.device import choose_device
from landslide_mapper.errors import LsmapError
from landslide_mapper.nn.network import Network


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    @property
    def quiet(self) -> bool | None:
        """For tqdm: no bar except in the leading process, and there only on a terminal."""
        return None if self.leads else True

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes, on the CPU."""
        if self.world > 1:
            dist.all_reduce(values)
        return values.cpu()

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the leading one's buffers.

        On a CPU each has batch statistics of its own, and those of the leading one are saved.
        """
        if self.world > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, model: Network) -> nn.Module:
        """Average gradients over the processes, and batch statistics too where CUDA can."""
        if self.world == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, devices, find_unused_parameters=model.rests)

    def synchronise_batch_norm(self, model: nn.Module) -> None:
        """Turn the batch norms of the model's parts into synchronised ones (CUDA only).

        torch's have the host wait for the device at every norm, which several GPUs pay for.
        """
        if self.world > 1 and self.device.type == "cuda":
            for name, part in list(model.named_children()):
                setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))


@contextmanager
def join_processes(device_name: str) -> Iterator[Process]:
    """Join the processes that ``torchrun`` started; alone without it.

    Raises:
        LsmapError: the device does not exist, or torch has nothing that joins several GPUs.
    """
    device = choose_device(device_name)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        # torch would pin memory with the first GPU, whichever is trained on.
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            yield Process(0, 1, device)
        return
    if device.type == "cuda":
        if not dist.is_nccl_available():
            raise LsmapError(
                "torchrun: this torch is without NCCL, which joins several GPUs (it is there on "
                "Linux); train in one process"
            )
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()
