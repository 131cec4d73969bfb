"""The three losses of MRIFE: eq. 2–3 (MFM), eq. 4–6 (SFCE) and eq. 7 (cross-entropy)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from landslide_mapper.nn.masking import IGNORE


def reconstruction_loss(student: Tensor, teacher: Tensor, points: Tensor) -> Tensor:
    """Masked feature modelling, eq. 2–3: mean squared error at the masked feature points.

    The mean runs over points and channels of each sample; eq. 3 sums the two samples of a pair,
    so a batch gives twice the mean over its samples with masked points. 0 where there is none.

    Args:
        student: (N, C, h, w) features of the masked images.
        teacher: (N, C, h, w) features of the original images.
        points: boolean (N, h, w), the masked feature points.
    """
    weight = points.float()
    squared = ((student.float() - teacher.float()) ** 2).mean(dim=1) * weight
    counts = weight.sum(dim=(1, 2))
    per_sample = squared.sum(dim=(1, 2)) / counts.clamp(min=1)
    used = (counts > 0).float()
    return 2 * (per_sample * used).sum() / used.sum().clamp(min=1)


def supervised_contrast(landslide: Tensor, background: Tensor, temperature: float) -> Tensor:
    """Eq. 4–5, the mean over the anchors in the place of the sum.

    −log(e^s_ij / (e^s_ij + Σ_k e^s̃_ik)) is computed as softplus(logsumexp_k s̃_ik − s_ij), which
    does not overflow. The indicator is 1 for i ≠ j (the paper's text has it inverted).

    Args:
        landslide: (N, C) unit vectors of class 1.
        background: (M, C) unit vectors of class 0.
        temperature: τ.
    """
    count = landslide.shape[0]
    positive = landslide @ landslide.T / temperature
    negative = torch.logsumexp(landslide @ background.T / temperature, dim=1, keepdim=True)
    losses = F.softplus(negative - positive)
    losses = losses - torch.diag(losses.diagonal())
    return losses.sum() / count**2


def contrast_loss(
    student: Tensor,
    teacher: Tensor,
    landslide_points: Tensor,
    background_points: Tensor,
    temperature: float,
) -> Tensor:
    """Semantic feature contrast enhancement, eq. 6: cross-contrast within pairs of samples.

    Samples with masked points are paired in their order (with an odd number the last one meets
    the first again). Within a pair the student's points of one sample meet the teacher's points
    of the other, and the reverse; both are summed, and the mean over the pairs is returned.
    0 where fewer than two samples have masked points.

    Args:
        student: (N, C, h, w) features of the masked images.
        teacher: (N, C, h, w) features of the original images.
        landslide_points: boolean (N, h, w), masked points of class 1.
        background_points: boolean (N, h, w), masked points of class 0.
        temperature: τ.
    """
    samples = landslide_points.flatten(1).any(1).nonzero()[:, 0].tolist()
    pairs = [(samples[k], samples[(k + 1) % len(samples)]) for k in range(0, len(samples), 2)]
    pairs = [(first, second) for first, second in pairs if first != second]
    if not pairs:
        return student.sum() * 0.0
    student = F.normalize(student.float(), dim=1).permute(0, 2, 3, 1)
    teacher = F.normalize(teacher.float(), dim=1).permute(0, 2, 3, 1)

    def cross(seen: int, other: int) -> Tensor:
        groups = [
            torch.cat([student[seen][points[seen]], teacher[other][points[other]]])
            for points in (landslide_points, background_points)
        ]
        return supervised_contrast(groups[0], groups[1], temperature)

    total = torch.stack([cross(first, second) + cross(second, first) for first, second in pairs])
    return total.mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 7 with its sign restored: binary cross-entropy, the mean over all pixels not ignored.

    Args:
        logits: (N, H, W).
        labels: (N, H, W), 0, 1 or 255 = ignored.
    """
    seen = labels != IGNORE
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), (labels == 1).float(), reduction="none"
    )
    return (losses * seen).sum() / seen.sum().clamp(min=1)
