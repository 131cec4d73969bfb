"""The mask module: block classes at the paper's limits, equal draws, what is never drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from landslide_mapper.nn.masking import (
    BACKGROUND,
    EDGE,
    INTERIOR,
    UNUSABLE,
    classify_blocks,
    draw_blocks,
    edge_limits,
    mask_images,
    most_drawn,
    to_feature_points,
)


def labels_with(landslide_pixels: int, block: int = 8) -> torch.Tensor:
    """One block with so many landslide pixels."""
    flat = torch.zeros(block * block, dtype=torch.uint8)
    flat[:landslide_pixels] = 1
    return flat.reshape(1, block, block)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [(0, BACKGROUND), (6, BACKGROUND), (7, EDGE), (57, EDGE), (58, INTERIOR), (64, INTERIOR)],
)
def test_block_classes_at_the_limits_of_the_paper(pixels: int, expected: int) -> None:
    assert classify_blocks(labels_with(pixels), 8).item() == expected


@pytest.mark.parametrize(
    ("pixels", "expected"), [(25, BACKGROUND), (26, EDGE), (230, EDGE), (231, INTERIOR)]
)
def test_larger_blocks_use_ten_and_ninety_per_cent(pixels: int, expected: int) -> None:
    assert edge_limits(16) == (26, 230)
    assert classify_blocks(labels_with(pixels, 16), 16).item() == expected


def test_a_block_that_touches_an_ignored_pixel_is_unusable() -> None:
    labels = labels_with(30)
    labels[0, 7, 7] = 255
    assert classify_blocks(labels, 8).item() == UNUSABLE


def test_blocks_lie_where_their_pixels_are() -> None:
    labels = torch.zeros(1, 32, 16, dtype=torch.uint8)
    labels[0, 8:12, 8:16] = 1  # half of the block in row 1, column 1
    labels[0, 24:32, 0:8] = 1  # all of the block in row 3, column 0
    expected = torch.zeros(1, 4, 2, dtype=torch.long)
    expected[0, 1, 1] = EDGE
    expected[0, 3, 0] = INTERIOR
    assert torch.equal(classify_blocks(labels, 8), expected)


@given(
    seed=st.integers(0, 2**31),
    ratio=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    strategy=st.sampled_from(["edge", "interior", "all"]),
)
def test_both_classes_are_drawn_equally_often(seed: int, ratio: float, strategy: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(-1, 3, (3, 9, 7), generator=generator)
    landslide, background = draw_blocks(classes, ratio, strategy, generator)
    allowed = {"edge": [EDGE], "interior": [INTERIOR], "all": [EDGE, INTERIOR]}[strategy]
    assert set(classes[landslide].tolist()) <= set(allowed)
    assert set(classes[background].tolist()) <= {BACKGROUND}
    for n in range(3):
        available = int(sum((classes[n] == c).sum() for c in allowed))
        wanted = min(max(round(available * ratio), 1), available) if ratio else 0
        wanted = min(wanted, int((classes[n] == BACKGROUND).sum()))
        assert landslide[n].sum() == background[n].sum() == wanted


def test_draws_are_uniform_and_differ_between_generators() -> None:
    classes = torch.full((1, 4, 8), EDGE)
    classes[:, 2:] = BACKGROUND
    counts = torch.zeros(4, 8)
    for seed in range(400):
        landslide, background = draw_blocks(
            classes, 0.5, generator=torch.Generator().manual_seed(seed)
        )
        counts += (landslide | background)[0]
    assert (counts - 200).abs().max() < 60  # six standard deviations of a fair draw


def test_of_a_single_block_all_is_drawn() -> None:
    classes = torch.full((1, 4, 4), BACKGROUND)
    classes[0, 2, 1] = EDGE
    for ratio in (0.1, 0.5, 1.0):
        landslide, background = draw_blocks(classes, ratio)
        assert torch.equal(landslide, classes == EDGE)
        assert background.sum() == 1


def test_nothing_is_drawn_without_background_or_without_landslide() -> None:
    for only in (EDGE, BACKGROUND, UNUSABLE):
        landslide, background = draw_blocks(torch.full((1, 4, 4), only), 0.5)
        assert not landslide.any()
        assert not background.any()


def test_masked_pixels_are_zero_and_others_untouched() -> None:
    images = torch.randn(2, 3, 32, 32)
    drawn = torch.zeros(2, 2, 2, dtype=torch.bool)
    drawn[1, 0, 1] = True
    masked = mask_images(images, drawn, 16)
    assert (masked[1, :, 0:16, 16:32] == 0).all()
    masked[1, :, 0:16, 16:32] = images[1, :, 0:16, 16:32]
    assert torch.equal(masked, images)
    points = to_feature_points(drawn, 16)
    assert points.shape == (2, 4, 4)
    assert points[1, 0:2, 2:4].all()
    assert points.sum() == 4


@given(
    st.integers(1, 60),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from([8, 16]),
    st.integers(0, 1000),
)
@example(side=16, share=0.5, ratio=0.01, block_size=16, seed=0)
def test_no_more_points_are_drawn_than_there_is_room_for(
    side: int, share: float, ratio: float, block_size: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    classes = (torch.rand(1, side, 2, generator=generator) < share).long()
    landslide, background = (
        to_feature_points(drawn, block_size).sum()
        for drawn in draw_blocks(classes, ratio, "edge", generator)
    )
    assert landslide == background <= most_drawn(classes[0].numel(), ratio, block_size)
