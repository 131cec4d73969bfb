"""Radiometry: monotone curves, one per band and scene, 0 for nodata only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_scene import read_all, write

from landslide_mapper.errors import LsmapError, NothingSeenError
from landslide_mapper.geo import radiometry
from landslide_mapper.geo.radiometry import Radiometry, fit
from landslide_mapper.geo.scene import at_pixel_size, open_scene

DTYPES = ("uint8", "uint16", "int16", "float32")


def picture(dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(60, 30, (3, 80, 90))).clip(0, 250).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["equalize", "percentile"])
def test_valid_pixels_fill_1_to_255_and_order_is_kept(
    tmp_path: Path, dtype: str, rule: str
) -> None:
    path = write(tmp_path / "s.tif", picture(dtype))
    fitted = fit(open_scene(path), rule)
    data, valid = read_all(path)
    out = fitted.apply(data, valid)
    assert out.dtype == np.uint8
    assert out.min() == 1
    assert out.max() == 255
    for band, mapped in zip(data, out, strict=True):
        order = np.argsort(band.ravel(), kind="stable")
        assert (np.diff(mapped.ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_table_is_the_curve(tmp_path: Path, dtype: str) -> None:
    fitted = fit(open_scene(write(tmp_path / "s.tif", picture(dtype))), "equalize")
    values = np.arange(256, dtype=dtype).reshape(1, 16, 16).repeat(3, axis=0)
    out = fitted.apply(values, np.ones((16, 16), bool))
    for band, curve, mapped in zip(values, fitted.curves, out, strict=True):
        assert (mapped == np.rint(np.interp(band, *curve))).all()


def test_equalized_values_are_spread_evenly(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", picture("float32"))
    out = fit(open_scene(path), "equalize").apply(*read_all(path))
    share = np.histogram(out, bins=8, range=(0, 256))[0] / out.size
    assert np.abs(share - 1 / 8).max() < 0.02


def test_nodata_does_not_bend_the_curve_and_becomes_0(tmp_path: Path) -> None:
    pixels = picture("uint8") + 1
    whole = fit(open_scene(write(tmp_path / "a.tif", pixels)), "equalize")
    framed = np.zeros((3, 80, 300), np.uint8)
    framed[:, :, :90] = pixels
    path = write(tmp_path / "b.tif", framed, nodata=0)
    assert fit(open_scene(path), "equalize") == whole
    data, valid = read_all(path)
    out = whole.apply(data, valid)
    assert not out[:, :, 90:].any()
    assert (out[:, :, :90] > 0).all()


def test_none_keeps_values_and_lifts_black_to_1(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    path = write(tmp_path / "s.tif", pixels)
    out = fit(open_scene(path), "none").apply(*read_all(path))
    assert (out == np.maximum(pixels, 1)).all()


def test_constant_band(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", np.full((1, 20, 20), 7, np.uint16))
    for rule in ("equalize", "percentile"):
        assert (fit(open_scene(path), rule).apply(*read_all(path)) == 128).all()


def test_percentiles_are_2_and_98_or_the_ends_where_those_are_one_value() -> None:
    assert radiometry._percentile(np.arange(101.0)) == ((2.0, 98.0), (1.0, 255.0))
    assert radiometry._percentile(np.array([3.0, *[5.0] * 200, 9.0])) == ((3.0, 9.0), (1.0, 255.0))


def test_a_digest_changes_with_pixels_and_with_what_is_valid(tmp_path: Path) -> None:
    pixels = picture("uint8")
    scene = open_scene(write(tmp_path / "s.tif", pixels))
    first = radiometry.sample_digest(scene)
    assert radiometry.sample_digest(scene) == first
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene.path, "r+") as raster:
        raster.write_mask(pixels[0] > 60)
    masked = radiometry.sample_digest(scene)
    with rasterio.open(scene.path, "r+") as raster:
        raster.write(pixels + 1)
    assert len({first, masked, radiometry.sample_digest(scene)}) == 3


@given(
    values=arrays(
        np.float64, st.integers(2, 3000), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
    )
)
def test_curves_of_any_values_are_monotone_and_short(values: np.ndarray) -> None:
    for make in (radiometry._equalize, radiometry._percentile):
        x, y = make(values)
        assert len(x) == len(y) <= radiometry.MAX_KNOTS
        assert (np.diff(x) > 0).all()
        assert (np.diff(y) >= 0).all()
        assert 1 <= min(y) <= max(y) <= 255


def test_curves_are_stored_whole(tmp_path: Path) -> None:
    fitted = fit(open_scene(write(tmp_path / "s.tif", picture("float32"))), "equalize")
    stored = json.loads(json.dumps(fitted.to_dict()))
    curves = tuple((tuple(x), tuple(y)) for x, y in stored["curves"])
    assert Radiometry(stored["rule"], curves) == fitted


def test_refusals(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "s.tif", picture("uint16")))
    with pytest.raises(LsmapError, match="needs uint8"):
        fit(scene, "none")
    with pytest.raises(LsmapError, match="no stretch"):
        fit(scene, "gamma")
    empty = open_scene(write(tmp_path / "e.tif", np.zeros((3, 9, 9), np.uint8), nodata=0))
    with pytest.raises(LsmapError, match="no valid pixel"):
        fit(empty, "equalize")


@pytest.mark.parametrize("valid", [0, 4, 60])
def test_a_sheet_that_is_nearly_empty_is_looked_at_whole(tmp_path: Path, valid: int) -> None:
    """A few columns that the decimated read passes by, as of a sheet at the edge of a flight."""
    pixels = np.zeros((3, 3000, 3000), np.uint8)
    edge = np.random.default_rng(0).integers(1, 255, (3, 3000, valid))
    pixels[:, :, :valid] = edge
    scene = open_scene(write(tmp_path / "s.tif", pixels, nodata=0))
    if valid:
        curves = fit(scene, "equalize").curves
        assert all(len(x) > 200 and y[0] == 1 and y[-1] == 255 for x, y in curves)
    else:
        with pytest.raises(NothingSeenError, match="no valid pixel"):
            fit(scene, "equalize")


@pytest.mark.parametrize("few_valid", [0, 10_000])
def test_the_curve_is_the_files_at_any_pixel_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_valid: int
) -> None:
    """From a sample and from all pixels; means would narrow it."""
    monkeypatch.setattr(radiometry, "FEW_VALID", few_valid)
    monkeypatch.setattr(radiometry, "SAMPLE_SIDE", 30)
    scene = open_scene(write(tmp_path / "s.tif", picture("uint8") + 1))
    for metres in (1.0, 3.0, 20.0):
        assert fit(at_pixel_size(scene, metres), "equalize") == fit(scene, "equalize")


def test_many_values_of_all_pixels_are_thinned_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, (3, 400, 300)).astype(np.uint8)
    pixels[:, :200] //= 4
    scene = open_scene(write(tmp_path / "s.tif", pixels))
    monkeypatch.setattr(radiometry, "SAMPLE_SIDE", 50)
    monkeypatch.setattr(radiometry, "STRIP_PIXELS", 3000)
    monkeypatch.setattr(radiometry, "FEW_VALID", 10_000)
    values = radiometry._values(scene, *radiometry.sample(scene))
    assert 2500 <= len(values[0]) <= 5000
    assert np.mean(values[0] < 64) == pytest.approx(np.mean(pixels[0] < 64), abs=0.03)
