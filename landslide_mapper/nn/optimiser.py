"""How the weights are moved: the optimiser, its learning rate over a run, a mean of its steps."""

from __future__ import annotations

import copy
from typing import Any

import torch

from landslide_mapper.config import TrainConfig
from landslide_mapper.nn.network import Network


def make_optimizer(
    config: TrainConfig, model: Network, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of all parameters that gradients reach, with one kernel per step on CUDA.

    Not where parameters rest for an epoch: the fused SGD wants a momentum of all or of none. Then
    torch takes the next best.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    common: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "fused": True if device.type == "cuda" and not model.rests else None,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trained, betas=(config.momentum, 0.999), **common)
    return torch.optim.SGD(trained, momentum=config.momentum, **common)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take the state that an optimiser had, maybe on another device.

    Which kernels step is this one's matter, and must be said before: it decides where torch puts
    the counts of steps.
    """
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        saved["fused"] = own["fused"]
    optimizer.load_state_dict(state)


class RunningMean:
    """The mean of a network's weights and batch statistics over the last steps.

    The plain mean of all steps (Polyak and Juditsky 1992) until it spans as many as it shall, then
    an exponential one, so that what a run started from is forgotten at once.

    Attributes:
        network: a copy of the network, with the means.
    """

    def __init__(self, model: Network) -> None:
        self.network = copy.deepcopy(model).requires_grad_(False)
        # Collected once, as all are changed in place: that takes longer than to move them.
        states = self.network.state_dict().values(), model.state_dict().values()
        pairs = [pair for pair in zip(*states, strict=True) if pair[0].is_floating_point()]
        self._means, self._values = zip(*pairs, strict=True)

    @torch.no_grad()
    def take(self, step: int, span: float) -> None:
        """Take in the network after a step, counted from 0, for a mean over `span` steps."""
        torch._foreach_lerp_(self._means, self._values, 1 / max(1.0, min(step + 1, span)))


def learning_rate(config: TrainConfig, epoch: float) -> float:
    """Learning rate after `epoch` epochs: constant, or polynomial (power 0.9) down to 0.

    During the warm-up it is the share of that which corresponds to the part of it that is over.
    """
    rate = config.lr
    if config.schedule == "poly":
        rate *= (1 - epoch / config.epochs) ** 0.9
    if epoch < config.warmup:
        rate *= epoch / config.warmup
    return float(rate)
