"""Data sets without coordinates that are trained on together: the same picture keeps its split."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from fakes import UTM, write_scene
from PIL import Image
from running import run

from landslide_mapper.data.manifest import LAYER, TILES, Dataset, load_dataset
from landslide_mapper.data.together import check_splits
from landslide_mapper.errors import LsmapError, LsmapFailure

TILE = ["--tile-size", 64, "--workers", 1]
REFUSED = "the image of tile .* is in different splits of them.*prepare them in one command"


def check(*folders: Path) -> None:
    """See whether these data sets may be trained on together."""
    check_splits([load_dataset(folder) for folder in folders])


def pictures(folder: Path, seed: int) -> list[Path]:
    """Folders of eight images, one of them white, and their masks."""
    rng = np.random.default_rng(seed)
    folders = [folder / "images", folder / "masks"]
    for part in folders:
        part.mkdir(parents=True)
    for number in range(8):
        pixels = rng.integers(0, 255, (64, 64), dtype=np.uint8)
        pixels[:] = 255 if number == 7 else pixels
        mask = np.zeros((64, 64), np.uint8)
        mask[:20] = 255
        Image.fromarray(pixels).save(folders[0] / f"{number}.png")
        Image.fromarray(mask).save(folders[1] / f"{number}.png")
    return folders


def scene(folder: Path, seed: int) -> list[Path]:
    """A scene without a CRS that is split by blocks, and its landslides."""
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 255, (256, 512), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "scene.png")
    squares = [
        shapely.box(x + 10, y + 10, x + 40, y + 40)
        for x in range(0, 512, 64)
        for y in range(0, 256, 64)
    ]
    geopandas.GeoDataFrame(geometry=squares).to_file(folder / "labels.gpkg")
    return [folder / "scene.png", folder / "labels.gpkg"]


def test_pictures_keep_their_split_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "p", 0)
    shutil.copytree(tmp_path / "p", tmp_path / "copy")
    for where, images, seed in ((".", "p", 0), ("p", ".", 3), ("copy", ".", 3)):
        monkeypatch.chdir(tmp_path / where)
        pairs = ["--pairs", f"{images}/images", f"{images}/masks"]
        run("prepare", *pairs, "-o", tmp_path / f"d_{where}", "--seed", seed, *TILE)
    check(tmp_path / "d_.", tmp_path / "d_.")
    check(tmp_path / "d_p", tmp_path / "d_copy")
    for other in ("d_p", "d_copy"):
        with pytest.raises(LsmapError, match=REFUSED) as error:
            check(tmp_path / "d_.", tmp_path / other)
        assert "\n" not in str(error.value)
    output = run("prepare", *pairs, *pairs, "-o", tmp_path / "d", code=2)
    assert "is given twice" in output


def test_other_pictures_of_the_same_name_are_other_ground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A white picture is in both data sets; it is no place."""
    for seed in (0, 1):
        pictures(tmp_path / str(seed), seed)
        monkeypatch.chdir(tmp_path / str(seed))
        run("prepare", "--pairs", "images", "masks", "-o", "d", "--seed", seed, *TILE)
    splits = [
        [t.split for t in sorted(load_dataset(tmp_path / seed / "d").tiles, key=lambda t: t.source)]
        for seed in "01"
    ]
    assert splits[0][:7] != splits[1][:7]
    assert splits[0][7] != splits[1][7]
    check(tmp_path / "0" / "d", tmp_path / "1" / "d")


def test_scenes_without_a_crs_are_compared_with_those_of_other_data_sets(tmp_path: Path) -> None:
    one, other = scene(tmp_path / "one", 1), scene(tmp_path / "other", 2)
    run("prepare", *one, "-o", tmp_path / "d1", *TILE)
    run("prepare", *other, "-o", tmp_path / "d2", "--seed", 3, *TILE)
    run("prepare", *one, "-o", tmp_path / "d3", "--seed", 3, *TILE)
    check(tmp_path / "d1", tmp_path / "d2")
    with pytest.raises(LsmapError, match=REFUSED):
        check(tmp_path / "d1", tmp_path / "d2", tmp_path / "d3")


def test_data_sets_of_sheets_that_adjoin_go_together(tmp_path: Path) -> None:
    """The tiles at their edges are padded, on the ground of the other sheet."""
    band = np.random.default_rng(0).integers(1, 255, (300, 300), np.uint8)
    for number in (0, 1):
        transform = UTM * Affine.translation(300 * number, 0)
        sheet = write_scene(tmp_path / f"{number}.tif", band, transform=transform)
        corners = [transform * (x, y) for x in range(20, 300, 60) for y in range(20, 300, 60)]
        squares = [shapely.box(x, y, x + 9, y + 9) for x, y in corners]
        labels = tmp_path / f"{number}.gpkg"
        geopandas.GeoDataFrame(geometry=squares, crs="EPSG:32648").to_file(labels)
        run("prepare", sheet, labels, "-o", tmp_path / f"d{number}", "--seed", number, *TILE)
    check(tmp_path / "d0", tmp_path / "d1")


def test_a_damaged_tile_is_one_line(tmp_path: Path) -> None:
    pairs = pictures(tmp_path / "p", 0)
    run("prepare", "--pairs", *pairs, "-o", tmp_path / "d", *TILE)
    load_dataset(tmp_path / "d").tiles[0].image.write_bytes(b"no image")
    with pytest.raises(LsmapFailure, match="cannot be read"):
        check(tmp_path / "d", tmp_path / "d")


def test_ground_on_another_planet_is_other_ground(tmp_path: Path) -> None:
    """But what lies on one planet is compared, whichever data set comes first."""
    datasets = []
    for name, crs, split in (
        ("earth", "EPSG:32648", "train"),
        ("mars", "IAU_2015:49900", "train"),
        ("mars again", "IAU_2015:49900", "test"),
    ):
        (tmp_path / name).mkdir()
        table = {"split": [split], "geometry": [shapely.box(10, 10, 11, 11)]}
        geopandas.GeoDataFrame(table, crs=crs).to_file(tmp_path / name / TILES, layer=LAYER)
        datasets.append(Dataset(tmp_path / name, {"tile_size": 64}, ()))
    check_splits(datasets[:2])
    with pytest.raises(LsmapError, match="1 tiles are in different splits"):
        check_splits(datasets)
