"""MRIFE: mask-recovering and interactive-feature-enhancing segmentation (He et al.).

One departure from the paper. There, training fuses the student's features of the *masked* image.
But half of the blocks along each landslide's outline are masked, so the mask itself draws the
outline: the decoder learns to read it, and finds nothing when it predicts, where no block is
masked. Here the student also sees the whole image, and those features are fused; reconstruction
and contrast work on the masked one as in the paper. The student still learns from all three
losses. ``fused_view="masked"`` is the paper's way.

The parts that the paper takes away (section V-B) are settings. ``mfm`` and ``sfce`` drop the
reconstruction and the contrast. Without ``distillation`` there is no teacher: the paper only says
"without this framework" (Fig. 6), and since its test adds "the enhanced features obtained from the
teacher network", the student, which is what remains of the branch, takes the teacher's place.
It gives the features that are added when the network predicts, and its own features of the whole
image, through which no gradient passes, are what its masked view is to recover and to be contrasted
with. So all that is missing is the averaging of eq. 1 (and that
the teacher's batch statistics are of whole images only).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.calibration import UNCHANGED, Calibration
from landslide_mapper.nn.decoder import Decoder
from landslide_mapper.nn.encoder import Encoder
from landslide_mapper.nn.losses import contrast_loss, cross_entropy, reconstruction_loss
from landslide_mapper.nn.masking import (
    classify_blocks,
    draw_blocks,
    mask_images,
    most_drawn,
    to_feature_points,
)
from landslide_mapper.nn.network import Losses, Network


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


class MRIFE(Network):
    """Segmentation encoder + student and teacher encoders + fusion + decoder.

    In training the student reconstructs and contrasts the blocks masked in its view of the image,
    its features of the whole image are added to those of the segmentation encoder, and the losses
    of eq. 8 are returned. For prediction the teacher's features are added.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.segmentation = Encoder(config)
        self.student = Encoder(config)
        if config.distillation:
            # A copy: random numbers for it would give the ablation without it another decoder.
            self.teacher = copy.deepcopy(self.student)
            self.training_parts = ("student",)
        self.fusion = Fusion(config.fusion, config.aspp_channels)
        self.decoder = Decoder(config.aspp_channels, config.dropout)
        self.begin()

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The terms of eq. 8 that are not taken away."""
        config = self.config
        used = {"reconstruction": config.mfm, "contrast": config.sfce, "cross_entropy": True}
        return tuple(name for name, there in used.items() if there)

    @property
    def enhancement(self) -> Encoder:
        """The encoder of the enhancement branch that predicts."""
        return self.teacher if self.config.distillation else self.student

    def trained_encoders(self) -> tuple[Encoder, ...]:
        """Segmentation encoder and student; the teacher follows the student."""
        return self.segmentation, self.student

    def explained(self) -> dict[str, nn.Module]:
        """The two branches as they predict, and both fused (Figs. 7 and 8)."""
        return {
            "segmentation": self.segmentation,
            "enhancement": self.enhancement,
            "fused": self.fusion,
        }

    def begin(self) -> None:
        """Make the teacher a copy of the student that no gradient reaches."""
        if self.config.distillation:
            self.teacher.load_state_dict(self.student.state_dict())
            self.teacher.requires_grad_(False)

    def load_prediction_state(
        self, state: Mapping[str, Tensor], calibration: Calibration = UNCHANGED
    ) -> None:
        """Take a model's tensors; the encoder that predicts beside the first starts both others."""
        branches = ("student", "teacher") if self.config.distillation else ("student",)
        whole = {}
        for name, value in state.items():
            part, _, rest = name.partition(".")
            for target in branches if part in ("student", "teacher") else (part,):
                whole[f"{target}.{rest}"] = value
        super().load_prediction_state(whole, calibration)

    @torch.no_grad()
    def after_step(self) -> None:
        """Eq. 1: θt ← λθt + (1 − λ)θs.

        Parameters only: the teacher's batch statistics come from its own passes over unmasked
        images, which is what it sees when the network predicts.
        """
        if self.config.distillation:
            teacher: list[Tensor] = list(self.teacher.parameters())
            student: list[Tensor] = list(self.student.parameters())
            torch._foreach_lerp_(teacher, student, 1 - self.config.ema)

    def predict_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, H, W) of normalised images: segmentation fused with enhancement."""
        features = self.fusion(self.segmentation(normalised), self.enhancement(normalised))
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
        views, target = self._student_views(normalised, landslide | background)
        enhancement = views[config.fused_view]
        logits = self.decoder(self.fusion(self.segmentation(normalised), enhancement))

        landslide, background = (
            to_feature_points(drawn, config.block_size) for drawn in (landslide, background)
        )
        terms = []
        if config.mfm:
            loss = reconstruction_loss(views["masked"], target, landslide | background)
            terms.append(("reconstruction", config.alpha, loss))
        if config.sfce:
            most = most_drawn(classes[0].numel(), config.mask_ratio, config.block_size)
            loss = contrast_loss(
                views["masked"], target, landslide, background, config.temperature, most
            )
            terms.append(("contrast", config.beta, loss))
        terms.append(("cross_entropy", config.gamma, cross_entropy(logits, labels)))
        return Losses.weighted(*terms)

    def _student_views(self, normalised: Tensor, drawn: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Features that the student has of the ``masked`` and of the ``whole`` images.

        Only those that are wanted, and what the masked ones are to recover (no gradient).
        """
        config = self.config
        views = {}
        if config.mfm or config.sfce or config.fused_view == "masked":
            views["masked"] = self.student(mask_images(normalised, drawn, config.block_size))
        if config.distillation:
            with torch.no_grad():
                target = self.teacher(normalised)
        if config.fused_view == "whole" or not config.distillation:
            views["whole"] = self.student(normalised)
        if not config.distillation:
            target = views["whole"].detach()
        return views, target
