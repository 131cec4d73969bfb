"""``lsmap evaluate`` on two inventories: areas, verdicts, CRS, real polygons."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from click.testing import CliRunner

from landslide_mapper.cli import main
from landslide_mapper.errors import LsmapError, once
from landslide_mapper.evaluation import inventories
from landslide_mapper.evaluation.inventories import compare, disjoint, overlaps

X, Y = 300_000.0, 3_500_000.0


def box(left: float, bottom: float, width: float, height: float) -> shapely.Polygon:
    """A box in metres from the corner of the test ground."""
    return shapely.box(X + left, Y + bottom, X + left + width, Y + bottom + height)


def write(path: Path, shapes: list[shapely.Geometry], crs: str | None = "EPSG:32648") -> str:
    """A layer; returns its path as text."""
    table = geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:32648" if crs else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        table = table.to_crs(crs) if crs else table
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_file(path)
    return str(path)


REFERENCE = [box(0, 0, 40, 20), box(100, 0, 40, 20), box(200, 0, 40, 20), box(300, 0, 40, 20)]
MAPPED = [
    box(0, 0, 40, 16),  # matches the first, IoU 0.8
    box(100, 0, 12, 20),  # 30 % of the second
    box(200, 0, 4, 20),  # 10 % of the third
    box(500, 0, 10, 10),  # nothing there
]


def test_verdicts_by_hand(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a.gpkg", MAPPED), write(tmp_path / "b.gpkg", REFERENCE))
    assert found.reference.verdict.tolist() == ["match", "partial", "missed", "missed"]
    assert found.mapped.verdict.tolist() == ["match", "partial", "partial", "false alarm"]
    assert found.reference.covered == pytest.approx([0.8, 0.3, 0.1, 0.0], abs=1e-6)
    assert found.reference.iou == pytest.approx([0.8, 0.3, 0.1, 0.0], abs=1e-6)
    assert found.reference.partner.tolist() == [1, -1, -1, -1]
    scale = found.reference_area / 3200
    assert scale == pytest.approx(1, abs=2e-3)  # square metres of the grid are not those on earth
    assert found.shared_area / scale == pytest.approx(640 + 240 + 80, rel=1e-5)
    values = found.to_dict()
    assert values["objects"]["found"] == 2
    assert values["objects"]["matched_reference"] == 1
    assert sorted(row["fid"] for row in values["missed"]) == [3, 4]
    assert [row["fid"] for row in values["false_alarms"]] == [4]
    assert values["area"]["iou"] == pytest.approx(960 / 3300, rel=1e-4)
    assert values["area"]["f1"] == pytest.approx(960 * 2 / (3200 + 1060), rel=1e-4)


def test_areas_are_geodesic_in_any_crs(tmp_path: Path) -> None:
    boxes = [box(0, 0, 4000, 3000), box(20_000, 9_000, 50, 30)]
    geod = pyproj.Geod(ellps="WGS84")
    lonlat = geopandas.GeoSeries(boxes, crs=32648).segmentize(100).to_crs(4326)
    wanted = [abs(geod.geometry_area_perimeter(shape)[0]) for shape in lonlat]
    for crs in ("EPSG:32648", "EPSG:4326", "EPSG:3857"):
        path = write(tmp_path / f"{crs[5:]}.gpkg", boxes, crs)
        found = compare(path, path)
        assert found.reference.area == pytest.approx(wanted, rel=2e-5)


def test_long_edges_in_degrees_follow_the_parallel(tmp_path: Path) -> None:
    wide = geopandas.GeoSeries([shapely.box(0, 60, 5.4, 61)], crs=4326)  # 300 km
    wide.to_file(tmp_path / "wide.gpkg")
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(wide.segmentize(0.001)[0])
    found = compare(str(tmp_path / "wide.gpkg"), str(tmp_path / "wide.gpkg"))
    assert found.reference.area == pytest.approx([abs(area)], rel=1e-6)


def test_crs_may_differ(tmp_path: Path) -> None:
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    for crs, suffix in (("EPSG:4326", "geojson"), ("EPSG:3857", "shp")):
        found = compare(write(tmp_path / f"a.{suffix}", REFERENCE, crs), reference)
        assert found.areas["iou"] == pytest.approx(1, abs=1e-4)
        assert set(found.reference.verdict) == set(found.mapped.verdict) == {"match"}


def test_overlaps_within_a_layer_count_once(tmp_path: Path) -> None:
    twice = [box(0, 0, 40, 20), box(20, 0, 40, 20), box(60, 0, 10, 20)]
    found = compare(write(tmp_path / "a.gpkg", twice), write(tmp_path / "b.gpkg", twice[::-1]))
    scale = found.areas["mapped"] / 1400
    assert scale == pytest.approx(1, abs=2e-3)
    assert found.areas["iou"] == pytest.approx(1, abs=1e-9)
    assert found.mapped.covered.max() <= 1
    assert found.mapped.verdict.tolist() == ["match"] * 3


def test_a_landslide_in_two_pieces_has_the_iou_of_the_better_one(tmp_path: Path) -> None:
    pieces = [box(0, 0, 4, 20), box(10, 0, 16, 20), box(30, 0, 6, 20)]
    mapped, reference = write(tmp_path / "a.gpkg", pieces), write(tmp_path / "b.gpkg", REFERENCE)
    assert compare(mapped, reference).reference.iou[0] == pytest.approx(0.4, abs=1e-6)


def test_ground_that_two_of_the_other_layer_show_is_covered_once(tmp_path: Path) -> None:
    pieces = [box(0, 0, 5, 20), box(1, 0, 5, 20)]  # 6 of 40 m together
    mapped, reference = write(tmp_path / "a.gpkg", pieces), write(tmp_path / "b.gpkg", REFERENCE)
    found = compare(mapped, reference).reference
    assert found.covered[0] == pytest.approx(0.15, abs=1e-6)
    assert found.verdict[0] == "missed"


def test_polygons_that_only_touch_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "AT_ONCE", 2)  # pairs are cut in several portions
    first = np.array([shapely.box(x, 0, x + 1, 1) for x in range(5)])
    pairs, shared = overlaps(first, first)
    assert pairs.tolist() == [[n, n] for n in range(5)]
    assert shared.tolist() == [1] * 5


def test_each_layer_has_an_option_of_its_own(tmp_path: Path) -> None:
    a, b = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    for path, name, shapes in (
        (a, "mapped", MAPPED),
        (a, "other", MAPPED[3:]),
        (b, "real", REFERENCE),
        (b, "other", REFERENCE[3:]),
    ):
        geopandas.GeoDataFrame(geometry=shapes, crs=32648).to_file(path, layer=name)
    found = compare(str(a), str(b), layer="mapped", reference_layer="real")
    assert (len(found.mapped), len(found.reference)) == (4, 4)
    with pytest.raises(LsmapError, match=r"a\.gpkg.* --layer"):
        compare(str(a), str(b), reference_layer="real")
    with pytest.raises(LsmapError, match=r"b\.gpkg.* --reference-layer"):
        compare(str(a), str(b), layer="mapped")


def test_the_aoi_cuts(tmp_path: Path) -> None:
    aoi = write(tmp_path / "aoi.gpkg", [box(-10, -10, 120, 100)], "EPSG:4326")
    paths = write(tmp_path / "a.gpkg", MAPPED), write(tmp_path / "b.gpkg", REFERENCE)
    found = compare(*paths, aoi=aoi)
    assert found.reference.fids.tolist() == found.mapped.fids.tolist() == [1, 2]
    assert found.reference.area[1] / found.reference.area[0] == pytest.approx(0.25, abs=1e-3)
    assert found.reference.verdict.tolist() == ["match", "match"]  # 10 m of 12 m by 20 m are seen
    straight = write(tmp_path / "straight.gpkg", [box(40, -10, 360, 100)])
    assert compare(*paths, aoi=straight).reference.fids.tolist() == [2, 3, 4]  # 1 touches it
    far = write(tmp_path / "far.gpkg", [box(5000, 0, 10, 10)])
    with pytest.raises(LsmapError, match="inside"):
        compare(*paths, aoi=far)


def test_what_may_not_have_been_mapped_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapped = write(tmp_path / "a.gpkg", MAPPED[:3])  # their box ends at x = 204
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    compare(mapped, reference)
    assert "1 of 4 landslides of" in capsys.readouterr().err
    compare(mapped, reference, write(tmp_path / "aoi.gpkg", [box(0, 0, 400, 20)]))
    assert "landslides of" not in capsys.readouterr().err


def test_a_dissolved_layer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All landslides are one there, and none of the other layer matches it."""
    mapped = write(tmp_path / "a.gpkg", [*MAPPED[:2], shapely.MultiPolygon(MAPPED[2:3])])
    reference = write(tmp_path / "b.gpkg", [shapely.union_all(MAPPED[:3]), box(50, 0, 9, 9)])
    assert len(compare(mapped, reference).reference) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"Note: {reference}: 1 of 2 landslides are polygons in several parts, 3")
    assert "ogr2ogr -explodecollections" in said


def test_an_aoi_without_polygons_is_named(tmp_path: Path) -> None:
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    points = write(tmp_path / "points.gpkg", [shapely.Point(X, Y)])
    with pytest.raises(LsmapError, match=r"points\.gpkg: there is no polygon in it that could be"):
        compare(write(tmp_path / "a.gpkg", MAPPED), reference, points)


def test_an_empty_map_finds_nothing(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a.gpkg", []), write(tmp_path / "b.gpkg", REFERENCE))
    assert found.reference.verdict.tolist() == ["missed"] * 4
    assert found.areas["precision"] == found.areas["recall"] == 0


def test_what_lies_out_of_reach_does_not_count(tmp_path: Path) -> None:
    """Metres that are said to be degrees lie nowhere."""
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    nowhere = [shapely.box(3e5, 3.5e6, 3e5 + 40, 3.5e6 + 20)]
    path = tmp_path / "a.gpkg"
    mapped = geopandas.GeoDataFrame(geometry=MAPPED, crs=32648).to_crs(4326).geometry.tolist()
    geopandas.GeoDataFrame(geometry=mapped + nowhere, crs=4326).to_file(path)
    assert len(compare(str(path), reference).mapped) == 4
    geopandas.GeoDataFrame(geometry=nowhere, crs=4326).to_file(path)
    with pytest.raises(LsmapError, match="lie"):
        compare(reference, str(path))
    # None of it is a layer that is said to be in another CRS, and no map that found nothing.
    for paths in ((str(path), reference), (reference, reference, str(path))):
        with pytest.raises(LsmapError, match=r"a\.gpkg: no polygon .*EPSG:4326.* ogr2ogr -a_srs"):
            compare(*paths)


def test_layers_without_crs(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.gpkg", MAPPED, None), write(tmp_path / "b.gpkg", REFERENCE, None)
    found = compare(a, b)
    assert found.unit == "units²"
    assert found.reference_area == 3200
    assert found.reference.verdict.tolist() == ["match", "partial", "missed", "missed"]
    with pytest.raises(LsmapError, match="has no coordinate reference system"):
        compare(a, write(tmp_path / "c.gpkg", REFERENCE))


@pytest.mark.parametrize("crs", ["ESRI:54050", "EPSG:4978"])  # without a way back; geocentric
def test_what_is_no_map_of_an_ellipsoid_is_one_line(tmp_path: Path, crs: str) -> None:
    table = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 9, 9)], crs=crs)
    table.to_file(tmp_path / "a.gpkg")
    with pytest.raises(LsmapError, match="areas need maps on an ellipsoid"):
        compare(str(tmp_path / "a.gpkg"), str(tmp_path / "a.gpkg"))


def test_layers_of_two_planets_are_named_with_their_own_crs(tmp_path: Path) -> None:
    mars = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 9, 9)], crs="IAU_2015:49900")
    mars.to_file(tmp_path / "mars.gpkg")
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    with pytest.raises(LsmapError, match=r"to that of .*b\.gpkg \(EPSG:32648\); are they on"):
        compare(str(tmp_path / "mars.gpkg"), reference)


def test_a_shift_between_layers_that_is_not_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = write(tmp_path / "b.gpkg", REFERENCE)
    mapped = write(tmp_path / "a.gpkg", MAPPED, "EPSG:4610")  # Xian 1980
    once.cache_clear()
    assert len(compare(mapped, reference).mapped) == 4
    assert "the shift between the datums of Xian 1980" in capsys.readouterr().err


def test_over_the_antimeridian(tmp_path: Path) -> None:
    shapes = [shapely.box(179.99, -16, 180, -15.99), shapely.box(-180, -16, -179.99, -15.99)]
    path = tmp_path / "fiji.gpkg"
    geopandas.GeoDataFrame(geometry=shapes, crs=4326).to_file(path)
    found = compare(str(path), str(path))
    assert found.reference.area[0] == pytest.approx(found.reference.area[1], rel=1e-9)
    assert found.reference.area[0] == pytest.approx(1.185e6, rel=2e-3)


def test_disjoint_keeps_the_ground() -> None:
    rng = np.random.default_rng(0)
    circles = np.asarray(
        shapely.buffer(shapely.points(rng.random((60, 2)) * 30), rng.random(60) * 3)
    )
    pieces = disjoint(circles)
    assert shapely.area(pieces).sum() == pytest.approx(shapely.union_all(circles).area)
    pairs, _ = overlaps(pieces, pieces)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len(disjoint(np.empty(0, object))) == 0


@pytest.mark.parametrize("suffix", [".shp", ".parquet"])
def test_the_command_writes_verdicts(tmp_path: Path, suffix: str) -> None:
    a = write(tmp_path / "a.geojson", MAPPED, "EPSG:4326")
    b = write(tmp_path / f"b{suffix}", REFERENCE)
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["evaluate", a, b, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "2 missed; of the mapped 2 partly right, 1 false alarms" in result.output
    assert {path.name for path in out.iterdir()} == {"metrics.json", "verdicts.gpkg"}
    assert json.loads((out / "metrics.json").read_text("utf-8"))["kind"] == "inventories"
    layer = geopandas.read_file(out / "verdicts.gpkg", layer="verdicts")
    assert layer.crs.to_epsg() == 32648
    assert layer.groupby("role").size().to_dict() == {"mapped": 4, "reference": 4}
    first = layer[(layer.role == "mapped") & (layer.verdict == "match")].iloc[0]
    assert first.geometry.equals_exact(shapely.MultiPolygon([MAPPED[0]]).normalize(), 0.01) or (
        first.geometry.symmetric_difference(MAPPED[0]).area < 0.01
    )
    assert first.area_m2 == pytest.approx(640, rel=2e-3)
    styles = pyogrio.read_dataframe(out / "verdicts.gpkg", layer="layer_styles")
    qml = styles.styleQML.iloc[0]
    assert styles.useAsDefault.iloc[0]
    assert all(
        f'value="{role} {verdict}"' in qml
        for role, verdict in zip(layer.role, layer.verdict, strict=True)
    )


def verdicts(folder: Path, mapped: list[shapely.Geometry], crs: str, to: str) -> tuple[object, str]:
    """The layer of verdicts on polygons in `crs` whose reference is in `to`; what was said."""
    a, b = folder / "a.gpkg", folder / "b.gpkg"
    geopandas.GeoDataFrame(geometry=mapped, crs=crs).to_file(a)
    geopandas.GeoDataFrame(geometry=mapped[:1], crs=crs).to_crs(to).to_file(b)
    result = CliRunner().invoke(main, ["evaluate", str(a), str(b), "-o", str(folder / "out")])
    assert result.exit_code == 0, result.output
    layer = geopandas.read_file(folder / "out" / "verdicts.gpkg", layer="verdicts")
    return layer[layer.role == "mapped"], result.output


def test_what_the_reference_does_not_reach_has_a_verdict_but_no_shape(tmp_path: Path) -> None:
    """Africa has no place on the map of a zone in Asia."""
    mapped = [shapely.box(105, 30, 105.01, 30.01), shapely.box(15, 1, 15.01, 1.01)]
    layer, said = verdicts(tmp_path, mapped, "EPSG:4326", "EPSG:32648")
    assert layer.verdict.tolist() == ["match", "false alarm"]  # type: ignore[attr-defined]
    assert layer.geometry.isna().tolist() == [False, True]  # type: ignore[attr-defined]
    assert layer.partner.isna().tolist() == [False, True]  # type: ignore[attr-defined]
    assert "1 landslides cannot be drawn in the CRS of the reference (EPSG:32648)" in said
    bounds = pyogrio.read_info(tmp_path / "out" / "verdicts.gpkg", layer="verdicts")["total_bounds"]
    assert np.isfinite(bounds).all()


def test_a_landslide_over_the_antimeridian_is_not_wrapped_around_the_globe(tmp_path: Path) -> None:
    boxes = [shapely.box(179.9, -16, 179.95, -15.99), shapely.box(179.99, -16, 180.01, -15.9)]
    near = geopandas.GeoSeries(boxes, crs=4326).to_crs(32760)
    layer, said = verdicts(tmp_path, list(near), "EPSG:32760", "EPSG:4326")
    assert "cannot be drawn" not in said
    west, east = sorted(part.bounds for part in layer.geometry.iloc[1].geoms)  # type: ignore[attr-defined]
    assert west == pytest.approx((-180, -16, -179.99, -15.9), abs=1e-6)
    assert east == pytest.approx((179.99, -16, 180, -15.9), abs=1e-6)
    (tmp_path / "world").mkdir()
    layer, said = verdicts(tmp_path / "world", list(near), "EPSG:32760", "EPSG:3857")
    assert layer.geometry.isna().tolist() == [False, True]  # type: ignore[attr-defined]
    assert "1 landslides cannot be drawn" in said


@pytest.mark.shared
def test_real_relict_landslides(shared_data: Path, tmp_path: Path) -> None:
    path = next((shared_data / "polygons" / "relict_brazil").glob("*.geojson"))
    same = compare(str(path), str(path))
    assert same.areas["iou"] == pytest.approx(1, abs=1e-9)
    assert set(same.reference.verdict) == {"match"}
    assert len(same.reference) == 276
    moved = geopandas.read_file(path)
    moved["geometry"] = moved.translate(8, 5)
    moved.iloc[10:].to_crs(4326).to_file(tmp_path / "moved.gpkg")
    found = compare(str(tmp_path / "moved.gpkg"), str(path))
    assert 0.70 < found.areas["iou"] < 0.80
    assert found.to_dict()["verdicts"]["reference"]["missed"] == 10


def test_a_map_in_the_place_of_the_truth_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write(tmp_path / "own.gpkg", [box(0, 0, 30, 30)])
    fields = {"id": [1], "confidence": [0.9], "review": [None]}
    table = geopandas.GeoDataFrame(fields, geometry=[box(0, 0, 30, 20)], crs="EPSG:32648")
    table.to_file(tmp_path / "map.gpkg")
    slides = str(tmp_path / "map.gpkg")
    compare(own, slides)
    assert f"{slides} is a map of lsmap's and stands for the truth" in capsys.readouterr().err
    compare(slides, own)
    compare(slides, slides)
    assert "stands for the truth" not in capsys.readouterr().err
