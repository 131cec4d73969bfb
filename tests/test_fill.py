"""Collars that are not declared as nodata, or are blurred: told, never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import blobs, detect_brightness, grey, write_scene

from landslide_mapper.geo.fill import Fill, fit_and_look, is_lossy, told, undeclared_fill
from landslide_mapper.geo.radiometry import sample, sample_corners
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.info import describe


def collar(value: float, dtype: str, bands: int = 3) -> np.ndarray:
    """A picture (bands, 100, 100) with a collar of 20 columns on its right."""
    pixels = np.random.default_rng(0).integers(30, 120, (bands, 100, 100)).astype(dtype)
    pixels[:, :, 80:] = value
    return pixels


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (0, "uint8"),
        (0, "uint16"),
        (-32768, "int16"),
        (-9999, "int16"),
        (-128, "int8"),
        (-9999, "float32"),
        (-3.4028235e38, "float32"),
        (1e20, "float64"),
        (0, "float32"),
        (255, "uint8"),
        (65535, "uint16"),
        (32767, "int16"),
    ],
)
@pytest.mark.parametrize("bands", [1, 3])
def test_what_files_are_filled_with_is_found(value: float, dtype: str, bands: int) -> None:
    found = undeclared_fill(collar(value, dtype, bands), np.ones((100, 100), bool))
    assert found == Fill(float(np.dtype(dtype).type(value)), pytest.approx(0.2))


@pytest.mark.parametrize("corner", range(4))
def test_a_white_corner_of_a_turned_picture_is_found(corner: int) -> None:
    pixels = collar(90, "uint8")
    rows, cols = np.indices((100, 100))
    pixels[:, rows + cols < 25] = 255
    turned = np.rot90(pixels, corner, axes=(1, 2))
    whole = np.ones((100, 100), bool)
    assert undeclared_fill(turned, whole) == Fill(255, pytest.approx(0.0325))
    pixels[:, :, 0] = pixels[:, 0] = 90  # it does not reach the edge any more
    assert undeclared_fill(np.rot90(pixels, corner, axes=(1, 2)), whole) is None


def test_the_share_is_one_of_valid_pixels() -> None:
    valid = np.ones((100, 100), bool)
    valid[50:] = False
    pixels = collar(0, "uint8")
    pixels[1, :, :40] = 0  # in one band only
    assert undeclared_fill(pixels, valid) == Fill(0, pytest.approx(0.2))


def test_ground_is_no_collar() -> None:
    whole = np.ones((100, 100), bool)
    snow = collar(255, "uint8")
    snow[:, 20:80] = 90  # large fields that reach corners, and a fifth of the edges beside them
    assert undeclared_fill(snow, whole) is None
    assert undeclared_fill(collar(255, "uint16"), whole) is None  # white of 8 bits
    assert undeclared_fill(collar(1.0, "float32"), whole) is None
    assert undeclared_fill(collar(7, "uint8"), whole) is None  # a lake
    assert undeclared_fill(np.zeros((3, 9, 9), np.uint8), np.ones((9, 9), bool)) is None
    inside = collar(50, "uint8")
    inside[:, 20:60, 20:60] = 0  # a shadow
    assert undeclared_fill(inside, whole) is None
    one_band = collar(0, "uint8")
    one_band[1, :, 80:] = 3
    assert undeclared_fill(one_band, whole) is None
    corner = collar(50, "uint8")
    corner[:, :5, :5] = 0  # a quarter of a percent
    assert undeclared_fill(corner, whole) is None
    assert undeclared_fill(collar(0, "uint8"), ~whole) is None
    declared = whole.copy()
    declared[:, 80:] = False
    assert undeclared_fill(collar(0, "uint8"), declared) is None
    shadow = collar(0, "uint8")
    shadow[:, 20:60, 20:60] = 0
    assert undeclared_fill(shadow, declared) is None


def test_detect_and_info_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    band = grey(blobs(1, (100, 100)))
    good = write_scene(tmp_path / "good.tif", band)
    band[:, 90:] = 0
    scenes = [write_scene(tmp_path / f"{n}.tif", band) for n in range(2)]
    detect_brightness([good, *scenes], tmp_path / "slides.gpkg")
    said = capsys.readouterr().err
    assert "0.tif (and 1 more scenes like it): 10% of its pixels are 0 in every band" in said
    assert "gdal_edit.py -a_nodata 0 FILE" in said
    assert "10% of the pixels are 0, up to a corner: nodata?" in describe(scenes[0]).to_text()
    assert describe(scenes[0]).to_dict()["fill"] == {"value": 0, "share": pytest.approx(0.1)}
    assert "nodata?" not in describe(good).to_text()
    detect_brightness(good, tmp_path / "other.gpkg")
    assert "in every band" not in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (700, 1025), (2500, 1700)])
def test_the_corners_are_those_of_the_sample(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(2).integers(1, 255, size).astype(np.uint8)
    scene = open_scene(write_scene(tmp_path / "scene.tif", noise, nodata=9))
    data, valid = sample(scene)
    ends = np.ix_((0, -1), (0, -1))
    corners, seen = sample_corners(scene)
    np.testing.assert_array_equal(corners, np.stack([band[ends] for band in data]))
    np.testing.assert_array_equal(seen, valid[ends])


def test_without_a_stretch_only_corners_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, pixels = SceneReader.read, 0

    def counting(self: SceneReader, row: int, col: int, height: int, width: int, *rest, **more):
        nonlocal pixels
        pixels += height * width
        return read(self, row, col, height, width, *rest, **more)

    monkeypatch.setattr(SceneReader, "read", counting)
    picture = np.full((500, 400), 70, np.uint8)
    scene = open_scene(write_scene(tmp_path / "good.tif", picture))
    assert fit_and_look(scene, "none")[1] is None
    assert pixels == 4
    picture[:, :40] = 0
    scene = open_scene(write_scene(tmp_path / "collar.tif", picture))
    assert fit_and_look(scene, "none")[1] == Fill(0, pytest.approx(0.1))


@pytest.mark.parametrize("rule", ["equalize", "none"])
@pytest.mark.parametrize(
    ("profile", "told_of"),
    [
        ({"compress": "jpeg", "nodata": 0}, True),
        ({"compress": "deflate", "nodata": 0}, False),
        ({"compress": "jpeg"}, False),  # nothing is declared, so the collar itself is told
    ],
)
def test_nodata_that_jpeg_has_blurred_is_told(
    tmp_path: Path, profile: dict[str, object], told_of: bool, rule: str
) -> None:
    rows, cols = np.indices((256, 256))
    picture = np.random.default_rng(0).integers(60, 200, (256, 256)).astype(np.uint8)
    picture[rows + cols < 200] = 0
    path = write_scene(tmp_path / "scene.tif", picture, **profile)
    scene = open_scene(path)
    _, fill = fit_and_look(scene, rule)
    said = " ".join(told([(scene, fill)]) if fill else [])
    assert ("nearly 0, its nodata" in said) == told_of
    assert ("nearblack -setmask" in said) == (profile["compress"] == "jpeg")
    assert fill is None or path in said
    if told_of:
        with rasterio.open(path) as raster:
            bands = raster.read()
        near = ((bands <= 15).all(axis=0) & bands.any(axis=0)).sum() / bands.any(axis=0).sum()
        assert fill == Fill(0, pytest.approx(near), declared=True)
        assert near > 0.005
    elif "nodata" in profile:
        assert fill is None
    else:
        assert "declare it: nearblack -setmask" in said


def test_a_collar_of_another_value_than_the_declared_one_is_told(tmp_path: Path) -> None:
    picture = np.full((256, 256), 90, np.uint8)
    picture[:, :64] = 0
    scene = open_scene(write_scene(tmp_path / "scene.tif", picture, compress="jpeg", nodata=255))
    assert fit_and_look(scene, "equalize")[1] == Fill(0, pytest.approx(0.25, abs=0.01))


def test_each_kind_of_doubt_has_its_line(tmp_path: Path) -> None:
    scenes = [open_scene(write_scene(tmp_path / f"{n}.tif", grey(blobs(n, (9, 9)))))
              for n in range(3)]  # fmt: skip
    fills = (Fill(0, 0.1), Fill(255, 0.2), Fill(0, 0.3, declared=True))
    first, second = told(list(zip(scenes, fills, strict=True)))
    assert first.startswith(f"{scenes[1].path} (and 1 more scenes like it): 20% of its pixels")
    assert second.startswith(f"{scenes[2].path}: 30.0% of its pixels are nearly 0")
    assert told([]) == []


@pytest.mark.parametrize(
    ("driver", "profile", "lossy"),
    [
        ("JPEG", {}, True),  # which does not say so
        ("GTiff", {"compress": "jpeg"}, True),
        ("GTiff", {"compress": "webp"}, True),
        ("GTiff", {"compress": "webp", "webp_lossless": True}, False),
        ("PNG", {}, False),
    ],
)
def test_files_whose_values_are_not_exact_are_known(
    tmp_path: Path, driver: str, profile: dict[str, Any], lossy: bool
) -> None:
    path, shape = tmp_path / "scene", {"width": 9, "height": 9, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver=driver, **shape, **profile) as raster:
        raster.write(np.ones((3, 9, 9), np.uint8))
    with rasterio.open(path) as raster:
        assert is_lossy(raster) == lossy
