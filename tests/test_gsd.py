"""Scenes at another pixel size than their file's: values, validity, place, and which size it is."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from click.testing import CliRunner
from fakes import burnt, detect_brightness, model_info, write_scene
from fakes import read as read_layer
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import MaskFlags, Resampling
from rasterio.features import shapes
from test_scene import write

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.cli import main
from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import scene_reader
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.radiometry import fit
from landslide_mapper.geo.resample import axis_taps, resample
from landslide_mapper.geo.scene import Scene, at_pixel_size, open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.plan import plan_detection
from landslide_mapper.prepare import prepare

NEAR_EQUATOR = Affine(9e-6, 0.0, 9.0, 0.0, -9e-6, 0.001)  # degrees, about a metre


def read(scene: Scene, *window: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    with SceneReader(scene) as reader:
        return reader.read(*(window or (0, 0, scene.height, scene.width)), **options)


def write_kind(path: Path, pixels: np.ndarray, holes: np.ndarray, kind: str) -> str:
    """Pixels (3, H, W) of 1 m with `holes` (H, W), declared in the way that `kind` names."""
    utm = Affine(1, 0, 500000, 0, -1, 4000000)
    if kind == "nodata":
        pixels = np.where(holes, 0, pixels).astype(pixels.dtype)
        return write(path, pixels, transform=utm, nodata=0)
    if kind == "alpha":
        alpha = np.where(holes, 0, 3).astype(pixels.dtype)  # hardly seen is seen
        four = np.concatenate([pixels, alpha[None]])
        return write(path, four, transform=utm, photometric="RGB", alpha="yes")
    if kind == "nan":
        return write(path, np.where(holes, np.nan, pixels).astype(np.float32), transform=utm)
    name = write(path, pixels, transform=utm)
    if kind == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(name, "r+") as raster:
            raster.write_mask(~holes)
    return name


@st.composite
def windows(draw: st.DrawFn, scene: Scene) -> tuple[int, int, int, int]:
    row = draw(st.integers(-5, scene.height))
    col = draw(st.integers(-5, scene.width))
    height, width = draw(st.integers(1, scene.height + 6)), draw(st.integers(1, scene.width + 6))
    return row, col, height, width


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    metres=st.sampled_from([0.3, 0.5, 0.77, 1.3, 2.0, 2.51, 4.0, 7.7, 40.0]),
    kind=st.sampled_from(["plain", "nodata", "alpha", "mask", "nan"]),
    dtype=st.sampled_from(["uint8", "uint16"]),
    overviews=st.booleans(),
    data=st.data(),
)
def test_a_pixel_does_not_depend_on_the_window_it_is_read_through(
    size: tuple[int, int],
    metres: float,
    kind: str,
    dtype: str,
    overviews: bool,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = rng.integers(1, 255, (3, *size)).astype(dtype)
    holes = rng.random((1 + size[0] // 9, 1 + size[1] // 9)) < 0.3
    holes = holes.repeat(9, axis=0).repeat(9, axis=1)[: size[0], : size[1]]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write_kind(Path(folder) / "s.tif", pixels, holes, kind)
        if overviews and min(size) > 4:
            with rasterio.open(path, "r+") as raster:
                raster.build_overviews([2, 4], Resampling.average)
        scene = at_pixel_size(open_scene(path), metres)
        whole, valid = read(scene)
        beyond = ((5, scene.height + 6), (5, scene.width + 6))
        around, inside = np.pad(whole, ((0, 0), *beyond)), np.pad(valid, beyond)
        patch.setattr(scene_reader, "PIECE", 16)
        for _ in range(3):
            row, col, height, width = data.draw(windows(scene))
            part, seen = read(scene, row, col, height, width)
            assert part.shape[1:] == seen.shape == (height, width)
            place = (slice(row + 5, row + 5 + height), slice(col + 5, col + 5 + width))
            assert (part == around[:, *place]).all()
            assert (seen == inside[place]).all()
            assert not part[:, ~seen].any()


@pytest.mark.parametrize(
    ("kind", "dtype"), [("nodata", "uint8"), ("alpha", "uint16"), ("mask", "uint8")]
)
def test_larger_pixels_are_means_of_valid_pixels(tmp_path: Path, kind: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, 40, 60)).astype(dtype)
    holes = np.zeros((40, 60), bool)
    holes[:4, :5] = True  # more than half of the first working pixel
    holes[4:7, 5:8] = True  # less than half of the next one on the diagonal
    path = write_kind(tmp_path / "s.tif", pixels, holes, kind)
    scene = at_pixel_size(open_scene(path), 5.0)
    assert (scene.height, scene.width) == (8, 12)
    data, valid = read(scene)
    known = np.where(holes, 0, pixels).reshape(3, 8, 5, 12, 5).sum(axis=(2, 4), dtype=float)
    count = (~holes).reshape(8, 5, 12, 5).sum(axis=(1, 3))
    assert (valid == (count >= 12.5)).all()
    assert not valid[0, 0]
    assert valid.sum() == 95
    mean = known[:, valid] / count[valid]
    assert np.abs(data[:, valid] - mean).max() <= 0.5 + 0.8  # weights are 256ths


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_means_begin_at_the_pixel_size_and_are_rounded_half_up(dtype: str) -> None:
    one = axis_taps(np.array([0.0, 1.0]), 1, 1.0)

    def shrunk(values: list[int], edges: list[float]) -> list[float]:
        taps = axis_taps(np.array(edges), len(values), edges[1] - edges[0])
        found, _ = resample(np.array([[values]], dtype), None, one, taps)
        return found.ravel().tolist()

    whole = dtype != "float32"
    assert shrunk([1, 2, 4, 5], [0, 2, 4]) == ([2, 5] if whole else [1.5, 4.5])
    found = shrunk([10, 21, 40], [0, 1.5, 3])  # a third of each from the pixel in the middle
    assert found == pytest.approx([14, 34] if whole else [41 / 3, 101 / 3], rel=2e-3)


def test_smaller_pixels_are_bilinear(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(30.0), 2 * np.arange(40.0))[None].astype(np.float32)
    transform = Affine(1, 0, 500000, 0, -1, 4000000)
    path = write(tmp_path / "s.tif", ramp, transform=transform)
    scene = at_pixel_size(open_scene(path), 0.25)
    assert scene.gsd == pytest.approx((0.25, 0.25), rel=1e-3)
    data, valid = read(scene)
    assert valid.all()
    rows, cols = (np.arange(n) / 4 + 0.125 - 0.5 for n in (120, 160))
    expected = np.add.outer(rows.clip(0, 29), 2 * cols.clip(0, 39))
    np.testing.assert_allclose(data[0], expected, atol=1e-4)


def test_overviews_are_used_and_nothing_but_what_they_hold(tmp_path: Path) -> None:
    pixels = np.full((3, 512, 512), 100, np.uint8)
    path = write_kind(tmp_path / "s.tif", pixels, np.zeros((512, 512), bool), "plain")
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8, 16], Resampling.average)
        raster.write(np.full_like(pixels, 30))  # the overviews stay
    for metres, expected in ((1.0, 30), (1.5, 30), (4.0, 100), (10.0, 100), (0.5, 30)):
        data, _ = read(at_pixel_size(open_scene(path), metres))
        assert (data == expected).all()
        single, _ = read(at_pixel_size(open_scene(path), metres), nearest=True)
        assert (single == 30).all()


def test_overviews_of_odd_sizes_move_nothing(tmp_path: Path) -> None:
    """126 pixels of an overview span the 1001 of the file, not 1008."""
    cols, rows = np.meshgrid(np.arange(1001.0), np.arange(301.0))
    pixels = np.stack([cols, rows]).astype(np.float32)
    path = write(tmp_path / "s.tif", pixels, transform=Affine(1, 0, 500000, 0, -1, 4000000))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([8], Resampling.average)
    scene = at_pixel_size(open_scene(path), 8.0)
    data, valid = read(scene)
    inner = np.s_[: scene.height - 1, : scene.width - 1]
    assert valid[inner].all()
    for band, axis in ((0, 1), (1, 0)):
        centres = (np.arange(scene.height if axis == 0 else scene.width) + 0.5) * 8 - 0.5
        expected = np.broadcast_to(centres[:, None] if axis == 0 else centres, valid.shape)
        assert np.abs(data[band][inner] - expected[inner]).max() < 1


def test_half_of_the_source_is_enough(tmp_path: Path) -> None:
    holes = np.zeros((8, 8), bool)
    holes[:, ::2] = True
    holes[:2, 1] = True
    path = write_kind(tmp_path / "s.tif", np.full((3, 8, 8), 9, np.uint8), holes, "nodata")
    data, valid = read(at_pixel_size(open_scene(path), 2.0))
    assert not valid[0, 0]
    assert valid.sum() == 15
    assert (data[:, valid] == 9).all()


def test_an_overview_is_as_fine_as_the_finer_side_of_a_pixel(tmp_path: Path) -> None:
    """Pixels that are twice as high as wide, and rows that the second overview would mix."""
    rows = np.tile(np.array([10, 10, 200, 200], np.uint8), 64)
    pixels = np.broadcast_to(rows[:, None], (3, 256, 512))
    path = write(tmp_path / "s.tif", pixels, transform=Affine(0.5, 0, 500000, 0, -1, 4000000))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4], Resampling.average)
    scene = at_pixel_size(open_scene(path), 2.0)
    assert scene.step == (4, 2)
    data, _ = read(scene)
    assert (data == rows[::2, None]).all()


def test_overviews_that_only_some_bands_have_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", np.full((3, 512, 512), 30, np.uint8))
    small = write(tmp_path / "small.tif", np.full((1, 256, 256), 100, np.uint8))
    overview = (
        f'<Overview><SourceFilename relativeToVRT="0">{small}</SourceFilename>'
        "<SourceBand>1</SourceBand></Overview></VRTRasterBand>"
    )
    vrt = tmp_path / "s.vrt"
    vrt.write_text(stack([path]).replace("</VRTRasterBand>", overview, 1))
    with rasterio.open(vrt) as raster:
        assert [raster.overviews(band) for band in raster.indexes] == [[2], [], []]
    data, valid = read(at_pixel_size(open_scene(str(vrt)), 4.0))
    assert valid.all()
    assert (data == 30).all()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("beside", ["", "mask", "overviews"])
def test_a_mask_counts_whether_it_was_made_before_the_overviews_or_after(
    tmp_path: Path, beside: str, late: bool
) -> None:
    """In the file, beside it, and beside overviews that have none: where theirs lacks, the file's
    own pixels are read."""
    path = write(tmp_path / "s.tif", np.full((3, 512, 512), 100, np.uint8))
    seen = np.zeros((512, 512), bool)
    seen[:, 256:] = True
    places = {"GDAL_TIFF_INTERNAL_MASK": beside != "mask", "TIFF_USE_OVR": beside == "overviews"}
    with rasterio.Env(**places):
        for step in ("overviews", "mask") if late else ("mask", "overviews"):
            with rasterio.open(path, "r+") as raster:
                if step == "mask":
                    raster.write_mask(seen)
                else:
                    raster.build_overviews([2, 4], Resampling.average)
    with rasterio.open(path, "r+") as raster:
        raster.write(np.full((3, 512, 512), 30, np.uint8))  # the overviews stay
    assert (tmp_path / "s.tif.msk").exists() == (beside == "mask")
    if beside == "overviews":
        os.utime(f"{path}.ovr")
    data, valid = read(at_pixel_size(open_scene(path), 8.0))
    assert np.array_equal(valid, seen[::4, ::4])
    assert (data[:, valid] == (30 if late or beside == "overviews" else 100)).all()


def test_overviews_of_a_mosaic_that_do_not_know_its_mask_are_left_alone(tmp_path: Path) -> None:
    holes = np.zeros((256, 256), bool)
    holes[:, :128] = True
    path = write_kind(tmp_path / "s.tif", np.full((3, 256, 256), 9, np.uint8), holes, "mask")
    mosaic = str(tmp_path / "mosaic.vrt")
    rasterio.shutil.copy(path, mosaic, driver="VRT")
    with rasterio.open(mosaic) as raster:
        assert raster.mask_flag_enums[0] == [MaskFlags.per_dataset]
    with rasterio.Env(VRT_VIRTUAL_OVERVIEWS="NO"), rasterio.open(mosaic, "r+") as raster:
        raster.build_overviews([2, 4], Resampling.average)
    assert Path(f"{mosaic}.ovr").exists()
    os.utime(f"{mosaic}.ovr")
    _, valid = read(at_pixel_size(open_scene(mosaic), 4.0))
    assert np.array_equal(valid, ~holes[::4, ::4])


def test_pixels_at_the_far_edges_are_those_that_are_half_inside(tmp_path: Path) -> None:
    pixels = np.full((3, 13, 17), 9, np.uint8)
    scene = open_scene(write_kind(tmp_path / "s.tif", pixels, np.zeros((13, 17), bool), "plain"))
    working = at_pixel_size(scene, 5.0)
    assert (working.height, working.width) == (3, 3)  # 2.6 and 3.4 of them
    data, valid = read(working)
    assert valid.all()
    assert (data == 9).all()
    tiny = at_pixel_size(scene, 100.0)
    assert (tiny.height, tiny.width) == (1, 1)
    assert read(tiny)[1].all()


def test_working_scenes_know_where_they_are(tmp_path: Path) -> None:
    pixels = np.ones((3, 100, 200), np.uint8)
    path = write(tmp_path / "s.tif", pixels, crs="EPSG:4326", transform=NEAR_EQUATOR)
    scene = open_scene(path)
    working = at_pixel_size(scene, 3.2)
    assert working.native == scene
    assert working.gsd == pytest.approx((3.2, 3.2))
    assert working.transform * (0, 0) == scene.transform * (0, 0)
    far = working.transform * (working.width, working.height)
    assert far == pytest.approx(scene.transform * (200, 100), abs=working.transform.a / 2)
    measured = working.pixel_size(working.height / 2, working.width / 2)
    assert measured == pytest.approx((3.2, 3.2), rel=1e-4)
    assert at_pixel_size(working, 1.0) == scene
    assert fit(working, "equalize") == fit(scene, "equalize")


def test_decimating_a_working_scene_looks_like_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 240, 320)).astype(np.uint8)
    scene = open_scene(write_kind(tmp_path / "s.tif", pixels, np.zeros((240, 320), bool), "plain"))
    working = at_pixel_size(scene, 2.0)
    data, valid = read(working, 0, 0, 120, 160, out_shape=(30, 40))
    assert valid.all()
    mean = pixels.reshape(3, 30, 8, 40, 8).mean(axis=(2, 4))
    assert np.abs(data - mean).max() <= 0.51
    single, valid = read(working, 0, 0, 120, 160, out_shape=(30, 40), nearest=True)
    assert (single == pixels[:, 4::8, 4::8]).all()


RADIUS = 14.0


def disc(gsd: float, right: float, down: float) -> np.ndarray:
    """A bright disc on dark ground, each pixel by the share of it that is covered."""
    side = int(40 / gsd)
    fine = 10 if gsd > 0.2 else 2
    place = (np.arange(side * fine) + 0.5) * gsd / fine
    inside = np.hypot(place[None, :] - right, place[:, None] - down) <= RADIUS
    share = inside.reshape(side, fine, side, fine).mean(axis=(1, 3))
    return np.rint(40 + 160 * share).astype(np.uint8)


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize("gsd", [0.05, 0.3, 0.5, 0.71, 2.0])
def test_a_disc_is_found_in_its_place_and_size(tmp_path: Path, gsd: float, overviews: bool) -> None:
    right, down = 19.3, 20.9
    transform = Affine(gsd, 0, 500000, 0, -gsd, 4000000)
    path = write_scene(tmp_path / "s.tif", disc(gsd, right, down), transform=transform)
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4, 8], Resampling.average)
    scene = at_pixel_size(open_scene(path), 0.5)
    data, _ = read(scene)
    found = shapes((data[0] >= 120).astype(np.uint8), transform=scene.transform)
    (polygon,) = [shapely.geometry.shape(geometry) for geometry, value in found if value]
    assert polygon.centroid.x - 500000 == pytest.approx(right, abs=0.25)
    assert 4000000 - polygon.centroid.y == pytest.approx(down, abs=0.25)
    assert polygon.area == pytest.approx(np.pi * RADIUS**2, rel=0.03)


@pytest.mark.parametrize("gsd", [0.05, 0.5, 2.0])
def test_one_model_maps_drone_and_satellite(tmp_path: Path, gsd: float) -> None:
    right, down = 19.3, 20.9
    transform = Affine(gsd, 0, 500000, 0, -gsd, 4000000)
    path = write_scene(tmp_path / "s.tif", disc(gsd, right, down), transform=transform)
    output, mask = tmp_path / "slides.gpkg", tmp_path / "mask.tif"
    detect_brightness(path, output, model_info(threshold=120 / 255), mask=mask, simplify=0.0)
    (polygon,) = read_layer(output).geometry
    assert polygon.centroid.x - 500000 == pytest.approx(right, abs=0.25)
    assert 4000000 - polygon.centroid.y == pytest.approx(down, abs=0.25)
    assert polygon.area == pytest.approx(np.pi * RADIUS**2, rel=0.03)
    with rasterio.open(mask) as raster:
        assert raster.shape == (80, 80)
        assert raster.crs.to_epsg() == 32648
        assert (raster.transform.c, raster.transform.f) == (500000, 4000000)
        assert raster.transform.a == pytest.approx(0.5, rel=2e-3)
        assert ((raster.read(1) == 1) == burnt(read_layer(output), mask)).all()


def plan(path: str, folder: Path, info: ModelInfo, **options: Any) -> Scene:
    (found,) = plan_detection(DetectConfig((path,), folder / "out.gpkg", **options), info)
    assert found.grid.height == found.scene.height == found.frame.height
    return found.scene


@pytest.mark.parametrize(
    ("model", "gsd", "factor", "says"),
    [
        (0.5, None, 1, None),
        (0.7, None, 1, None),  # near enough
        (1.0, None, 2, "pixels are 0.5 m, the model was trained at 1 m; the scene is read at"),
        (0.25, None, 0.5, "--gsd native keeps its pixels"),
        (0.05, None, 1, "they stay as they are, so expect little"),
        (0.05, "model", 0.1, None),
        (1.0, "native", 1, None),
        (0.7, "model", 1.4, None),
        (0.5, 5.0, 10, None),
        (None, None, 1, None),
        (None, 1.0, 2, None),
    ],
)
def test_which_pixel_size_is_worked_at(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: float | None,
    gsd: Any,
    factor: float,
    says: str | None,
) -> None:
    path = write_scene(tmp_path / "s.tif", np.full((200, 100), 9, np.uint8))
    scene = plan(path, tmp_path, model_info(gsd=model), gsd=gsd)
    assert scene.step == pytest.approx((factor, factor), rel=2e-3)
    assert (scene.native is None) == (factor == 1)
    said = capsys.readouterr().err
    assert says in said if says else said == ""


def in_degrees(path: Path, latitude: float) -> str:
    """A scene whose pixels are 0.5 m high and, but for on the equator, less wide."""
    degrees = 0.5 / 111_000
    place = Affine(degrees, 0, 9.0, 0, -degrees, latitude)
    return write_scene(path, np.full((200, 100), 9, np.uint8), crs="EPSG:4326", transform=place)


@pytest.mark.parametrize(("latitude", "squared"), [(60, True), (30, False)])
def test_pixels_that_are_not_square_are_made_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], latitude: float, squared: bool
) -> None:
    path = in_degrees(tmp_path / "s.tif", latitude)
    scene = plan(path, tmp_path, model_info())
    said = capsys.readouterr().err
    assert ("pixels are 0.251 x 0.502 m; the scene is read with square ones" in said) == squared
    assert (scene.elongation == pytest.approx(1, abs=0.01)) == squared
    assert scene.pixel_side == pytest.approx(open_scene(path).pixel_side, rel=0.01)
    assert plan(path, tmp_path, model_info(), gsd="native").native is None
    shown = CliRunner().invoke(main, ["info", path]).output
    assert ("detect reads it with square ones" in shown) == squared
    labels = geopandas.GeoSeries([shapely.box(*open_scene(path).bounds)], crs="EPSG:4326")
    labels.to_file(tmp_path / "labels.gpkg")
    prepare(PrepareConfig(tmp_path / "set", (path,), str(tmp_path / "labels.gpkg"), tile_size=64))
    assert ("s.tif: pixels are 0.25 x 0.5 m, so ground" in capsys.readouterr().err) == squared


@pytest.mark.parametrize(
    ("changes", "gsd", "crs", "says"),
    [
        ({"gsd": None}, "model", "EPSG:32648", "the model fake does not know the pixel size"),
        ({}, "model", None, "has no pixel size in metres"),
        ({}, 0.5, None, "has no pixel size in metres"),
        ({}, 0.0, "EPSG:32648", "give metres above 0"),
        ({}, "half", "EPSG:32648", "give model, native, or metres"),
        ({}, math.nan, "EPSG:32648", "give metres above 0"),
        ({}, math.inf, "EPSG:32648", "give metres above 0"),
        ({}, 1e-5, "EPSG:32648", "less than 1/1024 of its own"),
    ],
)
def test_sizes_that_cannot_be_had(
    tmp_path: Path, changes: dict[str, Any], gsd: Any, crs: str | None, says: str
) -> None:
    path = write_scene(tmp_path / "s.tif", np.full((20, 10), 9, np.uint8), crs=crs)
    with pytest.raises(LsmapError, match=says) as error:
        plan(path, tmp_path, model_info(**changes), gsd=gsd)
    assert "\n" not in str(error.value)
