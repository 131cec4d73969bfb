"""Scenes that overlap or adjoin are mapped as one: `landslide_mapper.mapping.overlaps`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from fakes import UTM, blobs, grey, read, write_scene
from fakes import detect_brightness as run

from landslide_mapper.mapping.workspace import Workspace


def test_work_does_not_grow_with_the_square_of_the_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What describes all sheets is gone through once, not once a sheet."""
    sheets = [write_scene(tmp_path / f"{n}.tif", grey(blobs(n, (20, 20)))) for n in range(9)]
    seen, describe = [], Workspace.describe
    monkeypatch.setattr(Workspace, "describe", lambda *args: seen.append(1) or describe(*args))
    run(sheets, tmp_path / "slides.gpkg")
    assert len(seen) == 1


SHEETS = ((0, 0), (0, 70), (55, 0), (55, 70))  # rows and columns of the first pixels


SIZE = (65, 90)


@pytest.fixture
def sheets(tmp_path: Path) -> Callable[[np.ndarray], list[str]]:
    """Writes a picture (120, 160) as four sheets that overlap by 10 rows and 20 columns."""

    def write(picture: np.ndarray) -> list[str]:
        return [
            write_scene(
                tmp_path / f"{row}_{col}.tif",
                picture[row : row + SIZE[0], col : col + SIZE[1]],
                transform=UTM * Affine.translation(col, row),
                nodata=0,
            )
            for row, col in SHEETS
        ]

    return write


def valid_blobs(seed: int) -> np.ndarray:
    """A picture (120, 160) of landslides with large and small holes, with some nodata."""
    found = blobs(seed, (120, 160), 0.5, smooth=2) & ~blobs(seed + 1, (120, 160), 0.1, smooth=1)
    return np.where(blobs(seed + 2, (120, 160), 0.02, smooth=1), 0, grey(found)).astype(np.uint8)


def test_pieces_count_by_their_ground_whatever_their_pixels(tmp_path: Path) -> None:
    """A landslide that goes on from a scene of half a metre into one of a metre."""
    fine, coarse = np.full((40, 40), 50, np.uint8), np.full((20, 20), 50, np.uint8)
    fine[10:20, 20:] = 200  # 10 m × 5 m
    coarse[5:10, :8] = 240  # 8 m × 5 m
    east = UTM * Affine.translation(40, 0) * Affine.scale(2)
    for name, value in (("coarse", 240), ("paler", 160)):
        coarse[5:10, :8] = value
        scenes = [
            write_scene(tmp_path / "fine.tif", fine),
            write_scene(tmp_path / f"{name}.tif", coarse, transform=east),
        ]
        run(scenes, tmp_path / f"{name}.gpkg", gsd="native", simplify=0)
        (one,) = read(tmp_path / f"{name}.gpkg").itertuples()
        assert one.geometry.area == pytest.approx(90)
        assert one.confidence == pytest.approx((50 * 200 + 40 * value) / 90 / 255, rel=1e-3)
        assert one.max_probability == pytest.approx(max(200, value) / 255, rel=1e-3)


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_a_hole_is_seen_where_one_of_the_sheets_sees_it(tmp_path: Path, hidden: int) -> None:
    picture = np.full((60, 80), 50, np.uint8)
    picture[20:40, 35:45] = 200
    scenes = []
    for number, col in enumerate((0, 30)):
        part = picture[:, col : col + 50].copy()
        part[28:30, 39 - col : 41 - col] = 50 if number >= hidden else 0
        place = UTM * Affine.translation(col, 0)
        scenes.append(write_scene(tmp_path / f"{number}.tif", part, transform=place, nodata=0))
    run(scenes, tmp_path / "slides.gpkg", mask=tmp_path / "masks", fill_holes=5.0, simplify=0)
    (one,) = read(tmp_path / "slides.gpkg").geometry
    assert len(one.interiors) == (hidden == 2)
    for number, col in enumerate((0, 30)):
        with rasterio.open(tmp_path / "masks" / f"{number}_mask.tif") as mask:
            hole = mask.read(1)[28:30, 39 - col : 41 - col]
        assert (hole == (1 if number >= hidden else 255)).all()


@pytest.mark.parametrize("seed", range(6))
def test_sheets_that_overlap_have_what_one_large_scene_has(
    tmp_path: Path, seed: int, sheets: Callable[[np.ndarray], list[str]]
) -> None:
    """Whatever is filtered: landslides are put together before, in the masks as well."""
    picture = valid_blobs(seed)
    whole = write_scene(tmp_path / "whole.tif", picture, nodata=0)
    options = {"min_area": 6.0, "fill_holes": 6.0, "simplify": 0}
    run(whole, tmp_path / "one.gpkg", mask=tmp_path / "one.tif", **options)
    run(sheets(picture), tmp_path / "many.gpkg", mask=tmp_path / "masks", **options)
    one, many = (
        layer.assign(geometry=layer.normalize()).sort_values(["lat", "lon"], ignore_index=True)
        for layer in (read(tmp_path / "one.gpkg"), read(tmp_path / "many.gpkg"))
    )
    assert len(one) == len(many) > 5
    assert one.geom_equals_exact(many, 1e-6).all()
    np.testing.assert_allclose(many.area_m2, one.area_m2, rtol=1e-6)
    np.testing.assert_allclose(many.perimeter_m, one.perimeter_m, rtol=1e-6)
    with rasterio.open(tmp_path / "one.tif") as raster:
        mask = raster.read(1)
    assert set(np.unique(mask)) == {0, 1, 255}
    for row, col in SHEETS:
        with rasterio.open(tmp_path / "masks" / f"{row}_{col}_mask.tif") as raster:
            part = mask[row : row + SIZE[0], col : col + SIZE[1]]
            np.testing.assert_array_equal(raster.read(1), part)
    bare = {"simplify": 0}
    pieces = run(sheets(picture), tmp_path / "bare.gpkg", **bare).landslides
    assert pieces > len(many)  # there was something to leave out
    bays = read(tmp_path / "bare.gpkg").geometry.count_interior_rings().sum()
    assert bays > many.geometry.count_interior_rings().sum()  # and to fill


def test_pieces_of_a_large_landslide_are_no_specks(
    tmp_path: Path, sheets: Callable[[np.ndarray], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.full((120, 160), 50, np.uint8)
    picture[10:21, 60:100] = 200  # 110 m², of which no sheet has more than 83
    picture[50:70, 10:20] = picture[50:70, 120:130] = 200  # 50 m² each
    run(sheets(picture), tmp_path / "slides.gpkg", simplify=0)
    assert "2 of 3 landslides are smaller than 100 m²" in capsys.readouterr().err
    picture[50:70, 120:130] = 50
    run(sheets(picture), tmp_path / "fewer.gpkg", simplify=0)
    assert "smaller than" not in capsys.readouterr().err


def test_sheets_whose_landslides_are_all_alike_or_all_too_small(
    tmp_path: Path, sheets: Callable[[np.ndarray], list[str]]
) -> None:
    picture = np.full((120, 160), 50, np.uint8)
    for row, col in ((20, 75), (20, 80), (90, 75), (90, 85)):  # each on two sheets
        picture[row : row + 3, col : col + 4] = 200
    for area, count in ((0, 4), (2.9, 4), (3.1, 0)):
        options = {"min_area": area, "mask": tmp_path / "masks", "overwrite": True}
        run(sheets(picture), tmp_path / "slides.gpkg", **options)
        layer = read(tmp_path / "slides.gpkg")
        shown = ["0_0.tif, 0_70.tif"] * 2 + ["55_0.tif, 55_70.tif"] * 2
        assert list(layer.scene) == shown[:count]
        with rasterio.open(tmp_path / "masks" / "0_0_mask.tif") as mask:
            assert np.count_nonzero(mask.read(1) == 1) == (24 if count else 0)


@pytest.mark.parametrize("seed", range(4))
def test_sheets_that_overlap_are_simplified_as_one(
    tmp_path: Path, seed: int, sheets: Callable[[np.ndarray], list[str]]
) -> None:
    """No outline moves by more than the tolerance, all stay apart, and seams leave no trace."""
    picture = grey(blobs(seed, (120, 160), 0.15, smooth=3))
    whole = write_scene(tmp_path / "whole.tif", picture)
    run(whole, tmp_path / "exact.gpkg", simplify=0)
    run(whole, tmp_path / "one.gpkg", simplify=2.0)
    run(sheets(picture), tmp_path / "many.gpkg", simplify=2.0)
    exact, one, many = (read(tmp_path / f"{name}.gpkg") for name in ("exact", "one", "many"))
    assert len(exact) == len(one) == len(many)
    assert many.is_valid.all()
    pairs = many.sjoin(many, predicate="intersects")
    assert (pairs.index == pairs["index_right"]).all()
    for outline in many.geometry:
        place = exact.distance(outline.representative_point()).argmin()
        assert exact.boundary[place].hausdorff_distance(outline.boundary) <= 2.0 + 1e-6
    points = [
        int(shapely.get_num_coordinates(layer.geometry).sum()) for layer in (exact, one, many)
    ]
    assert 0.95 * points[1] < points[2] < 1.05 * points[1] < 0.7 * points[0]


@pytest.mark.parametrize(("simplify", "shift"), [(0.35, 0.06), (3.0, 0.08)])
def test_landslides_of_two_grids_that_nearly_touch_stay_apart(
    tmp_path: Path, simplify: float, shift: float
) -> None:
    """Their pixels are apart, by less than outlines move; those that would overlap stay exact."""
    first = blobs(10, (61, 61), 0.25, smooth=1)
    near = first[:-1, :-1] | first[1:, :-1] | first[:-1, 1:] | first[1:, 1:]
    second = blobs(1010, (60, 60), 0.6, smooth=1) & ~near
    place = UTM * Affine.translation(shift, shift)
    scenes = [
        write_scene(tmp_path / "first.tif", grey(first)),
        write_scene(tmp_path / "second.tif", grey(second), transform=place),
    ]
    run(scenes, tmp_path / "slides.gpkg", simplify=simplify)
    layer = read(tmp_path / "slides.gpkg")
    polygons = layer.geometry.to_numpy()
    one, other = layer.sindex.query(polygons, predicate="intersects")
    one, other = one[one < other], other[one < other]
    assert len(one)
    assert not shapely.relate_pattern(polygons[one], polygons[other], "T********").any()
    run(scenes, tmp_path / "exact.gpkg", simplify=0)
    exact = read(tmp_path / "exact.gpkg")
    stay = set(exact.normalize().to_wkb()) & set(layer.normalize().to_wkb())
    assert 0 < len(stay) < 0.3 * len(exact)
    np.testing.assert_allclose(layer.perimeter_m, layer.length, rtol=2e-3)


@pytest.mark.parametrize("whole", [False, True])
def test_a_bay_with_a_landslide_of_another_scene_in_it_is_not_cut_off(
    tmp_path: Path, whole: bool
) -> None:
    """Also where the other scene begins in the bay, which the first one shows empty."""
    first, second = np.full((60, 60), 50, np.uint8), np.full((60, 60), 50, np.uint8)
    first[:40, :40] = 200
    first[32:40, 32:40] = 50  # 8 pixels wide: 5.3 pixels from the line over it
    second[35:, 35:] = 200
    begin = 0 if whole else 35
    place = UTM * Affine.translation(begin, begin)
    scenes = [
        write_scene(tmp_path / "first.tif", first),
        write_scene(tmp_path / "second.tif", second[begin:, begin:], transform=place),
    ]
    run(scenes, tmp_path / "exact.gpkg", simplify=0)
    run(scenes, tmp_path / "slides.gpkg", simplify=3.0)
    exact, layer = (read(tmp_path / f"{name}.gpkg").geometry for name in ("exact", "slides"))
    assert len(layer) == 2
    assert layer[0].distance(layer[1]) > 0
    assert not exact.geom_equals(layer).any()


def test_a_landslide_that_waits_keeps_away_from_one_that_does_not(tmp_path: Path) -> None:
    """In its bay; it goes on in the sheet to the left. Pixels of a tenth of a metre."""
    fine = UTM * Affine.scale(0.2)
    right, left = np.full((60, 60), 50, np.uint8), np.full((60, 20), 50, np.uint8)
    right[:40, :40] = left[:40] = right[35:, 35:] = 200
    right[32:40, 32:35] = right[32:35, 32:40] = 50
    scenes = [
        write_scene(tmp_path / "right.tif", right, transform=fine),
        write_scene(tmp_path / "left.tif", left, transform=fine * Affine.translation(-20, 0)),
    ]
    run(scenes, tmp_path / "slides.gpkg", gsd="native", simplify=0.6)
    layer = read(tmp_path / "slides.gpkg")
    assert sorted(layer.scene) == ["right.tif", "right.tif, left.tif"]
    assert layer.geometry[0].distance(layer.geometry[1]) > 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crs", ["EPSG:32648", "EPSG:32647"])
def test_small_landslides_are_told_when_all_scenes_are_known(
    tmp_path: Path, seed: int, crs: str
) -> None:
    """Sheets that overlap have what one large scene has, though they show pieces of it."""
    found = blobs(seed, (120, 160), 0.3, smooth=2)
    whole = write_scene(tmp_path / "whole.tif", grey(found))
    sheets = []
    for row, col in ((0, 0), (0, 70), (55, 0), (55, 70)):
        part = grey(found[row : row + 65, col : col + 90])
        place = UTM * Affine.translation(col, row)
        sheets.append(write_scene(tmp_path / f"{row}_{col}.tif", part, transform=place))
    if crs != "EPSG:32648":  # the layer is in another CRS than the other sheets
        far = write_scene(tmp_path / "far.tif", grey(found[:9, :9]), crs, UTM)
        sheets.insert(0, far)
    options = {"min_area": 12.0, "fill_holes": 12.0, "simplify": 0}
    run(whole, tmp_path / "one.gpkg", **options)
    run(sheets, tmp_path / "many.gpkg", gsd="native", **options)
    one, many = read(tmp_path / "one.gpkg"), read(tmp_path / "many.gpkg")
    many = many[many.scene != "far.tif"]
    assert len(one) == len(many) > 3
    assert sorted(many.area_m2) == pytest.approx(sorted(one.area_m2), rel=1e-3)
    assert one.area_m2.min() >= 12 * (1 - 1e-9)
    np.testing.assert_allclose(many.confidence, 200 / 255, atol=1e-6)
    np.testing.assert_allclose(many.max_probability, 200 / 255, atol=1e-6)
    assert many.scene.str.contains(", ").any()
    assert set(", ".join(many.scene).split(", ")) <= {Path(sheet).name for sheet in sheets}
    assert many.count_interior_rings().sum() == one.count_interior_rings().sum()
    pieces = run(sheets, tmp_path / "pieces.gpkg", gsd="native", simplify=0).landslides
    assert pieces > len(many) + 3  # there was something to leave out


@pytest.mark.parametrize("crs", ["EPSG:32648", "EPSG:32647"])
def test_pictures_show_the_landslides_of_the_layer(tmp_path: Path, crs: str) -> None:
    """Not those that are left out when all scenes are known, and nothing along their seam."""
    picture = np.full((60, 130), 50, np.uint8)
    picture[10:13, 65:68] = 200  # too small, on both sheets
    picture[25:45, 20:110] = 200
    picture[30:33, 60:63] = 50  # a hole that is filled
    sheets = [
        write_scene(tmp_path / "0.tif", picture[:, :70]),
        write_scene(tmp_path / "1.tif", picture[:, 60:], transform=UTM * Affine.translation(60, 0)),
    ]
    if crs != "EPSG:32648":  # the layer is in another CRS than the sheets
        sheets.insert(0, write_scene(tmp_path / "far.tif", picture, crs))
    options = {"min_area": 5.0, "fill_holes": 5.0, "overlay": tmp_path}
    assert run(sheets, tmp_path / "slides.gpkg", **options).landslides == len(sheets) - 1
    for number, (left, right) in enumerate(((0, 70), (60, 130))):
        expected = np.zeros((60, 130), bool)
        expected[23:47, 18:112] = True
        expected[28:42, 23:107] = False
        with rasterio.open(tmp_path / f"{number}_overlay.png") as raster:
            image = raster.read()
        drawn = (image[0] == 227) & (image[1] == 59)
        assert not (drawn & ~expected[:, left:right]).any()
        assert drawn.any(axis=0).sum() >= 70 - 19


def test_a_sheet_that_lies_apart_but_in_the_bounds_of_others_is_not_asked(tmp_path: Path) -> None:
    """Sheets that are turned have bounds which reach over ground that they do not show."""
    turned = UTM * Affine.rotation(45)
    picture = np.full((128, 128), 50, np.uint8)
    picture[20:110, 20:110] = 200
    places = [turned * Affine.translation(*place) for place in ((0, 0), (100, 0), (0, 140))]
    sheets = [
        write_scene(tmp_path / f"{n}.tif", picture, transform=t) for n, t in enumerate(places)
    ]
    run(sheets, tmp_path / "slides.gpkg", mask=tmp_path / "masks", min_area=5.0)
    assert len(read(tmp_path / "slides.gpkg")) == len(sheets)
    with rasterio.open(tmp_path / "masks" / "2_mask.tif") as mask:
        assert (mask.read(1) == (picture == 200)).all()
