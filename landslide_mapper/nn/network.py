"""What every architecture offers to the loop that trains it and to the code that predicts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.calibration import UNCHANGED, Calibration
from landslide_mapper.nn.encoder import Encoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Losses(NamedTuple):
    """What a training step minimises, and its terms by name: unweighted, without gradient."""

    total: Tensor
    parts: dict[str, Tensor]

    @classmethod
    def weighted(cls, *terms: tuple[str, float, Tensor]) -> Losses:
        """The sum of terms, given as (name, weight, value)."""
        total = torch.stack([weight * value for _, weight, value in terms]).sum()
        return cls(total, {name: value.detach() for name, _, value in terms})


class Normalise(nn.Module):
    """uint8 images to ImageNet statistics; nodata (0 in every band) becomes 0, the mean colour."""

    mean: Tensor
    std: Tensor

    def __init__(self, band_count: int) -> None:
        super().__init__()
        for name, rgb in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            grey = sum(rgb) / 3
            values = [
                rgb[band] if band < 3 and band_count >= 3 else grey for band in range(band_count)
            ]
            tensor = torch.tensor(values).reshape(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, B, H, W) uint8 → float32 of the same shape."""
        seen = (images != 0).any(dim=1, keepdim=True)
        return (images.float() / 255 - self.mean) / self.std * seen


class Network(nn.Module, ABC):
    """A network of lsmap. With labels the call trains, without it predicts.

    Attributes:
        config: the settings it was built from.
        decoder: ends in logits; its last convolution is 1×1, at most an interpolation follows.
        training_parts: names of the children that only training needs; model files do without.
        rests: whether some parameters take no part in some of the epochs.
    """

    decoder: nn.Module
    training_parts: tuple[str, ...] = ()
    rests: bool = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.band_count)

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | Losses:
        """Predict, or with labels compute the losses.

        Args:
            images: (N, B, H, W) uint8, 0 in every band where nothing was seen; H and W are
                multiples of 8 (16 for blocks of 16).
            labels: (N, H, W) uint8: 0 background, 1 landslide, 255 ignored.
            generator: random numbers for what is drawn, on the device of the images.

        Returns:
            Logits (N, H, W) without labels, else `Losses`.
        """
        normalised = self.normalise(images)
        if labels is None:
            return self.predict_logits(normalised)
        return self.training_losses(normalised, labels, generator)

    @abstractmethod
    def predict_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, H, W) of normalised images."""

    @abstractmethod
    def training_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        """The losses of a batch of normalised images; nothing here waits for the device."""

    @property
    @abstractmethod
    def loss_names(self) -> tuple[str, ...]:
        """The terms that `training_losses` may report; of some an epoch may have none."""

    @abstractmethod
    def trained_encoders(self) -> tuple[Encoder, ...]:
        """The encoders that optimisation changes and that start from given weights."""

    @abstractmethod
    def explained(self) -> dict[str, nn.Module]:
        """Layers whose output, features (N, C, h, w), Grad-CAM explains, by name."""

    def begin(self) -> None:
        """Called once the encoders have their start, before the first step."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the steps of an epoch, counted from 0; nothing else may depend on it."""

    @property
    def ready(self) -> bool:
        """Whether the epochs so far have trained all that prediction needs."""
        return True

    def after_step(self) -> None:
        """Called after each step of the optimiser."""

    def compiled_parts(self) -> list[nn.Module]:
        """The parts that torch.compile is worth its while for."""
        return [part for name, part in self.named_children() if name != "normalise"]

    def prediction_state(self, calibration: Calibration = UNCHANGED) -> dict[str, Tensor]:
        """The tensors that prediction needs, by name, with a calibration of the logits."""
        state = {
            name: tensor for name, tensor in self.state_dict().items() if not self._trains(name)
        }
        for name in self._last_layer():
            state[name] = state[name] * calibration.scale
        state[name] += calibration.shift
        return state

    def load_prediction_state(
        self, state: Mapping[str, Tensor], calibration: Calibration = UNCHANGED
    ) -> None:
        """Take the tensors of `prediction_state`, in order to train on from there.

        The calibration that they have in them is taken out again, so the logits are those that
        training ended with. What only training needs keeps its random start.

        Raises:
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        own = {name: value for name, value in self.state_dict().items() if self._trains(name)}
        self.load_state_dict({**own, **state})
        weight, bias = (self.get_parameter(name) for name in self._last_layer())
        with torch.no_grad():
            weight.div_(calibration.scale)
            bias.sub_(calibration.shift).div_(calibration.scale)

    def start_at(self, probability: float) -> None:
        """Let the logits start around the odds of a landslide (Lin et al. 2017, focal loss, 3.3).

        Landslides are rare. From even odds the first steps turn nearly all weights of the last
        layer against them, as its features are not negative; where it is narrow (16 channels of
        the decoder of MRIFE with 128) there is nothing left that speaks for a landslide, and its
        bias is the most that a probability can come to.
        """
        _, bias = self._last_layer()
        nn.init.constant_(self.get_parameter(bias), math.log(probability / (1 - probability)))

    def _last_layer(self) -> tuple[str, str]:
        """Names of weight and bias of the convolution that makes the logits."""
        layers = self.decoder.named_modules(prefix="decoder")
        *_, last = (name for name, part in layers if isinstance(part, nn.Conv2d))
        return f"{last}.weight", f"{last}.bias"

    def _trains(self, name: str) -> bool:
        """Whether the tensor of that name belongs to a part that only training needs."""
        return name.split(".")[0] in self.training_parts

    def drop_training_parts(self) -> None:
        """Leave out what only training needs; the network can only predict from here on."""
        for name in self.training_parts:
            if name in self._modules:
                delattr(self, name)
