"""Blending: the result is as if the scene had no windows and no edges."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from fakes import Ahead, brightness, write_scene
from hypothesis import example, given
from hypothesis import strategies as st

from landslide_mapper.errors import LsmapFailure
from landslide_mapper.geo.blend import (
    Predictor,
    WindowGrid,
    axis_weights,
    blend,
)
from landslide_mapper.geo.blocks import Layout, stacks
from landslide_mapper.geo.grid import Frame, shifted_starts
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.reading import scene_rows, window_rows
from landslide_mapper.geo.scene import open_scene


def run(
    image: np.ndarray,
    valid: np.ndarray,
    grid: WindowGrid,
    predict: Predictor,
    batch: int = 1,
    frame: Frame | None = None,
    layers: tuple[int, ...] = (),
) -> np.ndarray:
    """Blend what `frame` needs of a uint8 image (h, w); checks that the strips fit together."""

    def read(row: int, col: int, data: np.ndarray, seen: np.ndarray) -> list[Future[None]]:
        part = np.s_[before + row :, before + col :]
        down, across = seen.shape
        seen[:] = around[part][:down, :across]
        data[0] = np.where(seen, padded[part][:down, :across], 0)
        future: Future[None] = Future()
        future.set_result(None)
        return [future]

    before = grid.tile
    padded, around = np.pad(image, before), np.pad(valid, before)
    frame = frame or Frame.whole(*image.shape)
    span = grid.span(frame).whole_batches(batch)
    out = np.full((*layers, *padded.shape), np.nan, np.float32)
    row, left = grid.rows[span.rows.start], span.left
    rows = window_rows(read, 1, span)
    for strip in blend(rows, predict, span, batch, layers=layers):
        assert strip.row == row
        row += len(strip.valid)
        part = np.s_[before + strip.row :, before + left :]
        down, across = strip.valid.shape
        out[(..., *part)][..., :down, :across] = strip.values
        np.testing.assert_array_equal(strip.valid, around[part][:down, :across])
    assert row >= frame.bottom
    out = out[..., before:, before:]
    return out[..., frame.row : frame.bottom, frame.col : frame.right]


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
    out = run(image, valid, grid, lambda windows: 1 - brightness(windows), batch)
    np.testing.assert_allclose(out[valid], 1 - image[valid] / 255, rtol=0, atol=3e-6)
    assert (out[~valid] == 0).all()  # although the predictor is sure there


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    overlap=st.integers(0, 15),
    batch=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_layers_are_blended_as_each_would_be_alone(
    height: int, width: int, overlap: int, batch: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (height, width)).astype(np.uint8)
    valid = rng.random((height, width)) >= 0.3
    grid = WindowGrid(height, width, 16, overlap)
    ramp = np.linspace(0, 1, 16, dtype=np.float32)  # so that an answer depends on its window
    alone: list[Predictor] = [brightness, lambda windows: brightness(windows) * ramp]

    def together(windows: np.ndarray) -> np.ndarray:
        return np.stack([predict(windows) for predict in alone], axis=1)

    out = run(image, valid, grid, together, batch, layers=(2,))
    for layer, predict in zip(out, alone, strict=True):
        np.testing.assert_array_equal(layer, run(image, valid, grid, predict, batch))


@pytest.mark.parametrize("size", [(1, 1), (7, 130), (64, 64), (65, 64), (200, 131)])
def test_a_constant_scene_stays_constant_to_the_corners(size: tuple[int, int]) -> None:
    image = np.full(size, 77, np.uint8)
    out = run(image, np.ones(size, bool), WindowGrid(*size, 64, 16), brightness)
    np.testing.assert_allclose(out, np.float32(77 / 255), rtol=3e-7)


def test_weights_are_positive_and_sum_to_one() -> None:
    for size in (1, 64, 65, 100, 129, 1000):
        for overlap in (0, 1, 16, 40, 63):
            weights = axis_weights(size, 64, overlap)
            total = np.zeros(size)
            for start, weight in zip(shifted_starts(size, 64, overlap), weights, strict=True):
                total[max(start, 0) : start + 64] += weight[max(-start, 0) :][
                    : size - max(start, 0)
                ]
            assert weights.min() > 0
            np.testing.assert_allclose(total, 1, atol=2e-7)
            assert weights[0, 0] == weights[-1, -1] == 1  # no ramp along the scene's own edge
    left, right = axis_weights(12, 8, 4)  # by the centres of pixels, the same from both sides
    np.testing.assert_allclose(left, [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125])
    np.testing.assert_allclose(right, left[::-1])


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


@pytest.mark.parametrize("col", [0, 47, 48, 63, 64, 95, 111])
def test_a_single_valid_column_is_predicted_in_every_window_that_sees_it(col: int) -> None:
    """A window's first and last columns count as well."""
    image = np.full((64, 112), 200, np.uint8)
    valid = np.zeros(image.shape, bool)
    valid[:, col] = True
    out = run(image, valid, WindowGrid(64, 112, 64, 16), brightness)
    np.testing.assert_allclose(out[valid], 200 / 255, atol=1e-6)


def test_batches_are_nearly_equal_and_reach_over_rows_of_few_windows() -> None:
    sizes: list[int] = []

    def note_size(windows: np.ndarray) -> np.ndarray:
        sizes.append(len(windows))
        return brightness(windows)

    image = np.full((200, 100), 5, np.uint8)
    grid = WindowGrid(200, 100, 64, 16)  # 4 rows of 2 windows
    run(image, np.ones(image.shape, bool), grid, note_size, batch=4)
    assert sizes == [4, 4]
    image = np.full((64, 400), 5, np.uint8)
    grid = WindowGrid(64, 400, 64, 16)  # 1 row of 8 windows
    run(image, np.ones(image.shape, bool), grid, note_size, batch=5)
    assert sizes[2:] == [4, 4]


def batch_dependent(windows: np.ndarray) -> np.ndarray:
    """Like a network on a GPU: the last bits depend on how many windows are in the batch."""
    answer = brightness(windows) * 0.9
    answer += np.float32(1e-6) * len(windows) + np.float32(1e-3) * windows.mean() / 255
    return answer


@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    tile=st.sampled_from([8, 16, 24]),
    overlap=st.integers(0, 23),
    batch=st.integers(1, 9),
    max_width=st.integers(8, 100),
    max_pixels=st.integers(100, 9000),
    nodata=st.sampled_from([0.0, 0.9, 0.999]),
    seed=st.integers(0, 99),
)
@example((150, 20), 8, 2, 9, 100, 400, 0.0, 0)  # a batch has three rows of windows
def test_blocks_give_the_whole_bit_by_bit(
    size: tuple[int, int],
    tile: int,
    overlap: int,
    batch: int,
    max_width: int,
    max_pixels: int,
    nodata: float,
    seed: int,
) -> None:
    """Whatever the blocks, for a predictor whose answer depends on its batch."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, size).astype(np.uint8)
    valid = rng.random(size) >= nodata
    grid = WindowGrid(*size, tile, min(overlap, tile - 1))
    layout = Layout(grid, Frame.whole(*size), max_width, max_pixels)
    assert sum(block.frame.height * block.frame.width for block in layout) == image.size
    for column in range(layout.columns):
        # Batches are those of a column: this is the result that its blocks must give.
        first, last = layout.block(0, column).frame, layout.block(layout.bands - 1, column).frame
        frame = Frame(0, first.col, last.bottom, first.width)
        whole = run(image, valid, grid, batch_dependent, batch, frame)
        for band in range(layout.bands):
            block = layout.block(band, column).frame
            part = run(image, valid, grid, batch_dependent, batch, block)
            np.testing.assert_array_equal(part, whole[block.row : block.bottom])
            ahead = run(image, valid, grid, Ahead(), batch, block)
            np.testing.assert_array_equal(ahead, run(image, valid, grid, brightness, batch, block))


def test_blocks_cover_a_frame_within_their_limits() -> None:
    grid = WindowGrid(60000, 30000, 256, 64)
    frame = Frame(1000, 500, 50000, 25000)
    layout = Layout(grid, frame)
    assert (layout.cols[0], layout.cols[-1]) == (500, 25500)
    assert (layout.rows[0], layout.rows[-1]) == (1000, 51000)
    for block in layout:
        assert block.frame.width <= layout.max_width
        assert block.frame.height * block.frame.width <= layout.max_pixels
        assert block.inner == (
            block.frame.row > 1000,
            block.frame.bottom < 51000,
            block.frame.col > 500,
            block.frame.right < 25500,
        )
    # One column costs the windows that it shares with the column before.
    windows = len(layout.grid.span(layout.block(0, 1).frame).cols)
    assert windows <= layout.block(0, 1).frame.width / 192 + 2


@pytest.mark.parametrize("side", [2048, 3072, 4096, 8192, 16384])
def test_several_bands_can_be_shared_by_four(side: int) -> None:
    layout = Layout(WindowGrid(side, side, 256, 64), Frame.whole(side, side))
    assert layout.bands == 1 if side == 2048 else layout.bands % 4 == 0
    heights = [layout.block(band, 0).frame.height for band in range(layout.bands)]
    assert max(heights) <= min(heights) + 192


def test_runs_are_blocks_below_each_other() -> None:
    layout = Layout(WindowGrid(1000, 1000, 64, 0), Frame.whole(1000, 1000), 300, 90000)
    blocks = [block for block in layout if (block.band, block.column) != (2, 1)]
    found = [[(block.column, block.band) for block in stack] for stack in stacks(blocks)]
    bands = list(range(layout.bands))
    assert found[0] == [(0, band) for band in bands]
    assert found[1:3] == [[(1, 0), (1, 1)], [(1, band) for band in bands[3:]]]


def test_an_answer_that_is_no_number_is_an_error() -> None:
    """Compared with a threshold it would be background."""

    def odd(windows: np.ndarray) -> np.ndarray:
        return np.where(windows[:, 0] == 7, np.nan, 0.5).astype(np.float32)

    image = np.ones((40, 40), np.uint8)
    image[33, 2] = 7
    with pytest.raises(LsmapFailure, match="NaN"):
        run(image, image > 0, WindowGrid(40, 40, 16, 4), odd)


def test_each_pixel_of_a_scene_is_read_with_its_stretch(tmp_path: Path) -> None:
    band = np.random.default_rng(3).integers(0, 5000, (150, 2900)).astype(np.uint16)
    path = write_scene(tmp_path / "a.tif", band, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    scene = open_scene(path)
    radiometry = fit(scene, "percentile")
    grid = WindowGrid(150, 2900, 64, 16)
    span = grid.span(Frame(0, 70, 150, 2800))
    strips = list(blend(scene_rows(scene, radiometry, span), brightness, span))
    out = np.concatenate([strip.values for strip in strips])
    expected = radiometry.apply(np.stack([band] * 3), band > 0)[0] / 255
    inside = out[:, 70 - span.left :][:, :2800]
    np.testing.assert_allclose(inside, expected[:, 70:2870], atol=1e-6)


def test_readers_hand_on_errors_and_end_their_threads(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", np.full((900, 700), 9, np.uint8))
    scene = open_scene(path)
    grid = WindowGrid(900, 700, 64, 16)
    span = grid.span(Frame.whole(900, 700))
    with closing(scene_rows(scene, fit(scene, "none"), span)) as rows:
        next(rows)
    assert not [t for t in threading.enumerate() if t.name.startswith("lsmap-reader")]
    rows = scene_rows(scene, fit(scene, "none"), span)
    Path(path).write_bytes(Path(path).read_bytes()[:100_000])
    with pytest.raises(LsmapFailure, match="cannot be read"):
        list(rows)
    assert not [t for t in threading.enumerate() if t.name.startswith("lsmap-reader")]
