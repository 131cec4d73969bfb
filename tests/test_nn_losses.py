"""Losses against plain loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from landslide_mapper.nn.losses import (
    Points,
    contrast_loss,
    cross_entropy,
    gather_points,
    pair_samples,
    reconstruction_loss,
    supervised_contrast,
)


def contrast_by_loops(landslide: torch.Tensor, background: torch.Tensor, tau: float) -> float:
    """Eq. 4–5 word for word (mean over anchors), in Python floats."""
    x, y = landslide.tolist(), background.tolist()

    def similarity(a: list[float], b: list[float]) -> float:
        return sum(p * q for p, q in zip(a, b, strict=True)) / tau

    total = 0.0
    for i in range(len(x)):
        negatives = sum(math.exp(similarity(x[i], other)) for other in y)
        for j in range(len(x)):
            if i != j:
                positive = math.exp(similarity(x[i], x[j]))
                total += -math.log(positive / (positive + negatives)) / len(x)
    return total / len(x)


def contrast(landslide: torch.Tensor, background: torch.Tensor, tau: float) -> torch.Tensor:
    """The loss of one group whose points are all there."""
    one, two = (
        Points(vectors[None], torch.ones(1, len(vectors), dtype=torch.bool))
        for vectors in (landslide, background)
    )
    return supervised_contrast(one, two, tau)[0]


@pytest.mark.parametrize(
    ("n", "m", "tau"), [(1, 1, 0.1), (2, 3, 0.5), (17, 17, 0.1), (40, 31, 0.07)]
)
def test_contrast_equals_the_double_loop(n: int, m: int, tau: float) -> None:
    torch.manual_seed(n)
    landslide = F.normalize(torch.randn(n, 16, dtype=torch.float64), dim=1)
    background = F.normalize(torch.randn(m, 16, dtype=torch.float64), dim=1)
    expected = contrast_by_loops(landslide, background, tau)
    value = contrast(landslide, background, tau).item()
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_contrast_gradients() -> None:
    torch.manual_seed(0)
    landslide = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    background = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return contrast(F.normalize(a, dim=1), F.normalize(b, dim=1), 0.1)

    assert torch.autograd.gradcheck(loss, (landslide, background))


def test_contrast_does_not_overflow_in_float32() -> None:
    same = torch.ones(4, 8) / math.sqrt(8)
    far = contrast(same, same, 0.001)  # e^1000 overflows
    assert torch.isfinite(far)
    assert far.item() == pytest.approx(3 / 4 * math.log(1 + 4), rel=1e-5)


def test_contrast_falls_when_the_classes_part() -> None:
    a, b = torch.eye(4)[:1].expand(6, 4), torch.eye(4)[1:2].expand(6, 4)
    assert contrast(a, b, 0.1) < contrast(a, a, 0.1)


def test_room_for_points_that_are_not_there_changes_nothing() -> None:
    """Neither the losses nor their gradients, even where a group has no point at all."""
    torch.manual_seed(0)
    vectors = [F.normalize(torch.randn(3, count, 8), dim=2) for count in (6, 9)]
    valid = [torch.rand(3, count) < 0.6 for count in (6, 9)]
    valid[0][2] = valid[1][2] = False
    points = [
        Points(v.clone().requires_grad_(), there) for v, there in zip(vectors, valid, strict=True)
    ]
    losses = supervised_contrast(*points, 0.1)
    losses.sum().backward()
    assert losses[2] == 0
    for group in (0, 1):
        alone = [
            v[group][there[group]].requires_grad_() for v, there in zip(vectors, valid, strict=True)
        ]
        expected = contrast(*alone, 0.1)
        expected.backward()
        assert torch.isclose(losses[group], expected)
        for found, there, one in zip(points, valid, alone, strict=True):
            assert torch.allclose(found.vectors.grad[group][there[group]], one.grad, atol=1e-6)
            assert (found.vectors.grad[group][~there[group]] == 0).all()
            assert (found.vectors.grad[2] == 0).all()


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_pairs_are_of_usable_samples_each_at_least_once(usable: list[bool]) -> None:
    first, second, there = pair_samples(torch.tensor(usable))
    pairs = [
        (a, b) for a, b, c in zip(*(x.tolist() for x in (first, second, there)), strict=True) if c
    ]
    samples = [number for number, good in enumerate(usable) if good]
    if len(samples) < 2:
        assert pairs == []
    else:
        assert {number for pair in pairs for number in pair} == set(samples)
        assert all(a != b for a, b in pairs)
        assert len(pairs) == -(-len(samples) // 2)


def test_points_are_picked_in_order_and_made_unit_vectors() -> None:
    maps, _, points, _ = features(11)
    picked = gather_points(maps, points, 16)
    assert picked.valid.sum(1).tolist() == points.flatten(1).sum(1).tolist()
    assert picked.vectors.shape[1] == points.flatten(1).sum(1).max()  # no room to spare on a CPU
    for sample in range(4):
        found = picked.vectors[sample][picked.valid[sample]]
        assert torch.allclose(found, gather(maps, sample, points).float(), atol=1e-6)
    assert gather_points(maps, points, 1).vectors.shape[1] == 1
    assert not gather_points(maps, points & False, 16).valid.any()


def features(seed: int, samples: int = 4) -> tuple[torch.Tensor, ...]:
    """Student, teacher, landslide and background points with other counts in each sample."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(samples, 6, 4, 4, generator=generator, dtype=torch.float64)
    teacher = torch.randn(samples, 6, 4, 4, generator=generator, dtype=torch.float64)
    draw = torch.rand(samples, 4, 4, generator=generator)
    return student, teacher, draw < 0.3, (draw > 0.4) & (draw < 0.8)


def gather(maps: torch.Tensor, sample: int, points: torch.Tensor) -> torch.Tensor:
    """Unit vectors (points, C) of one sample, picked by loops."""
    rows = [
        maps[sample, :, i, j] / maps[sample, :, i, j].norm()
        for i in range(4)
        for j in range(4)
        if points[sample, i, j]
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("without", "pairs"), [((), [(0, 1), (2, 3)]), ((1,), [(0, 2), (3, 0)])])
def test_cross_contrast_takes_student_of_one_and_teacher_of_the_other(
    without: tuple[int, ...], pairs: list[tuple[int, int]]
) -> None:
    student, teacher, ones, zeros = features(3)
    for sample in without:
        ones[sample] = zeros[sample] = False
    total = 0.0
    for first, second in pairs:
        for s, t in ((first, second), (second, first)):
            landslide = torch.cat([gather(student, s, ones), gather(teacher, t, ones)])
            background = torch.cat([gather(student, s, zeros), gather(teacher, t, zeros)])
            total += contrast_by_loops(landslide, background, 0.1)
    value = contrast_loss(student, teacher, ones, zeros, 0.1, 16).item()
    assert value == pytest.approx(total / len(pairs), rel=1e-5)  # features enter as float32


def test_contrast_needs_two_different_samples() -> None:
    student, teacher, ones, zeros = features(5, samples=1)
    assert contrast_loss(student, teacher, ones, zeros, 0.1, 16) == 0


def test_reconstruction_is_the_mean_square_at_the_points_summed_over_the_pair() -> None:
    student, teacher, points, _ = features(7, samples=2)
    expected = 0.0
    for sample in range(2):
        squares = [
            float((student[sample, c, i, j] - teacher[sample, c, i, j]) ** 2)
            for i in range(4)
            for j in range(4)
            for c in range(6)
            if points[sample, i, j]
        ]
        expected += sum(squares) / len(squares)
    value = reconstruction_loss(student, teacher, points).item()
    assert value == pytest.approx(expected, rel=1e-6)


def test_samples_without_masked_points_do_not_dilute_the_reconstruction() -> None:
    student, teacher, points, _ = features(9, samples=4)
    points[2:] = False
    both = reconstruction_loss(student, teacher, points)
    assert torch.isclose(both, reconstruction_loss(student[:2], teacher[:2], points[:2]))
    assert reconstruction_loss(student, teacher, points & False) == 0


def test_cross_entropy_is_the_mean_over_seen_pixels() -> None:
    logits = torch.tensor([[[2.0, -1.0, 30.0]]])
    labels = torch.tensor([[[1, 0, 255]]], dtype=torch.uint8)
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    assert cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(logits, torch.full_like(labels, 255)) == 0
