"""The network as other tools feed it: shares of 255 in, one probability for each class out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from landslide_mapper.nn.network import Network


class SceneStretch(nn.Module):
    """The stretch of one scene on raw pixels, as `lsmap detect` would do it for this scene.

    A pixel is not seen where it is 0 in all bands (tools fill with that) or nodata in all.
    """

    tables: Tensor
    first: Tensor
    nodata: Tensor

    def __init__(self, tables: np.ndarray, nodata: np.ndarray) -> None:
        """`tables`: uint8 (B, 256), per band from raw to stretched; `nodata`: (B,), 0 if none."""
        super().__init__()
        bands = torch.arange(len(tables)).reshape(1, -1, 1, 1)
        self.register_buffer("tables", torch.from_numpy(tables.astype(np.float32) / 255).flatten())
        self.register_buffer("first", bands * tables.shape[1])
        self.register_buffer(
            "nodata", torch.from_numpy(nodata.astype(np.int64))[None, :, None, None]
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, B, h, w) raw values / 255 → stretched values / 255, 0 where nothing was seen."""
        levels = (images * 255).round().clamp(0, 255).long()
        seen = (levels != 0).any(1, True) & (levels != self.nodata).any(1, True)
        return self.tables[levels + self.first] * seen


class PortableModel(nn.Module):
    """Images float32 (N, B, h, w) in 0..1 → classes float32 (N, 2, h, w).

    Channel 1 is the landslide probability and channel 0, the background, is 0 throughout:
    GeoDeep and Deepness set what is below the threshold to 0 and then take the highest channel
    (the first of equals), so that any threshold does what it says, also one below 0.5.
    """

    def __init__(self, model: Network, stretch: SceneStretch | None) -> None:
        super().__init__()
        self.model = model
        self.stretch = stretch

    def forward(self, images: Tensor) -> Tensor:
        """Predict; nodata (0 in every band) becomes the mean colour."""
        if self.stretch is not None:
            images = self.stretch(images)
        seen = (images != 0).any(dim=1, keepdim=True)
        rule = self.model.normalise
        logits = self.model.predict_logits((images - rule.mean) / rule.std * seen)
        landslide = torch.sigmoid(logits)[:, None]
        return torch.cat([torch.zeros_like(landslide), landslide], dim=1)
