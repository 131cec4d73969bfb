"""`lsmap prepare --pairs`: folders of images and masks as public data sets ship them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from landslide_mapper.data.copies import fingerprint
from landslide_mapper.data.manifest import Dataset, load_dataset
from landslide_mapper.data.masks import mask_of
from landslide_mapper.data.pairs import area_weights, find_pairs
from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluation.tiles import survey
from landslide_mapper.prepare import PrepareConfig, prepare


def picture(path: Path, pixels: np.ndarray, driver: str = "PNG", **profile: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, count=count, height=height, width=width, dtype=pixels.dtype,
        **profile,
    ) as raster:  # fmt: skip
        raster.write(pixels)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (3, height, width)).astype(np.uint8)


def square(height: int, width: int, value: int = 255) -> np.ndarray:
    mask = np.zeros((1, height, width), np.uint8)
    mask[0, height // 4 : height // 2, width // 4 : width // 2] = value
    return mask


def make(root: Path, **options: Any) -> Dataset:
    options = {"tile_size": 128, "negatives": "all", "workers": 2, **options}
    pairs = ((root / "images", root / "masks"),)
    prepare(PrepareConfig(output=root / "dataset", pairs=pairs, **options))
    return load_dataset(root / "dataset")


def masks_of(dataset: Dataset) -> dict[str, np.ndarray]:
    out = {}
    for tile in dataset.tiles:
        with rasterio.open(tile.mask) as raster:
            out[tile.tile_id] = raster.read(1)
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pairs of 60 to 300 pixels; "image_3.png" goes with "mask_3.png"."""
    for n in range(10):
        height, width = 60 + 24 * n, 80 + 20 * n
        picture(tmp_path / "images" / f"image_{n}.png", image(height, width, n))
        picture(tmp_path / "masks" / f"mask_{n}.png", square(height, width))
    return tmp_path


def test_images_of_any_size_become_tiles(folder: Path) -> None:
    dataset = make(folder, gsd=0.8)
    assert len(dataset.tiles) == 10
    assert {t.split for t in dataset.tiles} == {"train", "val", "test"}
    for tile in dataset.tiles:
        n = int(tile.tile_id.removeprefix("image_"))
        height, width = 60 + 24 * n, 80 + 20 * n
        shrink = min(1, 128 / max(height, width))
        assert tile.valid_px == pytest.approx(height * width * shrink**2, rel=0.03)
        assert tile.landslide_fraction == pytest.approx(1 / 16, rel=0.1)
        with rasterio.open(tile.image) as raster:
            pixels, seen = raster.read(), masks_of(dataset)[tile.tile_id] != 255
        assert (pixels.any(axis=0) == seen).all()
        rows, cols = np.nonzero(seen)
        assert abs((rows.min() + rows.max()) / 2 - 63.5) <= 1  # in the middle
        assert abs((cols.min() + cols.max()) / 2 - 63.5) <= 1
    assert dataset.gsd is not None
    assert 0.8 <= dataset.gsd < 2


@pytest.mark.parametrize("fit", ["scale", "crop"])
def test_images_that_are_scaled_down_to_other_pixel_sizes_are_warned_of(
    tmp_path: Path, fit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, side in enumerate([64, 64, 256]):
        picture(tmp_path / "images" / f"{number}.png", image(side, side, number))
        picture(tmp_path / "masks" / f"{number}.png", square(side, side))
    make(tmp_path, tile_size=64, gsd=0.5, pairs_fit=fit)
    said = "Warning: pixels of these tiles are 0.5 to 2 m, and detect shows a model one size only"
    assert (f"{said}; --pairs-fit crop cuts" in capsys.readouterr().err) == (fit == "scale")


def test_crop_keeps_every_pixel(folder: Path) -> None:
    dataset = make(folder, pairs_fit="crop", tile_size=112)  # of one only the width is larger
    total = sum((60 + 24 * n) * (80 + 20 * n) for n in range(10))
    assert sum(t.valid_px for t in dataset.tiles) == total
    slides = sum(square(60 + 24 * n, 80 + 20 * n).astype(bool).sum() for n in range(10))
    assert sum(t.landslide_px for t in dataset.tiles) == slides
    dataset = make(folder, pairs_fit="crop", tile_size=112, stride=56, overwrite=True)
    assert sum(tile.source == "image_9" for tile in dataset.tiles) == 4 * 4  # of 276 × 260 pixels


def test_an_image_called_as_a_crop_of_another_is_kept(tmp_path: Path) -> None:
    for n, (name, side) in enumerate([("a", 192), ("a_r00000_c00000", 100), ("b", 64), ("c", 64)]):
        picture(tmp_path / "images" / f"{name}.png", image(side, side, n))
        picture(tmp_path / "masks" / f"{name}.png", square(side, side))
    dataset = make(tmp_path, pairs_fit="crop")
    assert sum(tile.valid_px for tile in dataset.tiles) == 192**2 + 100**2 + 2 * 64**2
    assert len({tile.tile_id for tile in dataset.tiles}) == len(dataset.tiles) == 4 + 3
    for tile in dataset.tiles:
        with rasterio.open(tile.mask) as raster:
            assert (raster.read() != 255).sum() == tile.valid_px


@pytest.mark.parametrize(
    ("values", "landslide", "ignored"),
    [((0, 255), 255, None), ((0, 1), 1, None), ((0, 1, 255), 1, 255), ((0, 1, 2), 2, None)],
)
def test_mask_values_are_read_the_same_in_the_whole_folder(
    tmp_path: Path, values: tuple[int, ...], landslide: int, ignored: int | None
) -> None:
    for n in range(4):
        picture(tmp_path / "images" / f"{n}.png", image(64, 64, n))
        mask = square(64, 64, values[1])
        if n == 3:  # only one file holds all the values
            mask[0, 40:50, 40:50] = values[-1]
        picture(tmp_path / "masks" / f"{n}.png", mask)
    found = masks_of(make(tmp_path, tile_size=64))
    assert all((found[str(n)] == 1).sum() == 256 for n in range(3))
    assert (found["3"] == 1).sum() == (256 if ignored else 356)
    assert (found["3"] == 255).sum() == (100 if ignored else 0)


def test_a_band_that_says_nothing_leaves_it_to_the_others(tmp_path: Path) -> None:
    pixels = np.zeros((3, 2, 2), np.uint8)
    pixels[0] = [[200, 200], [255, 0]]
    pixels[1:, 0, 1] = 200
    picture(tmp_path / "m.tif", pixels, "GTiff", nodata=200)
    with rasterio.open(tmp_path / "m.tif") as raster:
        mask = mask_of(raster)
    assert mask.values.tolist() == [[0, 0], [255, 0]]
    assert mask.unknown.tolist() == [[False, True], [False, False]]


def test_nodata_in_a_mask_file_is_background(tmp_path: Path) -> None:
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff")
        picture(tmp_path / "masks" / f"{n}.tif", square(64, 64, 1), "GTiff", nodata=0)
    assert all(t.valid_px == 64 * 64 for t in make(tmp_path, tile_size=64).tiles)


@pytest.mark.parametrize(
    ("dtype", "nothing", "declared"),
    [("float32", np.nan, np.nan), ("int16", -9999, -9999), ("int16", -1, None), ("uint8", 7, 7)],
)
def test_where_a_mask_says_nothing_nothing_is_learnt(
    tmp_path: Path, dtype: str, nothing: float, declared: float | None
) -> None:
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff")
        mask = square(64, 64, 1).astype(dtype)
        mask[0, 40:45] = 255  # beside 1 it says "ignore"
        mask[0, 50:] = nothing
        picture(tmp_path / "masks" / f"{n}.tif", mask, "GTiff", nodata=declared)
    wanted = square(64, 64, 1)[0]
    wanted[40:45] = wanted[50:] = 255
    for found in masks_of(make(tmp_path, tile_size=64)).values():
        assert (found == wanted).all()
    for n in range(3):
        mask = np.where(square(64, 64, 1) == 1, 1, nothing).astype(dtype)
        picture(tmp_path / "masks" / f"{n}.tif", mask, "GTiff", nodata=declared)
    with pytest.raises(LsmapError, match="every pixel of every mask is landslide"):
        make(tmp_path, tile_size=64, overwrite=True)
    for n in range(3):
        empty = np.full((1, 64, 64), nothing, dtype)
        picture(tmp_path / "masks" / f"{n}.tif", empty, "GTiff", nodata=declared)
    with pytest.raises(LsmapError, match=r"no landslide|12288 of their pixels are nodata"):
        make(tmp_path, tile_size=64, overwrite=True)


def test_soft_masks_are_landslide_from_a_half_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff")
        mask = square(64, 64, 1).astype("float32")
        mask[mask == 0] = 0.02 * n
        mask[0, 40, :30] = 0.49
        mask[0, 40, 30:50] = 0.5
        picture(tmp_path / "masks" / f"{n}.tif", mask, "GTiff")
    for found in masks_of(make(tmp_path, tile_size=64)).values():
        assert (found == 1).sum() == 256 + 20
        assert (found[40, 30:50] == 1).all()
    said = capsys.readouterr().err
    assert said.count(f"{tmp_path / 'masks'}: masks with values between 0 and 1") == 1


@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
@pytest.mark.parametrize(
    ("colours", "background", "landslide"),
    [
        ([(255, 0, 0), (0, 0, 0)], 1, 0),  # as Pillow's quantize() has it
        ([(255, 255, 255), (0, 0, 0), (255, 0, 0)], 1, 2),
        ([(0, 0, 0), (255, 0, 0)], 0, 1),
        ([(0, 0, 0), (255, 0, 0), (0, 0, 0)], 0, 1),
        ([(255, 255, 255), (255, 0, 0)], 0, 1),  # no black: the numbers count
    ],
)
def test_black_is_background_wherever_it_is_in_a_palette(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    driver: str,
    colours: list[tuple[int, int, int]],
    background: int,
    landslide: int,
) -> None:
    suffix = "png" if driver == "PNG" else "tif"
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png", image(64, 64, n))
        path = tmp_path / "masks" / f"{n}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        entries = np.where(square(64, 64) > 0, landslide, background).astype(np.uint8)
        with rasterio.open(
            path, "w", driver=driver, count=1, height=64, width=64, dtype="uint8"
        ) as raster:
            raster.write_colormap(1, dict(enumerate(colours)))
            raster.write(entries)
    found = masks_of(make(tmp_path, tile_size=64))
    assert len(found) == 3
    assert all((mask == square(64, 64, 1)[0]).all() for mask in found.values())
    said = capsys.readouterr().err
    assert ("black is taken as background" in said) == (background == 1)


def test_several_colours_of_a_palette_are_all_landslide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png", image(64, 64, n))
        coloured = np.zeros((64, 64, 3), np.uint8)
        coloured[10:30, 10:30, 0] = coloured[40:50, 40:50, 2] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        paletted = Image.fromarray(coloured).quantize()
        paletted.save(tmp_path / "masks" / f"{n}.png")
    found = masks_of(make(tmp_path, tile_size=64))
    assert all((mask == coloured.any(axis=2)).all() for mask in found.values())
    said = capsys.readouterr().err
    assert "the masks hold 0, 1, 2, ...; all but 0 are taken as landslide" in said


def test_each_folder_has_a_mask_rule_of_its_own(tmp_path: Path) -> None:
    pairs = []
    folders = (("a", 1, "PNG"), ("b", 255, "PNG"), ("c", 255, "JPEG"), ("d", 0, "PNG"))
    for name, value, driver in (*folders, ("e", 255, "GTiff")):
        folder = tmp_path / name
        folder.mkdir()
        for n in range(3):
            picture(folder / "images" / f"{name}{n}.png", image(64, 64, n))
            mask = folder / "masks" / f"{name}{n}.{driver.lower().replace('gtiff', 'tif')}"
            # In a JPEG the edges are smeared, unless they are those of its blocks.
            packing = {"compress": "jpeg"} if driver == "GTiff" else {}
            picture(mask, np.roll(square(64, 64, value), 3, axis=(1, 2)), driver, **packing)
        pairs.append((folder / "images", folder / "masks"))
    output = tmp_path / "dataset"
    prepare(PrepareConfig(output=output, pairs=tuple(pairs), tile_size=64, workers=2))
    found = masks_of(load_dataset(output))
    assert len(found) == 15
    wanted = np.roll(square(64, 64, 1)[0], 3, axis=(0, 1))
    assert all((mask == wanted * (name[0] != "d")).all() for name, mask in found.items())


def test_jpeg_masks_are_not_mixed_with_others(tmp_path: Path) -> None:
    for n, driver in enumerate(("PNG", "JPEG", "PNG")):
        picture(tmp_path / "images" / f"{n}.png", image(64, 64, n))
        picture(tmp_path / "masks" / f"{n}.{driver.lower()}", square(64, 64, 1), driver)
    with pytest.raises(LsmapError, match=r"JPEG \(1.jpeg\), .* beside others \(0.png\)"):
        make(tmp_path, tile_size=64)


def test_an_image_and_its_mask_must_lie_on_one_grid(tmp_path: Path) -> None:
    north_up, south_up = Affine(2, 0, 0, 0, -2, 128), Affine(2, 0, 0, 0, 2, 0)
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff", transform=south_up)
        picture(tmp_path / "masks" / f"{n}.tif", square(64, 64, 1), "GTiff", transform=north_up)
    with pytest.raises(LsmapError, match="lies 64 pixels off its image"):
        make(tmp_path, tile_size=64)
    for plain in (None, Affine.scale(1, -1)):  # a plain picture lies where its image does
        for n in range(3):
            masks = tmp_path / "masks" / f"{n}.tif"
            picture(masks, square(64, 64, 1), "GTiff", transform=plain)
        assert len(make(tmp_path, tile_size=64, overwrite=True).tiles) == 3


@pytest.mark.parametrize(
    ("moved", "fits"),
    [
        (Affine.translation(0.4, 0), True),
        (Affine.translation(0, -0.6), False),
        (Affine.scale(1.01, 1), False),  # its left and its upper side lie right
        (Affine.scale(1, 1.01), False),
    ],
)
def test_a_mask_lies_within_half_a_pixel_of_its_image(
    tmp_path: Path, moved: Affine, fits: bool
) -> None:
    grid, crs = Affine(2, 0, 500000, 0, -2, 4000000), "EPSG:32632"
    for n in range(3):
        pixels, place = image(64, 64, n), grid * Affine.translation(100 * n, 0)
        picture(tmp_path / "images" / f"{n}.tif", pixels, "GTiff", transform=place, crs=crs)
        mask = tmp_path / "masks" / f"{n}.tif"
        picture(mask, square(64, 64, 1), "GTiff", transform=place * moved, crs=crs)
    if fits:
        dataset = make(tmp_path, tile_size=64, stretch="none", gsd=7.0)
        assert len(dataset.tiles) == 3
        assert dataset.gsd == pytest.approx(2, rel=0.01)  # which the images know themselves
        for tile in dataset.tiles:
            with rasterio.open(tile.image) as raster:
                pixels = image(64, 64, int(tile.tile_id))
                np.testing.assert_array_equal(raster.read(), pixels.clip(1))
    else:
        with pytest.raises(LsmapError, match=r"the mask lies 0\.6\d* pixels off"):
            make(tmp_path, tile_size=64)


def test_images_of_one_place_are_not_in_several_splits(tmp_path: Path) -> None:
    place: dict[str, Any] = {"transform": Affine(2, 0, 500000, 0, -2, 4000000), "crs": "EPSG:32632"}
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff", **place)
        picture(tmp_path / "masks" / f"{n}.tif", square(64, 64, 1), "GTiff", **place)
    dataset = make(tmp_path, tile_size=64)
    assert [tile.split for tile in dataset.tiles] == ["test"]
    assert dataset.info["dropped"]["overlapping"] == 2


@pytest.mark.parametrize("side", [64, 80])
def test_images_that_adjoin_are_all_kept(tmp_path: Path, side: int) -> None:
    """The margin of one that is smaller than a tile lies on its neighbours, but shows nothing."""
    for n in range(9):
        place: dict[str, Any] = {"crs": "EPSG:32632"}
        place["transform"] = Affine.translation(500000 + 64 * (n % 3), 64 * (n // 3))
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64, n), "GTiff", **place)
        picture(tmp_path / "masks" / f"{n}.tif", square(64, 64, 1), "GTiff", **place)
    dataset = make(tmp_path, tile_size=side)
    assert {tile.split for tile in dataset.tiles} == {"train", "val", "test"}
    assert len(dataset.tiles) == 9
    assert dataset.info["dropped"]["overlapping"] == 0


def test_a_shrunk_pixel_is_what_half_of_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six by six pixels become one: landslide, and ignored ground, begin and end within."""
    mask = np.zeros((1, 384, 384), np.uint8)
    mask[0, 63:123, 33:93] = 1
    mask[0, 183:375, 9:375] = 255  # together more than the background
    wanted = np.zeros((64, 64), np.uint8)
    for value, top, left, bottom, right in ((1, 10, 5, 20, 15), (255, 30, 1, 62, 62)):
        wanted[top : bottom + 1, left : right + 1] = value
        wanted[[[top], [bottom]], [left, right]] = 0  # of corners a quarter
    for n in range(3):
        picture(tmp_path / "images" / f"{n}.png", image(384, 384, n))
        picture(tmp_path / "masks" / f"{n}.png", mask)
    for found in masks_of(make(tmp_path, tile_size=64)).values():
        np.testing.assert_array_equal(found, wanted)
    assert "of the pixels are landslide" not in capsys.readouterr().err


def test_areas_of_images_with_a_world_file_are_in_square_metres(tmp_path: Path) -> None:
    """Half a metre a pixel, said by the world file and by --gsd; both landslides are 256 m²."""
    half = Affine(0.5, 0, 0, 0, -0.5, 0)
    for n, transform in enumerate([half, Affine.identity()]):
        picture(tmp_path / "images" / f"{n}.tif", image(64, 64), "GTiff", transform=transform)
        mask = np.zeros((1, 64, 64), np.uint8)
        mask[0, 10:42, 10:42] = 1
        picture(tmp_path / "masks" / f"{n}.tif", mask, "GTiff", transform=transform)
    dataset = make(tmp_path, tile_size=64, gsd=0.5)
    ground = survey(dataset, dataset.tiles)
    assert ground.unit == "m²"
    assert ground.pixels == pytest.approx([0.25, 0.25])


def test_missing_masks(folder: Path) -> None:
    (folder / "masks" / "mask_4.png").unlink()
    with pytest.raises(LsmapError, match=r"1 image.*image_4\.png.*--missing-mask background"):
        make(folder)
    dataset = make(folder, missing_mask="background")
    assert [t.tile_id for t in dataset.tiles if not t.landslide_px] == ["image_4"]
    shutil.rmtree(folder / "dataset")
    assert len(make(folder, missing_mask="background", negatives=0.0).tiles) == 9


def test_sizes_must_agree(folder: Path) -> None:
    picture(folder / "masks" / "mask_4.png", square(10, 10))
    with pytest.raises(LsmapError, match="10×10"):
        make(folder)


def test_images_that_are_shown_turned_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((64, 72), np.uint8)
    mask[:30] = 255
    for number, orientation in enumerate((None, 0, 1, 3)):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        photo = Image.fromarray(np.moveaxis(image(64, 72, number), 0, -1))
        photo.save(tmp_path / "images" / f"{number}.jpg", exif=exif)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    make(tmp_path, tile_size=80)
    said = capsys.readouterr().err
    assert "1 images are read as they are stored, though their EXIF orientation" in said
    assert str(tmp_path / "images" / "3.jpg") in said
    Image.fromarray(mask.T).save(tmp_path / "masks" / "3.png")
    with pytest.raises(LsmapError, match=r"72×64; is one of them turned\?$"):
        make(tmp_path, tile_size=80, overwrite=True)


def test_nothing_in_common(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(LsmapError, match="no image has a mask"):
        make(folder)
    for images, says in (("none", "no such folder"), ("masks", "must lie in two folders")):
        pairs = ((folder / images, folder / "masks"),)
        with pytest.raises(LsmapError, match=says):
            prepare(PrepareConfig(output=folder / "d", pairs=pairs))


def test_folders_in_a_folder_are_named(folder: Path) -> None:
    for kind in ("images", "masks"):
        (folder / kind).rename(folder / "train")
        (folder / kind).mkdir()
        (folder / "train").rename(folder / kind / "train")
    with pytest.raises(LsmapError, match=r"no images in it .*a --pairs of its own: train$"):
        make(folder)


def test_hdf5_with_bands_last_or_first(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py writes the test's files")
    rng = np.random.default_rng(0)
    for name in ("img", "mask"):
        (tmp_path / f"{name}s").mkdir()
    arrays = {}
    for n in range(5):
        arrays[n] = rng.normal(1, 0.3, (128, 128, 14))
        arrays[n][0, 127, 3] = 9.0  # the brightest pixel of band 4 is at the top right
        with h5py.File(tmp_path / "imgs" / f"image_{n}.h5", "w") as file:
            file["img"] = np.moveaxis(arrays[n], 2, 0) if n == 0 else arrays[n]  # either way
        with h5py.File(tmp_path / "masks" / f"mask_{n}.h5", "w") as file:
            file["area"] = np.ones((128, 128), np.uint8)  # comes before
            file["mask"] = square(128, 128, 1)[0]
    pairs = ((tmp_path / "imgs", tmp_path / "masks"),)
    prepare(
        PrepareConfig(output=tmp_path / "d", pairs=pairs, bands=(4, 3, 2), tile_size=128, workers=2)
    )
    dataset = load_dataset(tmp_path / "d")
    assert dataset.bands == (4, 3, 2)
    for tile in dataset.tiles:
        with rasterio.open(tile.image) as raster:
            pixels = raster.read()
        source = arrays[int(tile.tile_id[-1])]
        assert pixels[0, 0, 127] == 255
        for band, number in zip(pixels, (4, 3, 2), strict=True):
            rank = np.corrcoef(band.ravel(), source[..., number - 1].argsort(axis=None).argsort())
            assert rank[0, 1] > 0.999
        assert (masks_of(dataset)[tile.tile_id] == square(128, 128, 1)[0]).all()
    with h5py.File(tmp_path / "masks" / "mask_3.h5", "a") as file:
        file.move("mask", "slides")
    options: dict[str, Any] = {"pairs": pairs, "tile_size": 128, "workers": 1}
    with pytest.raises(LsmapError, match=r"mask_3.h5: there are several arrays .*area, slides"):
        prepare(PrepareConfig(tmp_path / "e", **options))
    with h5py.File(tmp_path / "masks" / "mask_3.h5", "a") as file:
        file.move("slides", "mask")
        file.move("area", "image")
    with pytest.raises(LsmapError, match=r"mask_3.h5: there are several arrays .*image, mask"):
        prepare(PrepareConfig(tmp_path / "e", **options))


def test_bijie(tmp_path: Path, shared_data: Path) -> None:
    bijie = shared_data / "bijie"
    listed = [line.split(",") for line in (bijie / "manifest.csv").read_text().splitlines()[1:]]
    chosen = [row for kind in ("ls", "nls") for row in listed if row[0].startswith(kind + "_")]
    chosen = chosen[::60]
    for sub, suffix in (("images", "jpg"), ("masks", "png")):
        (tmp_path / sub).mkdir()
        for row in chosen:
            shutil.copy(bijie / sub / f"{row[0]}.{suffix}", tmp_path / sub)
    dataset = make(tmp_path, tile_size=512, split_file=bijie / "manifest.csv")
    assert {t.tile_id: t.split for t in dataset.tiles} == {row[0]: row[3] for row in chosen}
    assert all((t.landslide_px > 0) == t.tile_id.startswith("ls_") for t in dataset.tiles)


@given(st.integers(-50, 50), st.integers(1, 90), st.integers(1, 40), st.integers(1, 60))
def test_area_weights_are_means(start: int, span: int, out: int, size: int) -> None:
    weights = area_weights(start, span, out, size)
    assert weights.shape == (out, size)
    assert (weights >= 0).all()
    covered = max(0, min(start + span, size) - max(start, 0))
    assert weights.sum() * span / out == pytest.approx(covered)
    if start == 0 and span == size:
        assert weights.sum(axis=1) == pytest.approx(1)


def test_masks_the_wrong_way_round_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (64, 64, 3)).astype(np.uint8)
    red = np.full((64, 64, 3), 255, np.uint8)
    red[10:30, 10:30, 1:] = 0  # on white
    for name, picture in (("images", pixels), ("white", red), ("most", red[..., 1])):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.fromarray(picture).save(tmp_path / name / f"{number}.png")

    def make(masks: str) -> None:
        pairs = ((tmp_path / "images", tmp_path / masks),)
        prepare(PrepareConfig(tmp_path / "d", pairs=pairs, tile_size=64, stretch="none"))

    with pytest.raises(LsmapError, match="every pixel of every mask is landslide"):
        make("white")
    make("most")
    assert "90% of the pixels are landslide" in capsys.readouterr().err


VIEWS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda it: it,
    lambda it: it[..., ::-1],
    lambda it: it[..., ::-1, :],
    lambda it: np.rot90(it, 2, (-2, -1)),
    lambda it: np.rot90(it, 1, (-2, -1)),
    lambda it: np.rot90(it, 3, (-2, -1)),
    lambda it: np.swapaxes(it, -2, -1),
    lambda it: np.rot90(np.swapaxes(it, -2, -1), 2, (-2, -1)),
]


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_fingerprint_is_that_of_all_views_of_an_image_and_of_no_other(kind: str) -> None:
    first, second = (image(70, 90, n).astype(kind) for n in (0, 1))
    first[0, 3, 5] = np.nan if kind == "float32" else 7
    own = {fingerprint([view(first)]) for view in VIEWS}
    assert own == {fingerprint(np.array_split(first, 3, axis=1))}
    assert not own & {fingerprint([view(second)]) for view in VIEWS}
    assert not own & {fingerprint([first[::-1]]), fingerprint([first[:, :-1]])}


def test_copies_of_an_image_share_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(10):
        shown, turned = image(70, 90, n), VIEWS[n % len(VIEWS)]
        picture(tmp_path / "images" / f"{n}.png", shown)
        picture(tmp_path / "masks" / f"{n}.png", square(70, 90))
        picture(tmp_path / "images" / f"{n} - copy.png", turned(shown))
        picture(tmp_path / "masks" / f"{n} - copy.png", turned(square(70, 90)))
    split_of = {tile.tile_id: tile.split for tile in make(tmp_path).tiles}
    assert [split_of[f"{n}"] for n in range(10)] == [split_of[f"{n}_-_copy"] for n in range(10)]
    assert set(split_of.values()) == {"train", "val", "test"}
    assert "10 images are copies, maybe turned or mirrored, of others" in capsys.readouterr().err

    table = tmp_path / "split.csv"
    lines = [f"{n},train\n{n} - copy,{'val' if n < 5 else 'train'}" for n in range(10)]
    table.write_text("\n".join(["name,split", *lines]))
    make(tmp_path, split_file=table, overwrite=True)
    told = capsys.readouterr().err
    assert "Warning: 5 images are copies, maybe turned or mirrored, of one in another split" in told


@pytest.mark.parametrize(
    ("colours", "told"),
    [
        (((255, 0, 0), (0, 255, 0)), True),
        (((250, 120, 0), (250, 130, 0)), True),
        (((255, 0, 0), (128, 10, 0)), False),
        (((255, 255, 255), (90, 91, 90)), False),
    ],
)
def test_masks_in_several_colours_are_told(
    tmp_path: Path,
    colours: tuple[tuple[int, ...], ...],
    told: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for n in range(5):
        mask = np.zeros((3, 70, 70), np.uint8)
        mask[:, 5:20, 5:20] = np.array(colours[0])[:, None, None]
        mask[:, 40:60, 40:60] = np.array(colours[1])[:, None, None]
        picture(tmp_path / "masks" / f"{n}.png", mask)
        picture(tmp_path / "images" / f"{n}.png", image(70, 70, n))
    dataset = make(tmp_path)
    assert all(tile.landslide_px == 15**2 + 20**2 for tile in dataset.tiles)
    assert ("in several colours: all but black is" in capsys.readouterr().err) == told


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """What macOS leaves on other systems' disks has the suffix of the file that it belongs to."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    (tmp_path / "images" / "._a.png").touch()
    (pair,) = find_pairs(tmp_path / "images", tmp_path / "masks", missing_background=False)
    assert pair.image.name == "a.png"


def test_words_at_both_ends_of_names_and_case_are_no_matter(tmp_path: Path) -> None:
    for folder, name in (("images", "Image_{}.png"), ("masks", "image_{}_mask.png")):
        (tmp_path / folder).mkdir()
        for number in (1, 2):
            (tmp_path / folder / name.format(number)).touch()
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks", missing_background=False)
    assert [pair.mask.name for pair in pairs if pair.mask] == [
        "image_1_mask.png",
        "image_2_mask.png",
    ]


def test_folders_that_were_swapped_are_one_line(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.png", square(64, 64))
        picture(tmp_path / "masks" / f"{number}.png", image(64, 64, number))
    with pytest.raises(LsmapError, match=r"looks like a photograph, .* --pairs IMAGES MASKS$"):
        make(tmp_path)
    assert not (tmp_path / "dataset").exists()
