"""The three losses of MRIFE: eq. 2–3 (MFM), eq. 4–6 (SFCE) and eq. 7 (cross-entropy).

Nothing here waits for a CUDA device: how many points there are is never asked, all arrays have room
for the most that there may be.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from landslide_mapper.mask_values import IGNORE, LANDSLIDE


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
    return 2 * mean_over(per_sample, counts > 0)


class Points(NamedTuple):
    """Feature vectors of samples; the arrays have room for more than there may be.

    Attributes:
        vectors: (N, K, C) unit vectors, float32.
        valid: boolean (N, K), which of them are there.
    """

    vectors: Tensor
    valid: Tensor

    def of(self, samples: Tensor) -> Points:
        """The points of these samples (G,), one group each."""
        return Points(self.vectors[samples], self.valid[samples])

    def beside(self, other: Points) -> Points:
        """Group by group the points of both."""
        return Points(
            torch.cat([self.vectors, other.vectors], dim=1),
            torch.cat([self.valid, other.valid], dim=1),
        )


def gather_points(features: Tensor, points: Tensor, most: int) -> Points:
    """Pick feature points, normalised to length 1.

    Args:
        features: (N, C, h, w).
        points: boolean (N, h, w).
        most: room for each sample; of more points the first ones are taken. The room never depends
            on the values where a device would have to be asked for them.
    """
    flat = points.flatten(1)
    if not flat.is_cuda:  # room for nothing costs time here, and asking costs nothing
        most = min(most, max(int(flat.sum(1).max()), 1))
    order = flat.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    picked = features.flatten(2).transpose(1, 2).take_along_dim(order[:, :, None], dim=1)
    return Points(F.normalize(picked.float(), dim=2), flat.gather(1, order))


def supervised_contrast(landslide: Points, background: Points, temperature: float) -> Tensor:
    """Eq. 4–5 in each of G groups, the mean over the anchors in the place of the sum.

    −log(e^s_ij / (e^s_ij + Σ_k e^s̃_ik)) is computed as softplus(logsumexp_k s̃_ik − s_ij), which
    does not overflow. The indicator is 1 for i ≠ j (the paper's text has it inverted).

    Args:
        landslide: class 1, (G, N, C).
        background: class 0, (G, M, C).
        temperature: τ.

    Returns:
        (G,), 0 in a group without points of both classes.
    """
    ones, zeros = landslide.vectors, background.vectors
    with torch.autocast(ones.device.type, enabled=False):  # bf16 is too coarse, divided by τ
        positive = ones @ ones.transpose(1, 2) / temperature
        negative = ones @ zeros.transpose(1, 2) / temperature
    absent = torch.finfo(negative.dtype).min / 2  # finite: −inf would give gradients that are NaN
    negative = negative.masked_fill(~background.valid[:, None, :], absent)
    losses = F.softplus(torch.logsumexp(negative, dim=2, keepdim=True) - positive)
    used = landslide.valid[:, :, None] & landslide.valid[:, None, :]
    used = used & ~torch.eye(ones.shape[1], dtype=torch.bool, device=used.device)
    count = landslide.valid.sum(dim=1)
    return losses.masked_fill(~used, 0.0).sum(dim=(1, 2)) / count.clamp(min=1) ** 2


def pair_samples(usable: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair the usable samples in their order; with an odd number the last meets the first again.

    Args:
        usable: boolean (N,).

    Returns:
        First and second sample of each pair, int64, and which pairs there are; (ceil(N / 2),)
        each. There is none with fewer than two usable samples.
    """
    order = (~usable).to(torch.uint8).argsort(stable=True)
    count = usable.sum()
    position = torch.arange(0, len(usable), 2, device=usable.device)
    partner = torch.where(position + 1 < count, position + 1, 0)
    return order[position], order[partner], (position < count) & (count > 1)


def mean_over(values: Tensor, there: Tensor) -> Tensor:
    """Mean of the values that are there, 0 where there is none."""
    return (values * there).sum() / there.sum().clamp(min=1)


def contrast_loss(
    student: Tensor,
    teacher: Tensor,
    landslide_points: Tensor,
    background_points: Tensor,
    temperature: float,
    most: int,
) -> Tensor:
    """Semantic feature contrast enhancement, eq. 6: cross-contrast within pairs of samples.

    Samples with masked points are paired as in `pair_samples`. Within a pair the student's points
    of one sample meet the teacher's points of the other, and the reverse; both are summed, and the
    mean over the pairs is returned. 0 where fewer than two samples have masked points.

    Args:
        student: (N, C, h, w) features of the masked images.
        teacher: (N, C, h, w) features of the original images.
        landslide_points: boolean (N, h, w), masked points of class 1.
        background_points: boolean (N, h, w), masked points of class 0.
        temperature: τ.
        most: most points of a class in a sample.
    """
    first, second, there = pair_samples(landslide_points.flatten(1).any(1))
    seen, other = torch.cat([first, second]), torch.cat([second, first])
    landslide, background = (
        gather_points(student, points, most)
        .of(seen)
        .beside(gather_points(teacher, points, most).of(other))
        for points in (landslide_points, background_points)
    )
    losses = supervised_contrast(landslide, background, temperature)
    return 2 * mean_over(losses, there.repeat(2))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 7 with its sign restored: binary cross-entropy, the mean over all pixels not ignored.

    Args:
        logits: (N, H, W).
        labels: (N, H, W), 0, 1 or 255 = ignored.
    """
    seen = labels != IGNORE
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), (labels == LANDSLIDE).float(), reduction="none"
    )
    return mean_over(losses, seen)
