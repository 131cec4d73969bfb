"""Blending: the result is as if the scene had no windows and no edges."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import brightness, write_scene
from hypothesis import given
from hypothesis import strategies as st

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.blend import (
    Predictor,
    WindowGrid,
    average_symmetries,
    axis_weights,
    blend,
    prefetch,
    scene_rows,
    window_rows,
)
from landslide_mapper.geo.grid import shifted_starts
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.scene import open_scene


def run(
    image: np.ndarray, valid: np.ndarray, grid: WindowGrid, predict: Predictor, batch: int = 1
) -> np.ndarray:
    """Blend a whole uint8 image (h, w) held in memory; checks that the strips fit together."""

    def read(row: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        data = np.zeros((1, height, width), np.uint8)
        seen = np.zeros((height, width), bool)
        part = image[row : row + height]
        data[0, : len(part), : image.shape[1]] = part
        seen[: len(part), : image.shape[1]] = valid[row : row + height]
        data[:, ~seen] = 0
        return data, seen

    out = np.full(image.shape, np.nan, np.float32)
    row = 0
    for strip in blend(window_rows(read, grid), predict, grid, batch):
        assert strip.row == row
        row += len(strip.probability)
        out[strip.row : row] = strip.probability
        np.testing.assert_array_equal(strip.valid, valid[strip.row : row])
    assert row == len(image)
    return out


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    tile=st.sampled_from([8, 16, 24]),
    overlap=st.integers(0, 23),
    batch=st.integers(1, 9),
    nodata=st.sampled_from([0.0, 0.3, 0.99]),
    seed=st.integers(0, 9),
)
def test_per_pixel_predictor_gives_the_function_at_every_valid_pixel(
    height: int, width: int, tile: int, overlap: int, batch: int, nodata: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (height, width)).astype(np.uint8)
    valid = rng.random((height, width)) >= nodata
    grid = WindowGrid(height, width, tile, min(overlap, tile - 1))
    out = run(image, valid, grid, brightness, batch)
    np.testing.assert_allclose(out[valid], image[valid] / 255, rtol=0, atol=3e-6)
    assert (out[~valid] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (64, 64), (65, 64), (200, 131)])
def test_a_constant_scene_stays_constant_to_the_corners(size: tuple[int, int]) -> None:
    image = np.full(size, 77, np.uint8)
    out = run(image, np.ones(size, bool), WindowGrid(*size, 64, 16), brightness)
    np.testing.assert_allclose(out, np.float32(77 / 255), rtol=3e-7)


def test_weights_are_positive_and_sum_to_one() -> None:
    for size in (1, 64, 65, 100, 129, 1000):
        for overlap in (0, 1, 16, 40, 63):
            weights = axis_weights(size, 64, overlap)
            total = np.zeros(max(size, 64))
            for start, weight in zip(shifted_starts(size, 64, overlap), weights, strict=True):
                total[start : start + 64] += weight
            assert weights.min() > 0
            np.testing.assert_allclose(total, 1, atol=2e-7)
            assert weights[0, 0] == weights[-1, -1] == 1  # no ramp along the scene's own edge


def test_a_wrong_window_edge_weighs_less_than_the_centre_of_its_neighbour() -> None:
    """Blending is there to hide what a network gets wrong at its window's edges."""

    def wrong_at_edges(windows: np.ndarray) -> np.ndarray:
        answer = np.zeros((len(windows), 64, 64), np.float32)
        answer[:, :, :4] = answer[:, :, -4:] = 1
        return answer

    size = (64, 112)
    image = np.full(size, 9, np.uint8)
    out = run(image, np.ones(size, bool), WindowGrid(*size, 64, 16), wrong_at_edges)
    assert out[:, 4:-4].max() < 0.25


def test_windows_without_valid_pixels_are_not_predicted() -> None:
    image = np.full((256, 256), 200, np.uint8)
    valid = np.zeros((256, 256), bool)
    valid[:40, :40] = True
    seen = 0

    def count(windows: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += len(windows)
        return brightness(windows)

    out = run(image, valid, WindowGrid(256, 256, 64, 16), count, batch=4)
    assert seen == 1
    np.testing.assert_allclose(out[valid], 200 / 255, atol=1e-6)


def test_batches_may_reach_over_rows_of_windows() -> None:
    sizes: list[int] = []

    def note_size(windows: np.ndarray) -> np.ndarray:
        sizes.append(len(windows))
        return brightness(windows)

    image = np.full((200, 100), 5, np.uint8)
    grid = WindowGrid(200, 100, 64, 16)
    run(image, np.ones(image.shape, bool), grid, note_size, batch=4)
    assert sizes == [4, 4]
    assert grid.count == 8


def test_symmetries_are_undone_before_the_mean() -> None:
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    np.testing.assert_allclose(average_symmetries(brightness)(windows), brightness(windows), 1e-6)

    def left_half(batch: np.ndarray) -> np.ndarray:
        answer = np.zeros((len(batch), 16, 16), np.float32)
        answer[:, :, :8] = 1
        return answer

    np.testing.assert_allclose(average_symmetries(left_half)(windows), 0.5)


def test_each_pixel_of_a_scene_is_read_with_its_stretch(tmp_path: Path) -> None:
    band = np.random.default_rng(3).integers(0, 5000, (150, 90)).astype(np.uint16)
    scene = open_scene(write_scene(tmp_path / "a.tif", band, nodata=0))
    radiometry = fit(scene, "percentile")
    grid = WindowGrid(150, 90, 64, 16)
    strips = list(blend(scene_rows(scene, radiometry, grid), brightness, grid))
    out = np.concatenate([strip.probability for strip in strips])
    expected = radiometry.apply(np.stack([band] * 3), band > 0)[0] / 255
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_prefetch_hands_on_errors_and_ends_its_thread() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LsmapError("gone")

    items = prefetch(broken)
    assert next(items) == 1
    with pytest.raises(LsmapError, match="gone"):
        next(items)

    endless = prefetch(lambda: iter(int, 1))
    next(endless)
    endless.close()
    assert not [t for t in threading.enumerate() if t.name == "lsmap-reader"]
