"""The decoder of MRIFE, which it shares with ICSSN."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def start_bilinear(layer: nn.ConvTranspose2d) -> None:
    """Let a transposed convolution start as bilinear interpolation of a random channel mixture.

    Independent random kernel values would answer a constant input with a checkerboard (each
    output pixel meets another part of the kernel), which training removes only slowly and which
    breaks outlines into specks. The kernel must be twice the stride.
    """
    stride, size = layer.stride[0], layer.kernel_size[0]
    ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
    mixture = torch.empty(layer.in_channels, layer.out_channels)
    nn.init.kaiming_normal_(mixture, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        layer.weight.copy_(mixture[:, :, None, None] * torch.outer(ramp, ramp))


class Decoder(nn.Module):
    """Two transposed convolutions, ×2 and ×4, back to full resolution; one logit per pixel."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.ConvTranspose2d(channels // 2, channels // 8, 8, stride=4, padding=2, bias=False),
            nn.BatchNorm2d(channels // 8),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels // 8, 1, 1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d):
                start_bilinear(layer)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) → logits (N, 8h, 8w)."""
        return self.layers(features)[:, 0]
