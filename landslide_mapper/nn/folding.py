"""The network rewritten for prediction: the same answers but for rounding, in less time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from landslide_mapper.nn.encoder import ASPP, Encoder
from landslide_mapper.nn.network import Network


def fold(model: Network) -> Network:
    """Rewrite `model`, in place, for prediction alone; it cannot be trained or saved any more.

    Batch normalisation moves into the convolution before it, dropout goes, and the pyramids no
    longer join their branches in one large array. Probabilities change by about 1e-6.

    Args:
        model: in evaluation mode; what only training needs is left out.

    Returns:
        The same object.
    """
    model.drop_training_parts()
    _fold_convolutions(model)
    for part in model.modules():
        if isinstance(part, Encoder):
            part.aspp = FoldedASPP(part.aspp)  # type: ignore[assignment]
    return model.requires_grad_(False)


def _fold_convolutions(module: nn.Module) -> None:
    """In every part of these networks a batch normalisation follows its convolution directly."""
    before: tuple[str, nn.Module] | None = None
    for name, part in list(module.named_children()):
        _fold_convolutions(part)
        if isinstance(part, nn.BatchNorm2d):
            if before is None or not isinstance(before[1], nn.Conv2d | nn.ConvTranspose2d):
                raise ValueError(f"{name} of {type(module).__name__} follows no convolution")
            transposed = isinstance(before[1], nn.ConvTranspose2d)
            setattr(module, before[0], fuse_conv_bn_eval(before[1], part, transposed))
            setattr(module, name, nn.Identity())
        elif isinstance(part, nn.Dropout2d):
            setattr(module, name, nn.Identity())
        before = name, part


class FoldedASPP(nn.Module):
    """`ASPP` whose branches are projected one by one and summed.

    Concatenated they are five times as wide, and the pooled branch, equal in all pixels, breaks
    the memory layout of the others, so that all are copied.
    """

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        self.branches = nn.ModuleList([aspp.local, *aspp.dilated])
        self.pooled = aspp.pooled
        project = aspp.project[0]
        if not isinstance(project, nn.Conv2d) or project.bias is None:
            raise ValueError("batch normalisation must be folded before the pyramid")
        pieces = project.weight.detach().chunk(len(self.branches) + 1, dim=1)
        self.projections = nn.ModuleList(_pointwise(piece, None) for piece in pieces[:-1])
        self.project_pooled = _pointwise(pieces[-1], project.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, channels, h, w)."""
        pooled = self.project_pooled(self.pooled(F.adaptive_avg_pool2d(x, 1)))
        pairs = zip(self.branches, self.projections, strict=True)
        first, *others = (project(branch(x)) for branch, project in pairs)
        for other in others:
            first += other
        return F.relu_(first.add_(pooled))


def _pointwise(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A 1×1 convolution with these values."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
    return layer
