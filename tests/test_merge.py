"""A landslide that several scenes show becomes one; nothing else is put together."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely
from affine import Affine
from fakes import blobs
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import shapes
from shapely.geometry import shape

from landslide_mapper.geo.measure import Measurer, reproject
from landslide_mapper.geo.merge import Merger

UTM = pyproj.CRS.from_epsg(32648)
GRID = Affine(0.5, 0, 400000, 0, -0.5, 3500000)
NUMBERS = ("area_m2", "perimeter_m", "length_m", "width_m", "confidence", "max_probability")


def polygons_of(mask: np.ndarray, transform: Affine = GRID) -> np.ndarray:
    found = shapes(mask.astype(np.uint8), mask=mask, connectivity=4, transform=transform)
    return np.array([shape(geometry) for geometry, _ in found], dtype=object)


def columns_of(polygons: np.ndarray, scene: str, confidence: float = 0.7) -> dict[str, object]:
    measurer = Measurer(UTM, Affine.identity(), 1.0)
    table: dict[str, object] = {name: np.full(len(polygons), confidence) for name in NUMBERS}
    table |= {"area_m2": measurer.area(polygons), "lon": np.zeros(len(polygons))}
    table |= {"lat": np.zeros(len(polygons)), "scene": scene, "model": "fake"}
    return table


def footprint(rows: tuple[int, int], cols: tuple[int, int]) -> shapely.Polygon:
    corners = [GRID * (cols[0], rows[1]), GRID * (cols[1], rows[0])]
    return shapely.box(*corners[0], *corners[1])


def merged(cuts: list[tuple[shapely.Polygon, np.ndarray]]) -> tuple[np.ndarray, dict]:
    merger = Merger([outline for outline, _ in cuts], 0.5, UTM)
    out = [
        merger.add(number, polygons, columns_of(polygons, f"{number}.tif", 0.5 + number / 10))
        for number, (_, polygons) in enumerate(cuts)
    ]
    out.append(merger.finish())
    assert merger.finish()[0].size == 0
    kept = [(polygons, columns) for polygons, columns in out if len(polygons)]
    if not kept:
        return np.empty(0, dtype=object), {}
    names = kept[0][1]
    assert all(len(values) == len(p) for p, columns in kept for values in columns.values())
    return (
        np.concatenate([polygons for polygons, _ in kept]),
        {name: np.concatenate([columns[name] for _, columns in kept]) for name in names},
    )


def sorted_sets(polygons: np.ndarray) -> list[shapely.Polygon]:
    return sorted(shapely.normalize(polygons).tolist(), key=lambda polygon: polygon.wkb)


@given(
    seed=st.integers(0, 9999),
    smooth=st.integers(0, 2),
    share=st.floats(0.1, 0.7),
    cuts=st.tuples(st.integers(1, 29), st.integers(1, 29)),
    down=st.booleans(),
)
def test_two_cuts_of_a_mask_make_the_whole_again(
    seed: int, smooth: int, share: float, cuts: tuple[int, int], down: bool
) -> None:
    """With any overlap, none included; corners where landslides only touch keep them apart."""
    mask = blobs(seed, (30, 30), share, smooth)
    first, second = min(cuts), max(cuts)
    left, right = mask.copy(), mask.copy()
    left[:, second:] = False
    right[:, :first] = False
    sides = [((0, 30), (0, second)), ((0, 30), (first, 30))]
    if down:
        mask, left, right = mask.T, left.T, right.T
        sides = [(cols, rows) for rows, cols in sides]
    outlines = [footprint(*side) for side in sides]
    found, columns = merged([(outlines[0], polygons_of(left)), (outlines[1], polygons_of(right))])
    expected = polygons_of(mask)
    assert len(found) == len(expected)
    for one, two in zip(sorted_sets(found), sorted_sets(expected), strict=True):
        assert one.is_valid
        assert one.equals(two)
    if len(found):
        measurer = Measurer(UTM, Affine.identity(), 1.0)
        np.testing.assert_allclose(columns["area_m2"], measurer.area(found), rtol=1e-9)
        several = [", " in scene for scene in columns["scene"]]
        assert set(columns["scene"]) <= {"0.tif", "1.tif", "0.tif, 1.tif"}
        assert ((columns["confidence"] > 0.5) & (columns["confidence"] < 0.6))[several].all()
        assert (columns["max_probability"][several] == 0.6).all()


def test_scenes_that_do_not_meet_pass_through() -> None:
    polygons = polygons_of(blobs(1, (30, 30)))
    aside = shapely.transform(polygons, lambda points: points + 1000)
    merger = Merger(
        [footprint((0, 30), (0, 30)), shapely.box(*shapely.total_bounds(aside))], 1, UTM
    )
    for number, some in enumerate((polygons, aside)):
        out, columns = merger.add(number, some, columns_of(some, "a.tif"))
        assert out is some
        assert list(columns["scene"]) == ["a.tif"] * len(some)
    assert len(merger.finish()[0]) == 0


def test_scenes_of_another_crs_meet_within_the_slack() -> None:
    """The second scene lies beside the first one, and its corners are rounded on the way here."""
    left, right = shapely.box(400000, 0, 400010, 10), shapely.box(400010, 5, 400020, 15)
    for shift, count in ((0.0, 1), (0.01, 1), (-0.01, 1), (0.1, 2)):
        there = pyproj.Transformer.from_crs(32648, 4326, always_xy=True)
        back = pyproj.Transformer.from_crs(4326, 32648, always_xy=True)
        moved = np.array([shapely.affinity.translate(right, shift)])
        moved = reproject(reproject(moved, there), back)
        outlines = [left, shapely.box(400010, 0, 400020, 15)]
        found, columns = merged([(outlines[0], np.array([left])), (outlines[1], moved)])
        assert len(found) == count
        assert all(p.geom_type == "Polygon" and p.is_valid and not p.interiors for p in found)
        if count == 1:
            assert abs(found[0].area - 200) < 0.11
            assert columns["scene"][0] == "0.tif, 1.tif"


def test_polygons_of_one_scene_stay_apart_and_order_is_kept() -> None:
    outline = shapely.box(0, 0, 10, 10)
    first = shapely.box([0, 2, 8], [0, 0, 0], [2, 4, 9], [1, 1, 1])  # two share an edge
    second = shapely.box([8.5], [0.5], [9.5], [1.5])
    found, columns = merged([(outline, first), (outline, second)])
    assert [polygon.bounds for polygon in found] == [(0, 0, 2, 1), (2, 0, 4, 1), (8, 0, 9.5, 1.5)]
    assert list(columns["scene"]) == ["0.tif", "0.tif", "0.tif, 1.tif"]
