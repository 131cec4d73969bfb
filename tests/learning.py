"""What a network must be able to do: learn a few tiles by heart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from landslide_mapper.metrics import confusion, rates
from landslide_mapper.nn.network import Losses, Network
from landslide_mapper.training.validation import autocast

ENOUGH = 0.9


def learn_by_heart(
    network: Network,
    images: Tensor,
    labels: Tensor,
    generator_of: Callable[[int], torch.Generator],
    checks: range,
) -> float:
    """Train step by step until the landslide IoU, measured after the steps of `checks`, is enough.

    An epoch is ten steps. Returns the last IoU.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.02, 0.9)
    iou = 0.0
    for step in range(1, checks[-1] + 1):
        network.begin_epoch(step // 10)
        training_step(network, optimizer, images, labels, generator_of(step))
        if step in checks:
            network.eval()
            with torch.inference_mode():
                probabilities = torch.sigmoid(network(images))
            counts = confusion(probabilities.cpu().numpy() >= 0.5, labels.cpu().numpy())
            iou = float(rates(counts)["landslide_iou"])
            network.train()
            if iou > ENOUGH:
                break
    return iou


def training_step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
) -> Losses:
    """Forward, backward, optimiser and teacher, as `lsmap train` does it."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(images.device):
        losses = network(images, labels, generator)
    assert isinstance(losses, Losses)
    losses.total.backward()
    optimizer.step()
    network.after_step()
    return losses
