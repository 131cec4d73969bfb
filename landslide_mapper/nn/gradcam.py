"""Grad-CAM (Selvaraju et al. 2017) for segmentation, with one target for a whole scene.

The target is the mean logit of the pixels that the network calls landslide (probability at or
above a threshold), over all windows of a scene, each pixel counted once. The weight of a channel
is the target's gradient with regard to a shift of the whole channel,

    α_k = Σ_ij ∂y / ∂A_k(ij)        (Grad-CAM's eq. 1 up to the constant number of points)

and the map is Σ_k α_k A_k, of which Grad-CAM keeps the positive part (its eq. 2). So a map is in
logits: what features like those at a point would add, to first order, to the logit of a landslide
pixel among them. Since all windows share the same weights, maps of neighbouring windows fit
together. Where a layer is the sum of two others (MRIFE's point-wise fusion), its gradients are
theirs and its map, before the positive part is taken, is the sum of their maps: the branches can
be compared.

Use it in two passes over the same windows: `GradCam.gather`, then `GradCam.maps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Target:
    """What is explained.

    Attributes:
        pixels: number of pixels that are called landslide, as far as they were wanted.
        logit: their mean logit, NaN without any.
        highest: highest probability of any wanted pixel, 0 without any.
    """

    pixels: float
    logit: float
    highest: float


class GradCam:
    """Grad-CAM of named layers of a network, which is taken over: evaluation mode, frozen.

    Args:
        network: uint8 images (N, B, H, W) → logits (N, H, W).
        points: layers by name, as `Network.explained` gives them; each is called once per
            prediction, and no later layer changes its output (N, C, h, w) in place.
        threshold: probability from which a pixel counts as landslide.
    """

    def __init__(
        self, network: nn.Module, points: Mapping[str, nn.Module], threshold: float
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self._points = dict(points)
        self._threshold = threshold
        self._gradient: dict[str, Tensor] = {}  # float64 (C,): sums over windows and points
        self._pixels = self._logits = self._highest = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the maps."""
        return tuple(self._points)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self._network.parameters()).device

    def gather(self, images: Tensor, wanted: Tensor) -> None:
        """First pass: add windows to the target and to the channels' weights.

        Args:
            images: uint8 (N, B, H, W).
            wanted: float (N, H, W), how much a pixel counts; over all windows that show a pixel
                of the scene this sums to 1, and to 0 where nothing is to be explained.
        """
        with torch.enable_grad(), self._kept(differentiable=True) as features:
            logits = self._network(images)
            probability = torch.sigmoid(logits.detach())
            counts = wanted * (probability >= self._threshold)
            target = (logits * counts).sum()
            gradients = torch.autograd.grad(target, list(features.values()))
        for name, gradient in zip(features, gradients, strict=True):
            sums = gradient.sum(dim=(0, 2, 3), dtype=torch.float64)
            known = self._gradient.get(name)
            self._gradient[name] = sums if known is None else known + sums
        self._pixels += float(counts.sum(dtype=torch.float64))
        self._logits += float(target.detach())
        self._highest = max(self._highest, float((probability * (wanted > 0)).max()))

    def target(self) -> Target:
        """What the first pass found."""
        mean = self._logits / self._pixels if self._pixels else float("nan")
        return Target(self._pixels, mean, self._highest)

    def weights(self) -> dict[str, Tensor]:
        """Per layer α (C,), float64, in logits per unit of the channel.

        Raises:
            ValueError: no pixel was called landslide, so there is nothing to explain.
        """
        if not self._pixels:
            raise ValueError("no pixel reaches the threshold")
        return {name: total / self._pixels for name, total in self._gradient.items()}

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """Second pass: Σ_k α_k A_k of each layer, (N, layers, H, W) in logits, both signs.

        Feature points are the middles of their blocks of pixels; between them the map is
        bilinear, beyond the outermost ones constant.
        """
        weights = self.weights()
        with self._kept(differentiable=False) as features:
            self._network(images)
        found = []
        for name in self._points:
            weight = weights[name].to(features[name].dtype)
            coarse = torch.einsum("nchw,c->nhw", features[name], weight)[:, None]
            fine = F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)
            found.append(fine)
        return torch.cat(found, dim=1)

    @contextmanager
    def _kept(self, differentiable: bool) -> Iterator[dict[str, Tensor]]:
        """What the layers give while the network runs in this context.

        With `differentiable` the first layers of the way become the leaves of the graph, so that
        nothing is differentiated before them.
        """
        kept: dict[str, Tensor] = {}

        def keeper(name: str) -> Any:
            def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
                if differentiable and not output.requires_grad:
                    output = output.detach().requires_grad_(True)
                kept[name] = output
                return output

            return keep

        hooks = [point.register_forward_hook(keeper(name)) for name, point in self._points.items()]
        try:
            yield kept
        finally:
            for hook in hooks:
                hook.remove()
