"""Encoder of MRIFE: dilated ResNet → ASPP → squeeze-and-excitation, output stride 8.

The three encoders of the network (segmentation, student, teacher) are three of these, each with
its own parameters.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock, ResNet

from landslide_mapper.config import ModelConfig

STRIDE = 8
"""Pixels per feature point along each axis."""

REDUCTION = 16  # of the channels in squeeze-and-excitation, the value of Hu et al. (2018)


def dilated_resnet(
    name: str, band_count: int = 3, last_layer: int = 4
) -> tuple[nn.Sequential, int]:
    """Build a torchvision ResNet trunk with output stride 8.

    Stages 3 and 4 keep the resolution of stage 2 and dilate instead, by torchvision's own rule:
    the first block of a dilated stage keeps the dilation of the stage before. torchvision offers
    this only for bottleneck blocks; here it holds for BasicBlock (ResNet-18, -34) as well.

    Args:
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101``.
        band_count: bands of the image; the stem is made anew where it is not 3.
        last_layer: 3 or 4, the stage that the trunk ends with.

    Returns:
        The trunk, its parameters named as torchvision names them, and its number of channels.
    """
    network: ResNet = getattr(resnet, name)(weights=None)
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        _dilate_stage(stage, dilation)
    if band_count != 3:
        network.conv1 = nn.Conv2d(band_count, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    names = names[: 4 + last_layer]
    trunk = nn.Sequential(OrderedDict((part, getattr(network, part)) for part in names))
    return trunk, width_of(trunk)


def width_of(stage: nn.Module) -> int:
    """Channels that a stage of a ResNet ends with, the most of its convolutions."""
    return max(part.out_channels for part in stage.modules() if isinstance(part, nn.Conv2d))


def _dilate_stage(stage: nn.Sequential, dilation: int) -> None:
    for index, block in enumerate(stage):
        convolutions = [part for part in block.children() if isinstance(part, nn.Conv2d)]
        everything = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
        for conv in everything:
            conv.stride = (1, 1)
        for position, conv in enumerate(convolutions):
            if conv.kernel_size == (3, 3):
                # Only what precedes the removed stride keeps the finer dilation: in the first
                # block that is the strided convolution itself (conv1 of BasicBlock, conv2 of
                # Bottleneck).
                strided = index == 0 and (position == 0 or not isinstance(block, BasicBlock))
                rate = dilation // 2 if strided else dilation
                conv.dilation = conv.padding = (rate, rate)


def inflate_stem(weight: Tensor, band_count: int) -> Tensor:
    """Turn a 3-band stem kernel into one for any number of bands.

    Bands beyond the third get the mean of the three kernels; the whole is scaled by
    3 / band_count, so that equal bands give the response that grey RGB gave.

    Args:
        weight: (out, 3, k, k).
        band_count: bands of the new stem.

    Returns:
        (out, band_count, k, k).
    """
    if band_count == 3:
        return weight
    mean = weight.mean(dim=1, keepdim=True)
    if band_count < 3:
        return mean.expand(-1, band_count, -1, -1).clone() * (3 / band_count)
    extra = mean.expand(-1, band_count - 3, -1, -1)
    return torch.cat([weight, extra], dim=1) * (3 / band_count)


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the resolution, batch normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3+): 1×1, three dilated 3×3, image pooling."""

    def __init__(self, inputs: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.local = conv_bn_relu(inputs, channels)
        self.dilated = nn.ModuleList(conv_bn_relu(inputs, channels, 3, rate) for rate in rates)
        self.pooled = conv_bn_relu(inputs, channels)
        self.project = conv_bn_relu(channels * (2 + len(rates)), channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, channels, h, w)."""
        pooled = self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])
        branches = [self.local(x), *(branch(x) for branch in self.dilated), pooled]
        return self.project(torch.cat(branches, dim=1))


class SqueezeExcitation(nn.Module):
    """Channel weights from the image mean (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.excite = nn.Conv2d(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h, w), each channel scaled by a weight in 0..1."""
        weights = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(weights))


class Encoder(nn.Module):
    """Feature extraction module of MRIFE: (N, bands, H, W) → (N, channels, H/8, W/8).

    All architectures use the same one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.backbone, width = dilated_resnet(config.backbone, config.band_count, config.last_layer)
        self.aspp = ASPP(width, config.aspp_channels, config.aspp_rates)
        self.attention = SqueezeExcitation(config.aspp_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Extract features; H and W must be multiples of 8."""
        return self.attention(self.aspp(self.backbone(x)))
