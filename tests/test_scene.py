"""Scenes: what they are, and that validity is right whatever way a file declares it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from fakes import write_scene
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.rpc import RPC

from landslide_mapper.errors import LsmapError
from landslide_mapper.geo import scene_reader
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.grid import Frame, axis_starts, block_starts, shifted_starts
from landslide_mapper.geo.scene import Source, at_pixel_size, open_scene
from landslide_mapper.geo.scene_reader import SceneReader

UTM = Affine(2, 0, 500000, 0, -2, 4000000)


def write(path: Path, pixels: np.ndarray, **profile: object) -> str:
    """A GeoTIFF of `pixels` (B, H, W), in EPSG:32632 unless `profile` says otherwise."""
    profile = {"crs": "EPSG:32632", "transform": UTM, **profile}
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, **profile,
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return str(path)


def read_all(path: str, **options: object) -> tuple[np.ndarray, np.ndarray]:
    scene = open_scene(path)
    with SceneReader(scene) as reader:
        return reader.read(0, 0, scene.height, scene.width, **options)


def ramp(bands: int = 3, size: int = 40, dtype: str = "uint8") -> np.ndarray:
    return (np.arange(bands * size * size).reshape(bands, size, size) % 250 + 1).astype(dtype)


def test_a_frame_lies_where_its_first_pixel_does() -> None:
    scene = Affine.translation(500000, 4000000) * Affine.rotation(20) * Affine.scale(2, -3)
    frame = Frame(7, 11, 20, 30)
    assert frame.transform(scene) * (4, 5) == pytest.approx(scene * (15, 12))


def test_window_over_the_edge_is_zero_and_invalid(tmp_path: Path) -> None:
    pixels = ramp()
    scene = open_scene(write(tmp_path / "s.tif", pixels))
    with SceneReader(scene) as reader:
        data, valid = reader.read(-5, 30, 20, 20)
    assert valid.sum() == 15 * 10
    assert (data[:, 5:, :10] == pixels[:, :15, 30:]).all()
    assert not data[:, ~valid].any()
    with SceneReader(scene) as reader:
        data, valid = reader.read(100, 100, 8, 8)
    assert not valid.any()
    assert not data.any()


def test_nodata_counts_only_where_all_bands_have_it(tmp_path: Path) -> None:
    pixels = ramp()
    pixels[:, :10] = 0
    pixels[0, 20] = 0  # black in one band is a colour
    _, valid = read_all(write(tmp_path / "s.tif", pixels, nodata=0))
    assert not valid[:10].any()
    assert valid[10:].all()


def test_alpha_is_validity_and_never_a_colour(tmp_path: Path) -> None:
    pixels = ramp(4)
    pixels[3] = 255
    pixels[3, :, :7] = 0
    path = write(tmp_path / "s.tif", pixels, photometric="RGB", alpha="yes")
    scene = open_scene(path)
    assert scene.bands == (1, 2, 3)
    data, valid = read_all(path)
    assert data.shape[0] == 3
    assert not valid[:, :7].any()
    assert valid[:, 7:].all()


def test_internal_mask(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", ramp())
    seen = np.full((40, 40), 255, np.uint8)
    seen[30:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        raster.write_mask(seen)
    _, valid = read_all(path)
    assert (valid == (seen > 0)).all()


def test_nan_in_any_band_is_invalid_and_read_as_zero(tmp_path: Path) -> None:
    pixels = ramp(dtype="float32")
    pixels[1, 3, 4] = np.nan
    pixels[2, 5, 6] = np.inf
    data, valid = read_all(write(tmp_path / "s.tif", pixels))
    assert (~valid).sum() == 2
    assert np.isfinite(data).all()


def test_decimation_is_the_mean_of_valid_blocks(tmp_path: Path) -> None:
    pixels = ramp(dtype="float32")
    data, valid = read_all(write(tmp_path / "s.tif", pixels), out_shape=(10, 10))
    mean = pixels.reshape(3, 10, 4, 10, 4).mean(axis=(2, 4))
    assert valid.all()
    np.testing.assert_allclose(data, mean, rtol=1e-5)


def test_enlargement_is_bilinear(tmp_path: Path) -> None:
    pixels = np.add.outer(np.arange(30.0), 2 * np.arange(40.0))[None].astype(np.float32)
    data, valid = read_all(write(tmp_path / "s.tif", pixels), out_shape=(60, 80))
    rows, cols = (np.clip(np.arange(2 * n) / 2 - 0.25, 0, n - 1) for n in (30, 40))
    assert valid.all()
    np.testing.assert_allclose(data[0], np.add.outer(rows, 2 * cols), atol=1e-4)


def test_decimated_pixel_with_a_hole_is_invalid(tmp_path: Path) -> None:
    pixels = ramp()
    pixels[:, 0, 0] = 0
    _, valid = read_all(write(tmp_path / "s.tif", pixels, nodata=0), out_shape=(10, 10))
    assert not valid[0, 0]
    assert valid.sum() == 99


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("strip", [40, 4_000_000])
def test_decimated_pixels_are_valid_where_all_of_their_source_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, strip: int
) -> None:
    """Also of windows that begin inside or outside the scene, and whose ratio is no whole one."""
    monkeypatch.setattr(scene_reader, "STRIP_PIXELS", strip)
    holes = np.random.default_rng(0).random((50, 70)) < 0.02
    unseen = {"uint8": 0, "float32": np.nan}[dtype]
    pixels = np.where(holes, unseen, ramp(size=70)[:, :50]).astype(dtype)
    nodata = {"nodata": 0} if dtype == "uint8" else {}
    scene = open_scene(write(tmp_path / "s.tif", pixels, **nodata))
    seen = np.pad(~holes, 20)
    for row, col, height, width, h, w in (
        (0, 0, 50, 70, 20, 30),
        (7, 11, 30, 40, 13, 9),
        (-9, -13, 60, 90, 25, 28),
    ):
        with SceneReader(scene) as reader:
            data, valid = reader.read(row, col, height, width, out_shape=(h, w))
        down, across = row + np.arange(h + 1) * height / h, col + np.arange(w + 1) * width / w
        top, left = (np.floor(edges[:-1] + 1e-6).astype(int) + 20 for edges in (down, across))
        bottom, right = (np.ceil(edges[1:] - 1e-6).astype(int) + 20 for edges in (down, across))
        wanted = [
            [seen[a:b, c:d].all() for c, d in zip(left, right, strict=True)]
            for a, b in zip(top, bottom, strict=True)
        ]
        assert 0 < valid.sum() < valid.size
        np.testing.assert_array_equal(valid, wanted)
        assert not data[:, ~valid].any()


def test_decimated_window_over_the_edge_keeps_its_place(tmp_path: Path) -> None:
    pixels = ramp(dtype="float32")
    scene = open_scene(write(tmp_path / "s.tif", pixels))
    with SceneReader(scene) as reader:
        data, valid = reader.read(-20, -20, 80, 80, out_shape=(20, 20))
    assert valid.sum() == 100
    assert valid[5:15, 5:15].all()
    mean = pixels.reshape(3, 10, 4, 10, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(data[:, 5:15, 5:15], mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32632", UTM, 2.0),
        ("EPSG:4326", Affine(1e-5, 0, 9, 0, -1e-5, 0), 1.11),
        # Its geodetic CRS counts in grads.
        ("EPSG:27572", Affine(0.5, 0, 600000, 0, -0.5, 2200000), 0.5),
        # Web Mercator at 60° north: 2 m on the map are 1 m on the ground.
        ("EPSG:3857", Affine(2, 0, 1e6, 0, -2, 8399738), 1.0),
    ],
)
def test_gsd_is_metres_on_the_ground(
    tmp_path: Path, crs: str, transform: Affine, expected: float
) -> None:
    scene = open_scene(write(tmp_path / "s.tif", ramp(), crs=crs, transform=transform))
    assert scene.gsd is not None
    assert scene.gsd == pytest.approx((expected, expected), rel=0.01)


def test_real_scenes_know_their_pixel_size(shared_data: Path) -> None:
    mars = open_scene(str(shared_data / "scenes/mars/mars_vm_rgb.tif"))
    assert mars.gsd == pytest.approx((232, 232), rel=0.02)
    photo = open_scene(str(shared_data / "scenes/swellendam/3320D_2010_315_RGB_LATLNG.tif"))
    assert photo.bands == (1, 2, 3)
    assert photo.gsd == pytest.approx((2.31, 2.77), rel=0.01)


@pytest.mark.parametrize(
    ("name", "bands", "says"),
    [
        ("absent.tif", None, "no such file"),
        (".", None, "folder"),
        ("text.txt", None, "cannot read this as a raster"),
        ("ortho.ECW", None, "cannot read ECW; make a GeoTIFF .* QGIS"),
        ("slides.geojson", None, "this is a vector layer, and a scene is a raster"),
        ("table.csv", None, "cannot read this as a raster"),
        ("s.tif", (9,), "no band 9"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, name: str, bands: tuple[int, ...] | None, says: str
) -> None:
    write(tmp_path / "s.tif", ramp())
    for file in ("text.txt", "ortho.ECW"):
        (tmp_path / file).write_text("no raster")
    place = '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 45]}}'
    (tmp_path / "slides.geojson").write_text(place)
    (tmp_path / "table.csv").write_text("name,split\na,train\n")
    with pytest.raises(LsmapError, match=says) as caught:
        open_scene(str(tmp_path / name), bands)
    assert "\n" not in str(caught.value)


def test_pixels_that_lie_nowhere_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", ramp(), transform=Affine(2, 0, 0, 0, 0, 9))
    with pytest.raises(LsmapError, match="its pixels have no area"):
        open_scene(path)
    points = [GroundControlPoint(r, c, 9 + c / 1e4, 45 - r / 1e4) for r in (0, 9) for c in (0, 9)]
    path = write(tmp_path / "g.tif", ramp(), crs=None, transform=None)
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (points, "EPSG:4326")
    with pytest.raises(LsmapError, match="gdalwarp INPUT OUTPUT"):
        open_scene(path)
    path = write(tmp_path / "c.tif", ramp(), transform=None)
    with pytest.raises(LsmapError, match=r"no geotransform.*gdal_edit\.py -a_ullr"):
        open_scene(path)
    assert open_scene(path, picture=True).width > 0
    path = write(tmp_path / "r.tif", ramp(), crs=None, transform=None)
    with rasterio.open(path, "r+") as raster:
        raster.rpcs = looking_down()
    with pytest.raises(LsmapError, match="gdalwarp -rpc"):
        open_scene(path)
    assert open_scene(path, picture=True).width > 0
    path = write(tmp_path / "half.tif", ramp(), crs=None, transform=None)
    beside = (
        '<PAMDataset><Metadata domain="RPC"><MDI key="LINE_OFF">9</MDI></Metadata></PAMDataset>'
    )
    Path(f"{path}.aux.xml").write_text(beside)  # which rasterio cannot read as coefficients
    with pytest.raises(LsmapError, match="gdalwarp -rpc"):
        open_scene(path)


def looking_down() -> RPC:
    """The coefficients of a camera that looks straight down."""
    one, column, row = [1.0] + 19 * [0.0], [0.0, 1.0] + 18 * [0.0], [0.0, 0.0, -1.0] + 17 * [0.0]
    middle = {"lat_off": 31, "long_off": 103, "height_off": 0, "line_off": 10, "samp_off": 10}
    size = {"lat_scale": 1, "long_scale": 1, "height_scale": 1, "line_scale": 1, "samp_scale": 1}
    return RPC(
        **middle,
        **size,
        samp_num_coeff=column,
        samp_den_coeff=one,
        line_num_coeff=row,
        line_den_coeff=one,
    )


def test_a_name_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(LsmapError, match="rename it"):
        open_scene("\udcb2\udce2.tif")


def test_what_qgis_adds_to_a_name_is_no_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", ramp(1))
    with pytest.raises(LsmapError, match=rf"what QGIS adds .* give {re.escape(path)}$"):
        open_scene(f"{path}|option:OVERVIEW_LEVEL=NONE")


def test_bands_of_several_types_are_read_as_one(tmp_path: Path) -> None:
    small = write(tmp_path / "8.tif", ramp(1))
    large = write(tmp_path / "16.tif", ramp(1, dtype="uint16") * 100)
    data, valid = read_all(stack([small, large, large]))
    assert data.dtype == np.uint16
    assert valid.all()
    assert np.array_equal(data[0], ramp(1)[0])
    assert np.array_equal(data[1], ramp(1)[0].astype(int) * 100)


def test_palette_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", ramp(1))
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.raises(LsmapError, match="-expand rgb"):
        open_scene(path)


def test_truncated_file_is_an_error_not_black_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, 400, 400)).astype(np.uint8)
    path = Path(write(tmp_path / "s.tif", pixels, compress="deflate"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LsmapError):
        read_all(str(path))


sizes = st.integers(1, 5000)
tiles = st.integers(8, 600)


@given(size=sizes, tile=tiles, data=st.data())
def test_axis_starts_cover_the_axis(size: int, tile: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(max(1, tile // 8), tile))
    starts = axis_starts(size, tile, stride)
    covered = np.zeros(size, bool)
    for start in starts:
        assert start < size
        covered[start : start + tile] = True
    assert covered.all()


@given(size=sizes, tile=tiles, data=st.data())
def test_shifted_starts_cover_and_stay_inside(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile * 7 // 8))
    starts = shifted_starts(size, tile, overlap)
    assert starts == sorted(set(starts))
    if size <= tile:
        (start,) = starts
        assert 0 <= (start + tile - size) + start <= 1  # as much padding before as after
        return
    assert starts[0] == 0
    assert starts[-1] + tile == size
    assert all(tile - (b - a) >= overlap for a, b in pairwise(starts))


@given(size=sizes, tile=tiles, factor=st.sampled_from([1, 2, 4]), data=st.data())
def test_block_windows_cover_their_block_and_leave_it_only_over_the_scene_end(
    size: int, tile: int, factor: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(max(1, tile // 4), tile))
    covered = np.zeros(size, int)
    for begin in range(0, size, factor * tile):
        end = min(begin + factor * tile, size)
        for start in block_starts(begin, end, size, tile, stride):
            assert start >= begin
            assert start + tile <= end or end == size
            covered[start : start + tile] = 1
    assert covered.all()


def test_overviews_that_are_older_than_the_image_are_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scene(tmp_path / "old.tif", np.full((256, 256), 50, np.uint8))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4], Resampling.average)
    assert Path(f"{path}.ovr").exists()
    with rasterio.open(path, "r+") as raster:
        raster.write(np.full((raster.count, 256, 256), 200, np.uint8))
    half = at_pixel_size(open_scene(path), 1.0)
    for age, value, warned in ((-10, 200, True), (10, 50, False)):
        there = Path(path).stat().st_mtime
        os.utime(f"{path}.ovr", (there + age, there + age))
        with SceneReader(half) as reader:
            data, _ = reader.read(0, 0, half.height, half.width)
        assert (data == value).all()
        assert ("older than the image" in capsys.readouterr().err) == warned


def test_a_band_without_nodata_hides_no_hole(tmp_path: Path) -> None:
    bands = np.full((3, 20, 30), 90, np.uint8)
    bands[:, :, :9] = 0
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": 1, "dtype": "uint8"}
    paths = []
    for number, nodata in enumerate((0, None, None)):
        paths.append(str(tmp_path / f"{number}.tif"))
        place = {"transform": UTM, "crs": "EPSG:32648", "nodata": nodata}
        with rasterio.open(paths[-1], "w", **profile, **place) as raster:
            raster.write(bands[number], 1)
    for order in (paths, paths[::-1]):
        scene = open_scene(Source("stack", stack(order)))
        with SceneReader(scene) as reader:
            _, valid = reader.read(0, 0, 20, 30)
        np.testing.assert_array_equal(valid, bands[0] > 0)


@pytest.mark.parametrize("kind", ["tif", "vrt"])
def test_a_database_of_another_proj_is_refused(tmp_path: Path, kind: str) -> None:
    path = write_scene(tmp_path / "a.tif", np.full((9, 9), 50, np.uint8))
    if kind == "vrt":  # which has the code of its CRS only, and loses it
        path = str(tmp_path / "a.vrt")
        Path(path).write_text(
            '<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:32648</SRS>'
            "<GeoTransform>300000, 2, 0, 3500000, 0, -2</GeoTransform>"
            '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
        )
    assert open_scene(path).crs == "EPSG:32648"
    (tmp_path / "proj.db").write_bytes(b"")
    code = f"from landslide_mapper.geo.scene import open_scene; open_scene({path!r})"
    for variable in ("PROJ_LIB", "PROJ_DATA"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {variable: str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert "unset PROJ_DATA PROJ_LIB" in run.stderr


@pytest.mark.parametrize("kind", ["complex_int16", "complex64"])
def test_complex_pixels_are_refused(tmp_path: Path, kind: str) -> None:
    """Radar images come in whole complex numbers, which numpy does not have."""
    path = tmp_path / "radar.tif"
    with rasterio.open(path, "w", driver="GTiff", width=8, height=8, count=3, dtype=kind):
        pass
    with pytest.raises(LsmapError, match=f"pixels of type {kind} cannot be used"):
        open_scene(str(path))
