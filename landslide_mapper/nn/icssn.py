"""ICSSN (Lu et al. 2023, ref. 40 of the paper): classification and segmentation in turns.

Known of it here is what its abstract and the paper's sections II-B and III-B, III-D say: a feature
extractor (the paper's, which it comes from) that two networks share and improve in turns; an object
classifier, siamese, with contrast between objects; a segmenter, with MRIFE's decoder, with contrast
between parts of objects taken from the boundaries of landslides. All else is decided here:

- Turns are epochs, `round_epochs` of the classifier, as many of the segmenter, and so on; the
  parameters of the one that rests do not change. A run of E epochs so has as many steps and sees as
  many tiles as any other architecture's, half of them for each task. The encoder is handed over
  as it is.
- Objects are square windows, half a tile wide, two of each class from each tile: landslide where
  the window has at least half of the landslide pixels that the best window of the tile has, and at
  least 1 % of its own pixels; background where it has none. Windows of which less than half was
  seen are left out.
- The siamese encoder's features are averaged over a window. The contrast is eq. 5 on a projection
  of them (two linear layers), all objects of the batch against each other, both classes in turn
  as anchors. The classifier is one linear layer on the features, its loss the cross-entropy.
- Parts of objects are the blocks that MRIFE masks: edge blocks attract each other and are held
  against background blocks within 4 blocks of an edge block, as many as are drawn of the edge
  (`mask_ratio`), within pairs of samples as in eq. 6, on the features of the whole image.
- Both contrasts have the weight β and the temperature τ, both cross-entropies the weight γ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide_mapper.config import ModelConfig
from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.nn.decoder import Decoder
from landslide_mapper.nn.encoder import STRIDE, Encoder
from landslide_mapper.nn.losses import (
    Points,
    cross_entropy,
    gather_points,
    mean_over,
    pair_samples,
    supervised_contrast,
)
from landslide_mapper.nn.masking import (
    BACKGROUND,
    EDGE,
    UNUSABLE,
    classify_blocks,
    draw_blocks,
    most_drawn,
    to_feature_points,
)
from landslide_mapper.nn.network import Losses, Network

VIEWS = 2  # windows of each class from each tile
LEAST_SHARE = 0.01  # of landslide pixels in the window of a landslide
LEAST_SEEN = 0.5  # of the pixels of any window
NEAR = 4  # blocks between a background block and the edge


class ICSSN(Network):
    """Shared encoder, object classifier and segmentation decoder, trained in turns."""

    training_parts = ("classifier",)
    rests = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config.aspp_channels, config.dropout)
        self.classifier = ObjectClassifier(config.aspp_channels)
        self.begin_epoch(0)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Those of the classifier, then those of the segmenter."""
        return "object_contrast", "classification", "boundary_contrast", "cross_entropy"

    def trained_encoders(self) -> tuple[Encoder, ...]:
        """The shared one."""
        return (self.encoder,)

    def explained(self) -> dict[str, nn.Module]:
        """The features of the shared encoder."""
        return {"features": self.encoder}

    def begin_epoch(self, epoch: int) -> None:
        """Whose turn it is: the classifier's first."""
        self.classifies = epoch // self.config.round_epochs % 2 == 0
        self._segmented = epoch >= self.config.round_epochs

    @property
    def ready(self) -> bool:
        """Whether the segmenter has had its turn."""
        return self._segmented

    def predict_logits(self, normalised: Tensor) -> Tensor:
        """Logits (N, H, W) of normalised images."""
        return self.decoder(self.encoder(normalised))

    def training_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        """The losses of the one whose turn it is."""
        if self.classifies:
            return self._classification_losses(normalised, labels, generator)
        return self._segmentation_losses(normalised, labels, generator)

    def _classification_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        config = self.config
        crops, truth, there = draw_objects(normalised, labels, generator)
        vectors, logits = self.classifier(self.encoder(crops))
        landslide, background = (
            Points(vectors[None], (there & (truth == kind))[None]) for kind in (1, 0)
        )
        contrast = (
            supervised_contrast(landslide, background, config.temperature)
            + supervised_contrast(background, landslide, config.temperature)
        ).sum() / 2
        wrong = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
        return Losses.weighted(
            ("object_contrast", config.beta, contrast),
            ("classification", config.gamma, mean_over(wrong, there)),
        )

    def _segmentation_losses(
        self, normalised: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Losses:
        config = self.config
        classes = near_edges(classify_blocks(labels, config.block_size))
        edge, near = (
            to_feature_points(drawn, config.block_size)
            for drawn in draw_blocks(classes, config.mask_ratio, "edge", generator)
        )
        features = self.encoder(normalised)
        entropy = cross_entropy(self.decoder(features), labels)
        first, second, there = pair_samples(edge.flatten(1).any(1))
        most = most_drawn(classes[0].numel(), config.mask_ratio, config.block_size)
        picked = (gather_points(features, points, most) for points in (edge, near))
        landslide, background = (points.of(first).beside(points.of(second)) for points in picked)
        losses = supervised_contrast(landslide, background, config.temperature)
        contrast = mean_over(losses, there)
        return Losses.weighted(
            ("boundary_contrast", config.beta, contrast), ("cross_entropy", config.gamma, entropy)
        )


class ObjectClassifier(nn.Module):
    """Features of windows → unit vectors for the contrast, and one logit per window."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels // 2)
        )
        self.decide = nn.Linear(channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) → (N, C / 2), (N,)."""
        pooled = features.mean(dim=(2, 3))
        return F.normalize(self.project(pooled).float(), dim=1), self.decide(pooled)[:, 0]


def near_edges(classes: Tensor) -> Tensor:
    """Block classes (N, h, w) without the background that is further than `NEAR` from an edge."""
    edge = (classes == EDGE).float()[:, None]
    near = F.max_pool2d(edge, 2 * NEAR + 1, stride=1, padding=NEAR)[:, 0] > 0
    return classes.masked_fill(~near & (classes == BACKGROUND), UNUSABLE)


def draw_objects(
    images: Tensor, labels: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw windows with landslide and windows of background, `VIEWS` of each from each image.

    Args:
        images: (N, B, H, W) normalised; H and W are multiples of 8 and at least 16.
        labels: (N, H, W): 0 background, 1 landslide, 255 ignored.
        generator: random numbers, on the device of the images.

    Returns:
        Windows (2·VIEWS·N, B, s, s), s half of the shorter side; float (2·VIEWS·N,), 1 for
        landslide; and which of them there are: an image may have no window of a class.
    """
    side = min(labels.shape[1:]) // (2 * STRIDE) * STRIDE

    def share(pixels: Tensor) -> Tensor:
        # In two stages, or each window would sum side² pixels one by one.
        blocks = F.avg_pool2d(pixels.float()[:, None], STRIDE)
        return F.avg_pool2d(blocks, side // STRIDE, stride=1)[:, 0]

    landslide, seen = share(labels == LANDSLIDE), share(labels != IGNORE) >= LEAST_SEEN
    best = landslide.amax(dim=(1, 2), keepdim=True)
    wanted = (
        (seen & (landslide >= (best / 2).clamp(min=LEAST_SHARE)), 1.0),
        (seen & (landslide == 0), 0.0),
    )
    crops, truths, there = [], [], []
    for candidates, truth in wanted:
        for _ in range(VIEWS):
            crops.append(_crop(images, *_draw_corner(candidates, generator), side))
            truths.append(torch.full((len(images),), truth, device=images.device))
            there.append(candidates.flatten(1).any(1))
    return torch.cat(crops), torch.cat(truths), torch.cat(there)


def _draw_corner(candidates: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Row and column (N,) in pixels of a random one of the true entries (N, h, w) of each image."""
    flat = candidates.flatten(1)
    scores = torch.rand(flat.shape, generator=generator, device=flat.device)
    chosen = scores.masked_fill(~flat, -1.0).argmax(dim=1)
    width = candidates.shape[2]
    return chosen // width * STRIDE, chosen % width * STRIDE


def _crop(images: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Windows (N, B, side, side) whose upper left corners are given, one per image."""
    steps = torch.arange(side, device=images.device)
    number = torch.arange(len(images), device=images.device)[:, None, None]
    down, across = (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None, :]
    return images.permute(0, 2, 3, 1)[number, down, across].permute(0, 3, 1, 2)
