"""Rasters and canvases: what is burnt into polygons, parts of scenes, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from fakes import UTM, blobs, grey, write_scene
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from shapely.geometry import shape

from landslide_mapper.geo import cover, rasters
from landslide_mapper.geo.cover import covered
from landslide_mapper.geo.grid import Frame
from landslide_mapper.geo.overlay import Overlay
from landslide_mapper.geo.rasters import UNSEEN, ArrayCanvas, StripRaster
from landslide_mapper.geo.scene import open_scene


def outlines(mask: np.ndarray, row: int = 0, col: int = 0) -> np.ndarray:
    """The landslides of `mask`, whose first pixel is at `row`, `col`, as pixel-edge polygons."""
    found = [shape(geometry) for geometry, _ in shapes(mask.astype(np.uint8), mask=mask)]
    place = np.array([col, row])
    return shapely.transform(np.array(found, dtype=object), lambda points: points + place)


@given(seed=st.integers(0, 999), portion=st.sampled_from([1, 30, 10**6]))
def test_covered_pixels_are_those_that_gdal_burns(seed: int, portion: int) -> None:
    mask = blobs(seed, (40, 50), 0.5, seed % 3)
    polygons = outlines(mask)
    found = np.zeros(mask.shape, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cover, "_PIXELS", portion)
        patch.setattr(cover, "_POINTS", portion)
        for owner, row, col in covered(polygons):
            assert (found[row, col] == 0).all()
            found[row, col] = owner + 1
    pairs = [(polygon, index + 1) for index, polygon in enumerate(polygons)]
    np.testing.assert_array_equal(found, rasterize(pairs, out_shape=mask.shape))


def test_no_polygons_cover_nothing() -> None:
    assert list(covered(np.empty(0, dtype=object))) == []


@pytest.mark.parametrize("seed", range(5))
def test_both_canvases_say_and_keep_the_same(tmp_path: Path, seed: int) -> None:
    frame = Frame(100, 1000, 1100, 700)
    scene = open_scene(write_scene(tmp_path / "scene.tif", np.ones((1300, 1800), np.uint8)))
    random = np.random.default_rng(seed)
    values = random.choice(np.array([0, 1, 255], np.uint8), (1100, 700), p=[0.98, 0.01, 0.01])
    polygons = outlines(blobs(seed, (1100, 700), 0.5, 8), frame.row, frame.col)
    memory = ArrayCanvas(values.copy(), frame.row, frame.col)
    path = tmp_path / "strips.tif"
    with StripRaster(path, scene, frame) as disk:
        disk.write(frame.row, frame.col, values)
        held = memory.holds(polygons, (1, 255))
        np.testing.assert_array_equal(disk.holds(polygons, (1, 255)), held)
        assert 0 < held.sum() < len(polygons)
        for canvas in (memory, disk):
            canvas.burn(polygons[::2], 7)
    with rasterio.open(path) as raster:
        assert raster.transform == frame.transform(UTM)
        np.testing.assert_array_equal(raster.read(1), memory.values)
    burnt = rasterize(
        polygons[::2], transform=frame.transform(rasterio.Affine.identity()), out_shape=values.shape
    ).astype(bool)
    np.testing.assert_array_equal(memory.values, np.where(burnt & (values != 255), 7, values))


@pytest.mark.parametrize("col", [8, 16, 20])  # left of, at and right of the outer one's middle
@pytest.mark.parametrize("inner_first", [False, True])
def test_of_polygons_within_each_other_the_inner_one_is_asked(
    tmp_path: Path, col: int, inner_first: bool
) -> None:
    """A hole in a landslide that lies in the hole of another one, whatever the order."""
    frame = Frame.whole(40, 40)
    scene = open_scene(write_scene(tmp_path / "scene.tif", np.ones((40, 40), np.uint8)))
    holes = [shapely.box(2, 2, 34, 34), shapely.box(col, 8, col + 6, 14)]
    polygons = np.array(holes[::-1] if inner_first else holes)
    values = np.zeros((40, 40), np.uint8)
    values[10, col + 1] = 255
    with StripRaster(tmp_path / "strips.tif", scene, frame) as disk:
        disk.write(0, 0, values)
        assert disk.holds(polygons, (255,)).tolist() == [inner_first, not inner_first]


def test_what_was_never_written_was_not_seen(tmp_path: Path) -> None:
    scene = open_scene(write_scene(tmp_path / "scene.tif", np.ones((900, 1000), np.uint8)))
    frame = Frame(50, 60, 800, 900)
    expected = np.full((900, 1000), UNSEEN, np.uint8)
    path = tmp_path / "strips.tif"
    with StripRaster(path, scene, frame) as raster:
        for row, col, height, width in ((0, 0, 100, 70), (700, 200, 200, 800), (10, 10, 5, 5)):
            values = np.random.default_rng(row).integers(0, 2, (height, width)).astype(np.uint8)
            raster.write(row, col, values)
            expected[row : row + height, col : col + width] = values
    rasters.finish_mask(path, tmp_path / "mask.tif", {})
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.transform == frame.transform(UTM)
        np.testing.assert_array_equal(mask.read(1), expected[50:850, 60:960])


def test_the_same_values_are_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the blocks they came in."""
    scene = open_scene(write_scene(tmp_path / "scene.tif", np.ones((1200, 1100), np.uint8)))
    values = np.random.default_rng(0).integers(0, 101, (1200, 1100)).astype(np.uint8)
    found = []
    for height, width in ((1200, 1100), (130, 1100), (700, 300)):
        strips = tmp_path / f"{height}.tif"
        with StripRaster(strips, scene, Frame.whole(1200, 1100)) as raster:
            for row in range(0, 1200, height):
                for col in range(0, 1100, width):
                    raster.write(row, col, values[row : row + height, col : col + width])
        for finish in (rasters.finish_mask, rasters.finish_probability):
            finish(strips, tmp_path / "cog.tif", {})
            found.append((tmp_path / "cog.tif").read_bytes())
    assert len(set(found)) == 2


def test_the_picture_shows_the_frame_and_the_outlines_in_it(tmp_path: Path) -> None:
    band = grey(blobs(1, (300, 400)))
    band[:120] = 0
    scene = open_scene(write_scene(tmp_path / "scene.tif", band, nodata=0))
    overlay = Overlay(scene, Frame(100, 50, 150, 200))
    overlay.draw(np.array([shapely.box(100, 150, 180, 220)]))
    overlay.draw(np.empty(0, dtype=object))
    overlay.save(tmp_path / "picture.png", {})
    with rasterio.open(tmp_path / "picture.png") as picture:
        red, green, _, alpha = picture.read()
    assert red.shape == (150, 200)
    line = (red == 227) & (green == 59)
    expected = np.zeros(line.shape, bool)
    expected[50:121, 50:131] = True
    expected[51:120, 51:130] = False
    grown = np.zeros(line.shape, bool)
    rows, cols = np.nonzero(expected)
    for row in (-1, 0, 1):
        for col in (-1, 0, 1):
            grown[rows + row, cols + col] = True
    np.testing.assert_array_equal(line, grown)
    assert (alpha[:20] == 0).all()
    assert (alpha[20:] == 255).all()
