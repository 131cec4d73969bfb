"""DeepLabV3+ (Chen et al. 2018), the baseline B of the paper's tables.

Encoder and loop are those of MRIFE, so that a difference between the two is one of the method
alone: the same dilated ResNet, ASPP and squeeze-and-excitation (which the original does not have)
at output stride 8, for which the original doubles its dilations to 12/24/36 as well. The decoder
is the original's: 48 channels made of the features of the first stage (stride 4), beside the
upsampled ones, two 3×3 convolutions, bilinear interpolation to full resolution. Its one loss is
the cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.encoder import Encoder, conv_bn_relu, width_of
from landslide_mapper.nn.losses import cross_entropy
from landslide_mapper.nn.network import Losses, Network

LOW_LEVEL = "layer1"  # of the backbone, stride 4: "Conv2" of the original
LOW_LEVEL_CHANNELS = 48
LOW_LEVEL_STRIDE = 4


class DeepLabV3Plus(Network):
    """Encoder, low-level skip, convolutional decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        channels = config.aspp_channels
        low = width_of(self.encoder.backbone.get_submodule(LOW_LEVEL))
        self.skip = conv_bn_relu(low, LOW_LEVEL_CHANNELS)
        self.decoder = nn.Sequential(
            conv_bn_relu(channels + LOW_LEVEL_CHANNELS, channels, 3),
            conv_bn_relu(channels, channels, 3),
            nn.Dropout2d(config.dropout),
            nn.Conv2d(channels, 1, 1),
        )

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Only the cross-entropy."""
        return ("cross_entropy",)

    def trained_encoders(self) -> tuple[Encoder, ...]:
        """The one encoder."""
        return (self.encoder,)

    def explained(self) -> dict[str, nn.Module]:
        """The features that the encoder ends with."""
        return {"features": self.encoder.attention}

    def compiled_parts(self) -> list[nn.Module]:
        """The encoder is not called as a whole, so its parts are compiled."""
        encoder = self.encoder
        return [*encoder.backbone, encoder.aspp, encoder.attention, self.skip, self.decoder]

    def predict_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, H, W) of normalised images."""
        x = normalised
        for name, part in self.encoder.backbone.named_children():
            x = part(x)
            if name == LOW_LEVEL:
                low = self.skip(x)
        features = self.encoder.attention(self.encoder.aspp(x))
        features = F.interpolate(features, low.shape[-2:], mode="bilinear", align_corners=False)
        logits = self.decoder(torch.cat([features, low], dim=1))
        logits = F.interpolate(
            logits, scale_factor=LOW_LEVEL_STRIDE, mode="bilinear", align_corners=False
        )
        return logits[:, 0]

    def training_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        """Cross-entropy, weighted with γ."""
        entropy = cross_entropy(self.predict_logits(normalised), labels)
        return Losses.weighted(("cross_entropy", self.config.gamma, entropy))
