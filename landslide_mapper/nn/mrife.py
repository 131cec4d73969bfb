"""MRIFE: mask-recovering and interactive-feature-enhancing segmentation (He et al.).

One departure from the paper. There, training fuses the student's features of the *masked* image.
But half of the blocks along each landslide's outline are masked, so the mask itself draws the
outline: the decoder learns to read it, and finds nothing when it predicts, where no block is
masked. Here the student also sees the whole image, and those features are fused; reconstruction
and contrast work on the masked one as in the paper. The student still learns from all three
losses. ``fused_view="masked"`` is the paper's way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.encoder import STRIDE, Encoder
from landslide_mapper.nn.losses import contrast_loss, cross_entropy, reconstruction_loss
from landslide_mapper.nn.masking import (
    classify_blocks,
    draw_blocks,
    mask_images,
    to_feature_points,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Losses(NamedTuple):
    """The weighted sum of eq. 8 and its three terms, unweighted."""

    total: Tensor
    reconstruction: Tensor
    contrast: Tensor
    cross_entropy: Tensor


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


class Fusion(nn.Module):
    """Joins the two branches: point-wise addition, or concatenation and a 1×1 convolution."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2 * channels, channels, 1) if kind == "concat" else None

    def forward(self, segmentation: Tensor, enhancement: Tensor) -> Tensor:
        """Two (N, C, h, w) → (N, C, h, w)."""
        if self.weigh is None:
            return segmentation + enhancement
        return self.weigh(torch.cat([segmentation, enhancement], dim=1))


class MRIFE(nn.Module):
    """Segmentation encoder + student and teacher encoders + fusion + decoder.

    With labels the call trains: the student reconstructs and contrasts the blocks masked in its
    view of the image, its features of the whole image are added to those of the segmentation
    encoder, and the losses of eq. 8 are returned. Without labels it predicts: the teacher's
    features are added.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.band_count)
        self.segmentation = _encoder(config)
        self.student = _encoder(config)
        self.teacher = _encoder(config)
        self.fusion = Fusion(config.fusion, config.aspp_channels)
        self.decoder = Decoder(config.aspp_channels, config.dropout)
        self.start_teacher()

    def start_teacher(self) -> None:
        """Make the teacher a copy of the student that no gradient reaches."""
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Eq. 1: θt ← λθt + (1 − λ)θs.

        Parameters only: the teacher's batch statistics come from its own passes over unmasked
        images, which is what it sees when the network predicts.
        """
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        torch._foreach_lerp_(teacher, student, 1 - self.config.ema)

    def forward(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | Losses:
        """Predict, or with labels compute the losses.

        Args:
            images: (N, B, H, W) uint8, 0 in every band where nothing was seen; H and W are
                multiples of 8 (16 for masked blocks of 16).
            labels: (N, H, W) uint8: 0 background, 1 landslide, 255 ignored.
            generator: random numbers for the mask, on the device of the images.

        Returns:
            Logits (N, H, W) without labels, else `Losses`.
        """
        normalised = self.normalise(images)
        if labels is None:
            return self.predict_logits(normalised)
        return self.training_losses(normalised, labels, generator)

    def predict_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, H, W) of normalised images: segmentation plus teacher."""
        features = self.fusion(self.segmentation(normalised), self.teacher(normalised))
        return self.decoder(features)

    def training_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        """Eq. 8 for a batch of normalised images. Samples without landslide give only L_CE."""
        config = self.config
        classes = classify_blocks(labels, config.block_size)
        landslide, background = draw_blocks(
            classes, config.mask_ratio, config.mask_blocks, generator
        )
        masked = mask_images(normalised, landslide | background, config.block_size)
        student = self.student(masked)
        with torch.no_grad():
            teacher = self.teacher(normalised)
        enhancement = student if config.fused_view == "masked" else self.student(normalised)
        logits = self.decoder(self.fusion(self.segmentation(normalised), enhancement))

        landslide, background = (
            to_feature_points(drawn, config.block_size, STRIDE) for drawn in (landslide, background)
        )
        reconstruction = reconstruction_loss(student, teacher, landslide | background)
        contrast = contrast_loss(student, teacher, landslide, background, config.temperature)
        entropy = cross_entropy(logits, labels)
        total = config.alpha * reconstruction + config.beta * contrast + config.gamma * entropy
        return Losses(total, reconstruction.detach(), contrast.detach(), entropy.detach())


def _encoder(config: ModelConfig) -> Encoder:
    return Encoder(
        config.backbone,
        config.band_count,
        config.last_layer,
        config.aspp_channels,
        config.aspp_rates,
    )
