"""Labels: every kind of awkward layer is read, repaired and counted, or refused in one line."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from fakes import write_scene
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio.errors import DataSourceError
from test_scene import ramp, write

from landslide_mapper.errors import LsmapError, once
from landslide_mapper.geo.crs import crs_name
from landslide_mapper.geo.labels import (
    LabelCounts,
    Labels,
    OptionNames,
    _clean,
    _layer_crs,
    is_vector,
    read_labels,
)
from landslide_mapper.geo.placing import (
    burn,
    ground_near,
    in_scene_crs,
    near_scene,
)
from landslide_mapper.geo.scene import Scene, open_scene
from landslide_mapper.info import describe

BOX = shapely.box(500010, 3999950, 500040, 3999980)
BOWTIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])


def save(
    path: Path, shapes: Sequence[object], crs: str | None = "EPSG:32632", **more: object
) -> str:
    frame = geopandas.GeoDataFrame(more or {"a": range(len(shapes))}, geometry=shapes, crs=crs)
    pyogrio.write_dataframe(frame, path)
    return str(path)


def test_what_is_no_polygon_is_counted_and_left_out(tmp_path: Path) -> None:
    shapes = [BOX, None, shapely.Polygon(), shapely.Point(1, 1), BOWTIE]
    labels = read_labels(save(tmp_path / "l.gpkg", shapes))
    assert labels.counts.to_dict() == {
        "features": 5,
        "null_or_empty": 2,
        "not_polygon": 1,
        "repaired": 1,
        "degenerate": 0,
    }
    assert len(labels.polygons) == 2
    assert shapely.is_valid(labels.polygons).all()
    assert shapely.area(labels.polygons[1]) == pytest.approx(50)


def test_surfaces_in_space_are_no_polygons() -> None:
    surface = struct.pack("<BII", 1, 15, 0)  # a PolyhedralSurface without faces
    counts = _clean(np.array([surface, None, shapely.to_wkb(BOX)], dtype=object))[2]
    assert (counts.not_polygon, counts.null_or_empty, counts.features) == (1, 1, 3)


def test_a_type_of_geometry_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = save(tmp_path / "l.gpkg", [BOX])
    with sqlite3.connect(path) as database:  # as an untyped layer with heights is exported
        database.execute("UPDATE gpkg_geometry_columns SET geometry_type_name='GEOMETRY', z=1")
    for use in (read_labels, is_vector):
        with pytest.raises(LsmapError, match="-nlt MULTIPOLYGON"):
            use(path)


def test_coordinates_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    odd = shapely.Polygon([(0, 0), (1, np.nan), (1, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, _, counts = _clean(np.array([shapely.to_wkb(odd), shapely.to_wkb(BOX)], dtype=object))
    assert counts.features == 2
    assert counts.degenerate + counts.repaired == 1


def test_polygons_of_nested_collections_count(tmp_path: Path) -> None:
    inner = shapely.GeometryCollection([shapely.Point(0, 0), shapely.box(20, 0, 30, 10)])
    outer = shapely.GeometryCollection([shapely.box(0, 0, 10, 10), inner])
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    others = [shapely.GeometryCollection([part]) for part in (inner, flat, shapely.Point(0, 0))]
    labels = read_labels(save(tmp_path / "l.gpkg", [outer, *others]))
    assert shapely.area(labels.polygons).tolist() == [200, 100]
    assert (labels.counts.degenerate, labels.counts.not_polygon) == (1, 1)


def test_a_shapefile_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    """GDAL takes the shapes that are missing for null, and their ground would be background."""
    boxes = [shapely.box(x, 0, x + 1, 1) for x in range(10)]
    path = Path(save(tmp_path / "l.shp", [None, *boxes]))
    assert len(read_labels(str(path)).polygons) == 10
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 300)
    with pytest.raises(LsmapError, match="cut short, 3 of its shapes are missing"):
        read_labels(str(path))
    path.with_suffix(".shx").write_bytes(b"")
    with pytest.raises(LsmapError):
        read_labels(str(path))


def test_open_rings_are_closed_and_counted(tmp_path: Path) -> None:
    """As KML and GeoJSON that scripts have written often have them."""
    path = tmp_path / "l.geojson"
    whole = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    polygons = [[whole], [whole[:-1]], [whole, [[1, 1], [2, 1], [2, 2]]], [[[0, 0], [4, 4]]]]
    shapes = [{"type": "Polygon", "coordinates": rings} for rings in polygons]
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in shapes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    labels = read_labels(str(path))
    assert shapely.area(labels.polygons).tolist() == [16, 16, 15.5]
    assert (labels.counts.repaired, labels.counts.degenerate) == (2, 1)
    assert labels.counts.not_polygon == 0


def test_curves_in_collections_are_one_line(tmp_path: Path) -> None:
    """GDAL makes polygons of curves, but not inside of collections."""
    path = tmp_path / "l.csv"
    circle = "CURVEPOLYGON (CIRCULARSTRING (0 0, 2 0, 0 0))"
    path.write_text(f'WKT\n"{circle}"\n')
    assert shapely.area(read_labels(str(path)).polygons) == pytest.approx(np.pi, rel=1e-2)
    path.write_text(f'WKT\n"GEOMETRYCOLLECTION ({circle})"\n')
    with pytest.raises(LsmapError, match="-explodecollections"):
        read_labels(str(path))


def test_geoparquet_is_a_vector_layer(tmp_path: Path) -> None:
    path = tmp_path / "l.parquet"
    shapes = [BOX, None, shapely.box(0, 0, 1, 1)]
    frame = geopandas.GeoDataFrame({"kind": ["a", "b", "b"]}, geometry=shapes, crs=32632)
    frame.to_parquet(path)
    labels = read_labels(str(path))
    assert shapely.equals(labels.polygons, frame.geometry.values[[0, 2]]).all()
    assert crs_name(labels.crs) == "EPSG:32632"
    assert labels.counts.null_or_empty == 1
    assert len(read_labels(str(path), where="kind = 'b'").polygons) == 1
    with pytest.raises(LsmapError, match="fields are: kind"):
        read_labels(str(path), where="sort = 'b'")
    assert describe(str(path)).kind == "labels"
    frame["moved"] = frame.geometry.translate(1)
    frame["lasted"] = [timedelta(1)] * 3
    frame.to_parquet(path)
    assert len(read_labels(str(path), where="kind = 'b'").polygons) == 1
    path.write_bytes(b"PAR1")
    with pytest.raises(LsmapError, match="cannot be read as GeoParquet"):
        read_labels(str(path))


def test_flat_polygon_is_degenerate(tmp_path: Path) -> None:
    flat = shapely.Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    assert read_labels(save(tmp_path / "l.gpkg", [BOX, flat])).counts.degenerate == 1


@pytest.mark.parametrize("suffix", ["shp", "gpkg", "fgb", "geojson", "gml", "sqlite"])
def test_conditions_choose_the_same_in_every_format(suffix: str, tmp_path: Path) -> None:
    kinds = ["slide", "maybe", "slide"]
    boxes = [shapely.box(x, 0, x + 1, 1) for x in range(3)]
    path = save(tmp_path / f"l.{suffix}", boxes, kind=kinds, sure=[1, 0, 0])
    assert len(read_labels(path, where="kind = 'slide'").polygons) == 2
    assert len(read_labels(path, where="sure = 0").polygons) == 2
    left = read_labels(path).without(read_labels(path, where="kind = 'maybe'"))
    assert len(left.polygons) == 2


def test_features_keep_their_ids_beside_others_that_are_no_polygons(tmp_path: Path) -> None:
    path = tmp_path / "l.gpkg"
    shapes = [shapely.Point(0, 0), shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)]
    kinds = {"kind": ["maybe", "sure", "maybe"]}
    geopandas.GeoDataFrame(kinds, geometry=shapes, crs="EPSG:32632").to_file(path)
    left = read_labels(path).without(read_labels(path, where="kind = 'maybe'"))
    assert [polygon.bounds for polygon in left.polygons] == [(0, 0, 1, 1)]


def test_of_joined_layers_what_fulfils_a_condition_is_told_without_ids(tmp_path: Path) -> None:
    """A VRT counts the features that a condition takes from 0, and so do views of databases."""
    for name, x in (("a", 0), ("b", 10)):
        shapes = [shapely.box(x, 0, x + 1, 1), shapely.box(x + 2, 0, x + 3, 1)]
        save(tmp_path / f"{name}.gpkg", shapes, kind=["slide", "maybe"])
    vrt = tmp_path / "both.vrt"
    parts = [
        f'<OGRVRTLayer name="{name}"><SrcDataSource>{tmp_path / name}.gpkg</SrcDataSource>'
        "</OGRVRTLayer>"
        for name in "ab"
    ]
    joined = f'<OGRVRTUnionLayer name="both">{"".join(parts)}</OGRVRTUnionLayer>'
    vrt.write_text(f"<OGRVRTDataSource>{joined}</OGRVRTDataSource>")
    left = read_labels(str(vrt)).without(read_labels(str(vrt), where="kind = 'maybe'"))
    assert [polygon.bounds for polygon in left.polygons] == [(0, 0, 1, 1), (10, 0, 11, 1)]


def test_of_copies_only_what_fulfils_the_condition_goes(tmp_path: Path) -> None:
    """Who drew a landslide twice may reject one of the two."""
    path = save(tmp_path / "l.gpkg", [BOX] * 3, review=["yes", "no", "no"])
    every, rejected = read_labels(path), read_labels(path, where="review = 'no'")
    assert every.without(rejected).fids.tolist() == [1]
    assert every.without(read_labels(path, where="review = 'yes'")).fids.tolist() == [2, 3]


def test_other_names_of_gdal_are_names(tmp_path: Path) -> None:
    path = save(tmp_path / "l.gpkg", [BOX])
    assert len(read_labels(f"GPKG:{path}:l", layer="l").polygons) == 1


def test_where_and_layer(tmp_path: Path) -> None:
    path = save(tmp_path / "l.gpkg", [BOX, BOWTIE], kind=["slide", "maybe"])
    assert len(read_labels(path, where="kind = 'slide'").polygons) == 1
    with pytest.raises(LsmapError, match="fields are: kind"):
        read_labels(path, where="colour = 1")
    with pytest.raises(LsmapError, match="no layer 'x'; it has l"):
        read_labels(path, layer="x")
    frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[BOX], crs="EPSG:32632")
    pyogrio.write_dataframe(frame, path, layer="second")
    with pytest.raises(LsmapError, match=r"several layers.*file of its own"):
        read_labels(path)
    with pytest.raises(LsmapError, match=r"several layers.*choose one with --reference-layer"):
        read_labels(path, options=OptionNames("--reference-layer"))
    assert len(read_labels(path, layer="second").polygons) == 1


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon", "Unknown"])
def test_of_several_layers_the_one_that_has_polygons_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "l.gpkg"
    for layer, shape, of in (("notes", BOX.centroid, "Point"), ("slides", BOX, kind)):
        frame = geopandas.GeoDataFrame({"a": [1]}, geometry=[shape], crs="EPSG:32632")
        pyogrio.write_dataframe(frame, path, layer=layer, geometry_type=of)
    pyogrio.write_dataframe(frame.drop(columns="geometry"), path, layer="table")
    labels = read_labels(str(path))
    assert (labels.layer, len(labels.polygons)) == ("slides", 1)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson"])
def test_a_name_in_quotes_that_is_no_field_is_refused(tmp_path: Path, suffix: str) -> None:
    """SQLite would take it for a text, which is unlike every other."""
    path = str(tmp_path / f"l{suffix}")
    geopandas.GeoDataFrame({"kind": ["a", "b"]}, geometry=[BOX, BOX], crs=32632).to_file(path)
    assert len(read_labels(path, where="\"kind\" = 'a'").polygons) == 1
    assert len(read_labels(path, where='"KIND" != \'say "a"\' AND "fid" < 9').polygons) == 2
    for where in ("\"knid\" != 'a'", "kind = 'b' OR \"Kind of slide\" = 'a'"):
        with pytest.raises(LsmapError, match=r"which the layer has not; its fields are: kind"):
            read_labels(path, where=where)


@pytest.mark.parametrize("suffix", [".shp", ".csv", ".geojson"])
def test_texts_that_are_not_in_the_encoding_that_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"l{suffix}"
    if suffix == ".csv":
        path.write_bytes(f'WKT,größe\n"{BOX}",1\n"{BOX}",2\n'.encode("latin-1"))
    else:
        save(path, [BOX, BOX], größe=[1, 2])
        data = path.with_suffix(".dbf") if suffix == ".shp" else path
        text = data.read_bytes()
        assert "größe".encode() in text
        name = "größe".encode("latin-1")
        name += b"\0\0" if suffix == ".shp" else b""  # names have a fixed width there
        data.write_bytes(text.replace("größe".encode(), name))
    assert len(read_labels(str(path)).polygons) == 2
    if suffix == ".shp":  # GDAL knows no other encoding of the rest than UTF-8
        assert len(read_labels(str(path), where='"größe" > 1').polygons) == 1
    with pytest.raises(LsmapError, match=r"was refused .* the layer's fields are: .*größe"):
        read_labels(str(path), where="größe >")
    (layer,) = describe(str(path)).to_dict()["layers"]
    assert "größe" in layer["fields"]


def test_the_column_of_ids_is_a_name_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "l.gpkg"
    frame = geopandas.GeoDataFrame({"kind": ["a", "b"]}, geometry=[BOX, BOX], crs=32632)
    pyogrio.write_dataframe(frame, path, layer_options={"FID": "number"})
    assert len(read_labels(str(path), where='"number" = 1').polygons) == 1


def test_labels_come_in_the_scene_crs(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "s.tif", ramp()))
    there = geopandas.GeoSeries([BOX], crs="EPSG:32632").to_crs("EPSG:4326")
    labels = read_labels(save(tmp_path / "l.geojson", list(there), crs="EPSG:4326"))
    moved, lost = in_scene_crs(labels, scene)
    assert lost == 0
    assert shapely.hausdorff_distance(moved[0], BOX) < 0.02


@pytest.mark.parametrize(
    ("label_crs", "scene_crs", "known"),
    [
        ("EPSG:21418", "EPSG:32648", False),  # Beijing 1954, of which shifts elsewhere are known
        ("EPSG:32648", "EPSG:21418", False),
        ("EPSG:4610", "EPSG:32648", False),  # Xian 1980
        ("+proj=longlat +ellps=krass", "EPSG:4326", False),  # nothing is moved at all
        ("EPSG:4610+5773", "EPSG:4326", False),
        ("EPSG:4490", "EPSG:32648", True),  # CGCS2000, the same as WGS 84
        ("EPSG:4267", "EPSG:32614", True),  # NAD27, by the shift that needs no grid
        ("EPSG:4214", "EPSG:32649", True),  # Beijing 1954 where its shift is known
        ("EPSG:4807", "EPSG:32632", True),  # from another meridian
        ("EPSG:32648+5773", "EPSG:4326", True),
        ("+proj=longlat +R=6371007.181", "EPSG:32648", True),  # a sphere
        ("ESRI:104905", "+proj=longlat +a=3396000 +b=3376000", True),  # Mars
    ],
)
def test_a_shift_of_datums_that_is_not_known_is_said_once(
    capsys: pytest.CaptureFixture[str], label_crs: str, scene_crs: str, known: bool
) -> None:
    once.cache_clear()
    crs = pyproj.CRS(scene_crs)
    easting = 18300000 if scene_crs == "EPSG:21418" else 300000  # with the zone's number before it
    place = ((105.0, 33.0), 1e-5) if crs.is_geographic else ((easting, 3900000), 2.0)
    scene = scene_at(scene_crs, *place)
    labels = Labels("l", "l", pyproj.CRS(label_crs), np.array([BOX]), LabelCounts())
    for _ in range(2):
        in_scene_crs(labels, scene)
        ground_near(labels, scene)
    said = capsys.readouterr().err
    assert said.count("Warning: PROJ does not know the shift") == said.count("\n") == (not known)


def test_missing_crs_names_the_option(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "s.tif", ramp()))
    path = save(tmp_path / "l.shp", [BOX], crs=None)
    with pytest.raises(LsmapError, match="--labels-crs"):
        in_scene_crs(read_labels(path, options=OptionNames(crs="--labels-crs")), scene)
    with pytest.raises(LsmapError, match="ogr2ogr -a_srs"):
        in_scene_crs(read_labels(path), scene)
    moved, _ = in_scene_crs(read_labels(path, crs="EPSG:32632"), scene)
    assert shapely.equals(moved[0], BOX)
    with pytest.raises(LsmapError, match="not a coordinate reference system"):
        read_labels(path, crs="EPSG:nonsense")
    plain = open_scene(write(tmp_path / "p.tif", ramp(), crs=None))
    assert len(in_scene_crs(read_labels(path), plain)[0]) == 1
    with pytest.raises(LsmapError, match="scene has no CRS"):
        in_scene_crs(read_labels(path, crs="EPSG:32632"), plain)


def test_a_crs_that_cannot_be_used_is_replaced_by_the_one_that_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd, options = "EPSG:999999", OptionNames(crs="--labels-crs")  # of a newer GDAL, say
    with pytest.raises(LsmapError, match=r"cannot be used; say which one .*--labels-crs EPSG"):
        _layer_crs("l", odd, None, options)
    assert _layer_crs("l", odd, "EPSG:32632", options) == pyproj.CRS("EPSG:32632")
    assert _layer_crs("l", "EPSG:32632", "EPSG:32632", options) == pyproj.CRS("EPSG:32632")
    assert capsys.readouterr().err == ""
    assert _layer_crs("l", "EPSG:4326", "EPSG:32632", options) == pyproj.CRS("EPSG:32632")
    assert "l: EPSG:32632 replaces the layer's own CRS" in capsys.readouterr().err


def test_same_crs_needs_no_way_to_the_earth(shared_data: Path) -> None:
    scene = open_scene(str(shared_data / "scenes/mars/mars_vm_rgb.tif"))
    labels = read_labels(str(shared_data / "scenes/mars/mars_vm_labels.gpkg"))
    moved, lost = in_scene_crs(labels, scene)
    assert moved is labels.polygons
    assert lost == 0
    earth = read_labels(str(shared_data / "sichuan/labels.shp"))
    with pytest.raises(LsmapError, match="same planet"):
        in_scene_crs(earth, scene)


@pytest.mark.parametrize(
    ("folder", "features", "repaired", "crs"),
    [
        ("self-intersecting", 52, 1, "EPSG:4326"),
        ("polygon-z (Segal2015)", 832, 4, "ESRI:102002"),
        ("polar-stereographic", 356, 1, "EPSG:3413"),
        ("empty (no features)", 0, 0, "EPSG:4326"),
        ("no-crs", 1, 0, "no CRS"),
        ("geocentric", 41, 0, "EPSG:4978"),
    ],
)
def test_awkward_layers(
    shared_data: Path, folder: str, features: int, repaired: int, crs: str
) -> None:
    found = sorted((shared_data / "polygons/thaw_slumps" / folder).glob("*.[sg][hp][pk]*"))
    labels = read_labels(str(found[0]))
    assert labels.counts.features == features
    assert labels.counts.repaired == repaired
    assert len(labels.polygons) == features
    assert crs_name(labels.crs) == crs
    assert not shapely.has_z(labels.polygons).any()
    assert shapely.is_valid(labels.polygons).all()


def test_geocentric_labels_are_refused(shared_data: Path, tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "s.tif", ramp()))
    path = next((shared_data / "polygons/thaw_slumps/geocentric").glob("*.gpkg"))
    with pytest.raises(LsmapError, match=r"EPSG:4978.*geocentric.*ogr2ogr"):
        in_scene_crs(read_labels(str(path)), scene)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.shp", "no such file"),
        ("t.txt", "vector layer.*must be polygons"),
        ("mask.tif", r"mask\.tif: this is a raster, and polygons are wanted.*gdal_polygonize\.py"),
        ("t.txt|layername=a", r"what QGIS adds .* give .*t\.txt$"),
    ],
)
def test_unreadable(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "t.txt").write_text("nothing")
    write(tmp_path / "mask.tif", ramp())
    with pytest.raises(LsmapError, match=says):
        read_labels(str(tmp_path / name))


def test_a_drive_without_locks_is_told_from_a_file_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise DataSourceError("sqlite3_prepare_v2(SELECT 1) failed: disk I/O error")

    monkeypatch.setattr(pyogrio, "list_layers", refuse)
    (tmp_path / "a.gpkg").write_bytes(b"")
    with pytest.raises(LsmapError, match=r"disk I/O error\); copy it to a drive"):
        read_labels(str(tmp_path / "a.gpkg"))


def test_changes_that_cannot_be_read_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What QGIS has not yet written into the file lies beside it while the layer is edited."""
    path = tmp_path / "a.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=32648).to_file(path)
    beside = Path(f"{path}-wal")
    beside.write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert len(read_labels(str(path)).polygons) == 1
    beside.write_bytes(b"changes")
    with pytest.raises(LsmapError, match=r"last changes lie in a\.gpkg-wal"):
        read_labels(str(path))
    monkeypatch.undo()
    assert len(read_labels(str(path)).polygons) == 1


def test_burn_follows_pixel_centres_and_priorities() -> None:
    transform = Affine(1, 0, 0, 0, -1, 10)
    slide = np.array([shapely.box(1.4, 1.4, 6.6, 6.6)])  # centres 1.5 … 6.5
    ignored = np.array([shapely.box(5, 0, 10, 10)])
    aoi = np.array([shapely.box(0, 0, 10, 8)])
    nothing = np.zeros(0, dtype=object)
    mask = burn((10, 10), transform, slide, nothing, None)
    assert (mask == 1).sum() == 36
    assert mask[3:9, 1:7].all()
    mask = burn((10, 10), transform, slide, ignored, aoi)
    assert (mask[:, 5:] == 255).all()
    assert (mask[:2] == 255).all()
    assert (mask == 1).sum() == 6 * 4


def test_geometry_that_cannot_be_moved_is_counted(tmp_path: Path) -> None:
    scene = open_scene(write(tmp_path / "s.tif", ramp(), crs="EPSG:3857"))
    shapes = np.array([shapely.box(9, 45, 10, 46), shapely.box(0, 89, 1, 90.0)])
    labels = Labels("l", "l", pyproj.CRS("EPSG:4326"), shapes, LabelCounts(features=2))
    moved, lost = in_scene_crs(labels, scene)
    assert len(moved) + lost == 2
    assert np.isfinite(shapely.bounds(moved)).all()


def scene_at(crs: str, corner: tuple[float, float], size: float) -> Scene:
    """A scene of 3000 × 2000 pixels without a file."""
    place = Affine(size, 0, corner[0], 0, -size, corner[1])
    return Scene("s.tif", 3000, 2000, 3, "uint8", pyproj.CRS(crs), place, (1, 2, 3), (1.0, 1.0), ())


PLACES = {  # CRS of scenes: a corner of them there, and the pixel size
    "EPSG:32632": ((500000, 4000000), 2.0),
    "EPSG:3857": ((1e6, 6e6), 3.0),
    "EPSG:4326": ((9.0, 46.0), 1e-4),
    "EPSG:3413": ((-200000, 250000), 100.0),  # beside the pole, 0.3 Mm of it
    "EPSG:32601": ((300000, 7200000), 50.0),  # over the antimeridian
}


@pytest.mark.parametrize("scene_crs", PLACES)
@pytest.mark.parametrize("label_crs", ["EPSG:4326", "EPSG:3857", "EPSG:6933", "EPSG:3413"])
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([0, 360]))
@settings(max_examples=10, deadline=None)
def test_no_polygon_that_touches_a_scene_is_taken_for_far(
    scene_crs: str, label_crs: str, seed: int, shift: int
) -> None:
    (x, y), size = PLACES[scene_crs]
    scene = scene_at(scene_crs, (x, y), size)
    rng = np.random.default_rng(seed)
    # Small boxes in, around and far from the scene, drawn on its own map.
    spread = rng.choice([0.7, 1.5, 30], 60)[:, None]
    places = (rng.uniform(-1, 1, (60, 2)) * spread + 0.5) * (3000 * size, -2000 * size) + (x, y)
    boxes = shapely.box(*(places - 20 * size).T, *(places + 20 * size).T)
    way = pyproj.Transformer.from_crs(scene_crs, label_crs, always_xy=True)
    moved = shapely.transform(boxes, lambda p: np.column_stack(way.transform(p[:, 0], p[:, 1])))
    moved = moved[np.isfinite(shapely.bounds(moved)).all(axis=1)]
    if label_crs == "EPSG:4326":  # longitudes from 0 to 360, as some layers have them
        moved = shapely.transform(moved, lambda p: p + (shift * (p[:, :1] < 0)) * (1, 0))
    labels = Labels("l", "l", pyproj.CRS(label_crs), moved, LabelCounts(), np.arange(len(moved)))

    near = near_scene(labels, shapely.bounds(moved), scene)
    back = pyproj.Transformer.from_crs(label_crs, scene_crs, always_xy=True)
    there = shapely.transform(moved, lambda p: np.column_stack(back.transform(p[:, 0], p[:, 1])))
    frame = shapely.Polygon(scene.corners(0, 0, 2000, 3000))
    touching = shapely.intersects(there, frame) & shapely.is_valid(there)
    assert near[touching].all()


def test_polygons_far_from_a_scene_are_left_out(tmp_path: Path) -> None:
    """One whose edge is at the scene's and two that are some scenes away."""
    scene = open_scene(str(write(tmp_path / "s.tif", ramp(3, 100), crs="EPSG:32632")))
    corners = np.array(scene.corners(0, 0, 100, 100))
    west, south, east, north = *corners.min(axis=0), *corners.max(axis=0)
    side = east - west
    boxes = np.array([
        shapely.box(west - side, south, west, north),
        shapely.box(west + 3 * side, south, east + 3 * side, north),
        shapely.box(west, south - 9 * side, east, north - 9 * side),
    ])  # fmt: skip
    path = tmp_path / "l.gpkg"
    geopandas.GeoSeries(boxes, crs="EPSG:32632").to_crs("EPSG:4326").to_file(path)
    labels = read_labels(str(path))
    near = near_scene(labels, shapely.bounds(labels.polygons), scene)
    assert near.tolist() == [True, False, False]
    assert labels.only(near).fids.tolist() == labels.fids[:1].tolist()


def test_a_layer_without_polygons_is_near_nothing(tmp_path: Path) -> None:
    scene = open_scene(str(write(tmp_path / "s.tif", ramp(), crs="EPSG:32632")))
    none = Labels("l", "l", pyproj.CRS("EPSG:4326"), np.zeros(0, dtype=object), LabelCounts())
    assert near_scene(none, shapely.bounds(none.polygons), scene).shape == (0,)


def test_a_long_edge_in_degrees_is_bent_on_a_wide_scene() -> None:
    scene = scene_at("EPSG:32632", (500000, 5500000), 50.0)
    wide = np.array([shapely.box(0, 49, 20, 60)])
    (ground,) = ground_near(Labels("l", "l", pyproj.CRS("EPSG:4326"), wide, LabelCounts()), scene)
    way = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    edge = shapely.points(*way.transform(np.linspace(9.05, 10.3, 50), np.full(50, 49.0)))
    assert shapely.distance(ground.boundary, edge).max() < 1


def test_what_a_wide_scene_shows_beyond_the_bounds_of_its_corners_is_near() -> None:
    """Its upper edge is an arc in degrees; the box lies at the top of it."""
    scene = scene_at("EPSG:3035", (2750000, 4300000), 1000.0)
    box = shapely.box(4320800, 4299800, 4321200, 4299990)
    way = pyproj.Transformer.from_crs("EPSG:3035", "EPSG:4326", always_xy=True)
    polygons = np.array([shapely.transform(box, lambda p: np.column_stack(way.transform(*p.T)))])
    labels = Labels("l", "l", pyproj.CRS("EPSG:4326"), polygons, LabelCounts())
    assert near_scene(labels, shapely.bounds(polygons), scene).all()
    (ground,) = ground_near(labels, scene)
    assert ground.area == pytest.approx(box.area, rel=1e-3)


@pytest.mark.parametrize("turn", [0, 360])
def test_labels_from_0_to_360_degrees_are_near_a_western_scene(turn: float) -> None:
    scene = scene_at("EPSG:32610", (500000, 4000000), 2.0)
    way = pyproj.Transformer.from_crs("EPSG:32610", "EPSG:4326", always_xy=True)
    lon, lat = way.transform(501000, 3999000)
    boxes = shapely.box(lon + turn, lat, lon + turn + np.array([0.01, 1e-3]), lat + 0.01)
    labels = Labels("l", "l", pyproj.CRS("EPSG:4326"), boxes, LabelCounts())
    assert near_scene(labels, shapely.bounds(boxes), scene).all()
    moved, lost = in_scene_crs(labels, scene)
    assert lost == 0
    assert shapely.distance(moved, shapely.Point(501000, 3999000)).max() < 1e-3


@pytest.mark.parametrize("meridian", [-180, 180])
def test_ground_goes_on_beyond_the_antimeridian(meridian: float) -> None:
    scene = scene_at("EPSG:4326", (meridian - 0.15, 46.0), 1e-4)
    world = np.array([shapely.box(-180, -90, 180, 90)])
    ground = ground_near(Labels("l", "l", scene.crs, world, LabelCounts()), scene)
    frame = shapely.Polygon(scene.corners(0, 0, scene.height, scene.width))
    assert shapely.area(shapely.intersection(ground, frame)).sum() == pytest.approx(frame.area)


@pytest.mark.parametrize("scene_crs", ["EPSG:32610", "EPSG:4326"])
@pytest.mark.parametrize("turn", [0, 360])
def test_ground_in_0_to_360_degrees_reaches_a_western_scene(scene_crs: str, turn: float) -> None:
    corner, size = ((500000, 4500000), 10.0) if scene_crs == "EPSG:32610" else ((-123, 40.6), 1e-4)
    scene = scene_at(scene_crs, corner, size)
    (west, north), (x, y) = corner, (size * 500, size * 500)
    inside = shapely.box(west + x, north - 3 * y, west + 3 * x, north - y)
    there = geopandas.GeoSeries([inside], crs=scene_crs).to_crs(4326).translate(turn)
    labels = Labels("l", "l", pyproj.CRS(4326), there.to_numpy(), LabelCounts())
    frame = shapely.Polygon(scene.corners(0, 0, scene.height, scene.width))
    ground = shapely.intersection(ground_near(labels, scene), frame)
    assert shapely.area(ground).sum() == pytest.approx(inside.area, rel=1e-3)


def test_measures_of_coordinates_are_dropped_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "measured.gpkg"
    geopandas.GeoDataFrame(geometry=[BOX], crs="EPSG:32643").to_file(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_geometry_columns SET z = 1, m = 1")
    ran = subprocess.run(
        [sys.executable, "-m", "landslide_mapper", "evaluate", path, path, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "IoU 1.0000" in ran.stdout + ran.stderr
    assert "Warning" not in ran.stderr


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4979"])
def test_labels_beyond_the_antimeridian_are_brought_to_the_scene(tmp_path: Path, crs: str) -> None:
    """A scene at 179.9 to 180.1 degrees: labels there have longitudes of -180 to -179.9."""
    place = Affine(0.001, 0, 179.9, 0, -0.001, -17.0)
    scene = open_scene(
        write_scene(tmp_path / "scene.tif", np.ones((50, 200), np.uint8), crs, place)
    )
    west, east = (
        shapely.box(179.98, -17.02, 180, -17.01),
        shapely.box(-180, -17.02, -179.98, -17.01),
    )
    shapes = [
        shapely.box(179.95, -17.02, 179.96, -17.01),
        shapely.box(-179.96, -17.02, -179.95, -17.01),
        shapely.MultiPolygon([west, east]),  # one that is cut at 180
        shapely.box(-0.1, -17.02, 0.1, -17.01),  # at the other end of the world
    ]
    geopandas.GeoDataFrame(geometry=shapes, crs="EPSG:4326").to_file(tmp_path / "labels.gpkg")
    labels = read_labels(str(tmp_path / "labels.gpkg"))
    assert near_scene(labels, shapely.bounds(labels.polygons), scene)[:3].all()
    polygons, lost = in_scene_crs(labels, scene)
    assert lost == 0
    assert shapely.is_valid(polygons).all()
    assert shapely.bounds(polygons)[:3, 0] == pytest.approx([179.95, 180.04, 179.98])
    assert shapely.bounds(polygons)[:3, 2] == pytest.approx([179.96, 180.05, 180.02])
    frame = shapely.Polygon(scene.corners(0, 0, 50, 200))
    assert shapely.intersects(polygons, frame).tolist() == [True, True, True, False]


@pytest.mark.parametrize("crs", ["EPSG:3460", "EPSG:32760"])  # Fiji's grid, a UTM zone
@pytest.mark.parametrize(
    ("west", "columns"), [(179.9, 200), (179.9, 100), (-180.1, 200), (-180.0, 100)]
)
def test_a_projected_label_across_the_antimeridian_does_not_go_round_the_globe(
    tmp_path: Path, crs: str, west: float, columns: int
) -> None:
    place = Affine(0.001, 0, west, 0, -0.001, -17.0)
    path = write_scene(tmp_path / "s.tif", np.ones((50, columns), np.uint8), "EPSG:4326", place)
    scene = open_scene(path)
    here = np.array(
        [shapely.box(179.98, -17.02, 180.03, -17.01), shapely.box(179.95, -17.04, 179.96, -17.03)]
    )
    way = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    there = shapely.transform(here, lambda points: np.column_stack(way.transform(*points.T)))
    geopandas.GeoDataFrame(geometry=there, crs=crs).to_file(tmp_path / "labels.gpkg")
    labels = read_labels(str(tmp_path / "labels.gpkg"))
    frame = shapely.Polygon(scene.corners(0, 0, 50, columns))

    def seen(polygons: np.ndarray) -> float:
        return float(shapely.intersection(shapely.union_all(polygons), frame).area)

    turned = shapely.transform(here, lambda points: points - np.array([360, 0]))
    expected = pytest.approx(seen(np.concatenate([here, turned])), rel=1e-3)
    polygons, lost = in_scene_crs(labels, scene)
    assert lost == 0
    assert seen(polygons) == expected
    assert seen(ground_near(labels, scene)) == expected  # a sheet of a map that lies across it


def test_ground_of_the_whole_globe_in_metres_covers_a_scene_in_degrees(tmp_path: Path) -> None:
    scene = scene_at("EPSG:4326", (179.9, 46.0), 1e-4)
    edge = 20037508.342789244
    world = np.array([shapely.box(-edge, -edge, edge, edge)])
    labels = Labels("l", "l", pyproj.CRS("EPSG:3857"), world, LabelCounts())
    frame = shapely.Polygon(scene.corners(0, 0, scene.height, scene.width))
    covered = shapely.intersection(shapely.union_all(ground_near(labels, scene)), frame)
    assert covered.area > 0.99 * frame.area
