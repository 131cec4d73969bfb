"""`detect` from a scene to files that are opened again, with predictors that need no network."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from fakes import UTM, blobs, brightness, burnt, grey, model_info, read, write_scene
from fakes import detect_brightness as run
from rasterio.enums import ColorInterp

from landslide_mapper.detect import detect_with
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.vector_formats import DRIVERS, FIELDS
from landslide_mapper.mapping.config import DetectConfig


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_every_format_holds_the_same_landslides(tmp_path: Path, suffix: str) -> None:
    mask = blobs(1, (150, 170))
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    output = tmp_path / f"slides{suffix}"
    report = run(scene, output, simplify=0)
    layer = read(output).sort_values("id")  # FlatGeobuf sorts by place
    assert layer.crs == ("EPSG:4326" if suffix == ".geojson" else "EPSG:32648")
    names = set(FIELDS)
    if suffix == ".shp":
        names = names - {"perimeter_m", "max_probability"} | {"perim_m", "max_prob"}
    assert set(layer.columns) == names | {"geometry"}
    assert len(layer) == report.landslides > 5
    assert list(layer["id"]) == list(range(1, len(layer) + 1))
    assert (layer.geom_type == "Polygon").all()
    assert layer.is_valid.all()
    np.testing.assert_array_equal(burnt(layer, Path(scene)), mask)
    np.testing.assert_allclose(layer["confidence"], 200 / 255, atol=1e-6)
    # 0.5 m pixels of a UTM zone, 2 degrees from its meridian: 0.1 % off the ellipsoid.
    assert layer["area_m2"].sum() == pytest.approx(mask.sum() / 4, rel=2e-3)
    assert layer["area_m2"].sum() == pytest.approx(report.area)
    points = shapely.points(layer["lon"], layer["lat"])
    places = geopandas.GeoSeries(points, index=layer.index, crs=4326).to_crs(layer.crs)
    assert (layer.distance(places) < 1e-6).all()
    assert (layer["length_m"] >= layer["width_m"]).all()
    assert set(layer["scene"]) == {"scene.tif"}
    assert set(layer["model"]) == {"fake"}
    assert layer["review"].isna().all()


def test_polygons_and_mask_say_the_same_after_sieve_and_fill(tmp_path: Path) -> None:
    mask = blobs(2, (300, 200), 0.5)
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    raster, output = tmp_path / "mask.tif", tmp_path / "slides.gpkg"
    run(scene, output, mask=raster, min_area=20, fill_holes=15, simplify=0)
    with rasterio.open(raster) as written:
        values, tags = written.read(1), written.tags()
    # What was asked for is in the files.
    assert (tags["LSMAP_MIN_AREA"], tags["LSMAP_FILL_HOLES"]) == ("20 m²", "15 m²")
    assert (tags["LSMAP_MODEL"], tags["LSMAP_THRESHOLD"]) == ("fake", "0.5")
    with sqlite3.connect(output) as database:
        query = "SELECT description FROM gpkg_contents WHERE table_name = 'landslides'"
        ((description,),) = database.execute(query)
    for words in ("model fake", "threshold 0.5", "min-area 20 m²", "simplify 0 m"):
        assert words in description
    layer = read(output)
    np.testing.assert_array_equal(burnt(layer, raster), values == 1)
    assert set(np.unique(values)) == {0, 1}
    assert layer["area_m2"].min() >= 20
    holes = [shapely.Polygon(ring) for p in layer.geometry for ring in p.interiors]
    full = shapely.union_all(layer.geometry)
    assert all(hole.area > 14.9 or full.intersection(hole).area > 0 for hole in holes)
    assert ((values == 1) != mask).any()


@pytest.mark.parametrize(
    ("large", "small", "min_area", "said"),
    [
        (2, 3, 0, "3 of 5 landslides are smaller than 100 m²"),
        (2, 2, 0, ""),
        (0, 1, 0, ""),
        (2, 3, 5, ""),  # who gives it knows of it
        (2, 3, 100, ""),
    ],
)
def test_a_map_that_is_mostly_specks_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    large: int,
    small: int,
    min_area: float,
    said: str,
) -> None:
    band = np.full((100, 200), 50, np.uint8)
    for n in range(large):
        band[10:40, 10 + 40 * n : 40 + 40 * n] = 200  # 225 m²
    for n in range(small):
        band[60:79, 10 + 40 * n : 29 + 40 * n] = 200  # 90 m²
    scene = write_scene(tmp_path / "scene.tif", band)
    run(scene, tmp_path / "slides.gpkg", simplify=0, min_area=min_area)
    errors = capsys.readouterr().err
    assert ("smaller than" in errors) is bool(said)
    assert said in errors
    sizes = read(tmp_path / "slides.gpkg").area_m2
    assert len(sizes) == (large if min_area == 100 else large + small)
    assert (sizes < 100).sum() == len(sizes) - large


def test_holes_that_hold_nodata_or_a_landslide_stay(tmp_path: Path) -> None:
    band = np.full((70, 200), 50, np.uint8)
    for left in (10, 70, 130):
        band[10:50, left : left + 40] = 200
        band[20:40, left + 10 : left + 30] = 50
    band[30, 90] = 0  # not seen
    band[28:32, 148:152] = 200  # an island of 4 × 4 pixels = 4 m²
    scene = write_scene(tmp_path / "scene.tif", band, nodata=0)
    for name, min_area, expected in (("a", 0, [0, 1, 1]), ("b", 10, [0, 1, 0])):
        run(scene, tmp_path / f"{name}.gpkg", fill_holes=1000, min_area=min_area, simplify=0)
        layer = read(tmp_path / f"{name}.gpkg")
        large = layer[layer.area > 100].sort_values("lon")
        assert [len(polygon.interiors) for polygon in large.geometry] == expected


def test_rasters_are_cogs_with_overviews_colours_and_styles(tmp_path: Path) -> None:
    mask = blobs(3, (1100, 1030), smooth=3)
    band = grey(mask)
    band[:100] = 0
    scene = write_scene(tmp_path / "scene.tif", band, nodata=0)
    run(
        scene,
        tmp_path / "slides.gpkg",
        model_info(tile_size=256),
        mask=tmp_path / "mask.tif",
        probability=tmp_path / "percent.tif",
        overlay=tmp_path / "picture.png",
    )
    for name in ("mask.tif", "percent.tif"):
        with rasterio.open(tmp_path / name) as raster:
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert raster.overviews(1)
            assert raster.transform == UTM
            assert raster.crs.to_epsg() == 32648
            assert raster.nodata == 255
            assert raster.dtypes == ("uint8",)
            values = raster.read(1)
        assert (values[:100] == 255).all()
        if name == "mask.tif":
            np.testing.assert_array_equal(values[100:], mask[100:])
        else:
            np.testing.assert_array_equal(values[100:], np.where(mask[100:], 78, 20))
    with rasterio.open(tmp_path / "mask.tif") as raster:
        assert raster.colormap(1)[1][:3] == (227, 59, 30)
    assert "paletted" in (tmp_path / "mask.qml").read_text()
    assert "singlebandpseudocolor" in (tmp_path / "percent.qml").read_text()
    with rasterio.open(tmp_path / "picture.png") as picture:
        image = picture.read()
    assert (image[3, :90] == 0).all()
    assert ((image[0] == 227) & (image[1] == 59)).any()


@pytest.mark.parametrize(("asked", "size"), [(None, 3), (6, 6)])
def test_batches_are_as_large_as_asked_for(tmp_path: Path, asked: int | None, size: int) -> None:
    """Else as the predictor says."""

    class Three:
        batch_size = 3

        def __init__(self) -> None:
            self.seen: list[int] = []

        def __call__(self, windows: np.ndarray) -> np.ndarray:
            self.seen.append(len(windows))
            return brightness(windows)

    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (300, 300))))  # 6 windows wide
    predict = Three()
    config = DetectConfig((scene,), tmp_path / "slides.gpkg", batch_size=asked)
    detect_with(config, predict, model_info())
    assert max(predict.seen) == size


def test_from_the_threshold_on_and_never_above_one(tmp_path: Path) -> None:
    band = np.full((64, 64), 50, np.uint8)
    band[10:20, 10:20] = 51  # as float32, 51 / 255 is 0.2
    scene = write_scene(tmp_path / "scene.tif", band)
    assert run(scene, tmp_path / "slides.gpkg", threshold=0.2).landslides == 1
    # Where windows overlap, sums may be off by rounding.
    scene = write_scene(tmp_path / "white.tif", np.full((150, 150), 255, np.uint8))
    run(scene, tmp_path / "white.gpkg", threshold=0.999, overlap=60)
    (found,) = read(tmp_path / "white.gpkg").itertuples()
    assert found.confidence <= found.max_probability == 1


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_no_landslide_still_makes_a_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((70, 30), 9, np.uint8))
    output = tmp_path / f"slides{suffix}"
    report = run(scene, output)
    assert report.landslides == 0
    assert "0 landslides" in report.summary()
    assert "no valid pixel" not in capsys.readouterr().err
    layer = read(output)
    assert len(layer) == 0
    if suffix not in (".geojson",):  # an empty GeoJSON has nowhere to keep its fields
        assert "area_m2" in layer.columns
        assert layer.crs == "EPSG:32648"


def test_nodata_makes_no_landslide_and_no_ring(tmp_path: Path) -> None:
    """Whatever the network says about nodata: with a predictor that loves it."""
    band = np.full((200, 200), 50, np.uint8)
    band[:, :70] = 0
    band[90:110, 90:110] = 200
    scene = write_scene(tmp_path / "scene.tif", band, nodata=0)

    def loves_black(windows: np.ndarray) -> np.ndarray:
        return np.where(windows[:, 0] == 0, 1.0, brightness(windows)).astype(np.float32)

    output = tmp_path / "slides.gpkg"
    config = DetectConfig((scene,), output, mask=tmp_path / "mask.tif")
    assert detect_with(config, loves_black, model_info()).landslides == 1
    with rasterio.open(tmp_path / "mask.tif") as raster:
        assert (raster.read(1)[:, :70] == 255).all()


def test_alpha_is_nodata_in_degrees(shared_data: Path, tmp_path: Path) -> None:
    scene = shared_data / "scenes" / "swellendam" / "3320D_2010_315_RGB_LATLNG.tif"
    info = model_info(radiometry="equalize", tile_size=256, threshold=0.97)
    options = {"mask": tmp_path / "mask.tif", "min_area": 200, "gsd": "native"}
    run(str(scene), tmp_path / "slides.gpkg", info, **options)
    layer = read(tmp_path / "slides.gpkg")
    assert layer.crs == "EPSG:4326"
    assert len(layer) > 3
    metric = layer.to_crs("EPSG:32734")
    np.testing.assert_allclose(layer["area_m2"], metric.area, rtol=0.05)
    with rasterio.open(scene) as raster, rasterio.open(tmp_path / "mask.tif") as mask:
        np.testing.assert_array_equal(mask.read(1) == 255, raster.read(4) == 0)


def test_mars_says_what_it_cannot_do_and_goes_on(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = str(shared_data / "scenes" / "mars" / "mars_vm_rgb.tif")
    info = model_info(radiometry="equalize", tile_size=512, threshold=0.97, gsd=None)
    run(scene, tmp_path / "slides.gpkg", info, min_area=1e7)
    said = capsys.readouterr().err
    assert said.count("Warning:") == 1
    assert "lon and lat stay empty" in said
    layer = read(tmp_path / "slides.gpkg")
    assert layer["lon"].isna().all()
    np.testing.assert_allclose(layer["area_m2"], layer.area, rtol=0.2)
    assert layer["length_m"].notna().all()
    assert "Mars" in layer.crs.name
    with pytest.raises(LsmapError, match="GeoJSON is in longitude"):
        run(scene, tmp_path / "slides.geojson", info)


def test_a_turned_scene_keeps_its_place(tmp_path: Path) -> None:
    turned = Affine.translation(300000, 3500000) * Affine.rotation(20) * Affine.scale(0.5, -0.5)
    mask = blobs(4, (120, 140))
    scene = write_scene(tmp_path / "scene.tif", grey(mask), transform=turned)
    run(scene, tmp_path / "slides.gpkg", mask=tmp_path / "mask.tif", simplify=0)
    np.testing.assert_array_equal(burnt(read(tmp_path / "slides.gpkg"), Path(scene)), mask)
    with rasterio.open(tmp_path / "mask.tif") as raster:
        assert raster.transform.almost_equals(turned)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_without_crs_measures_stay_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = blobs(5, (100, 100))
    scene = write_scene(tmp_path / "scene.tif", grey(mask), crs=None, transform=Affine.identity())
    report = run(scene, tmp_path / "slides.gpkg")
    assert "no coordinate reference system" in capsys.readouterr().err
    assert "km²" not in report.summary()
    layer = read(tmp_path / "slides.gpkg")
    assert layer["area_m2"].isna().all()
    assert layer["lon"].isna().all()
    assert layer["confidence"].notna().all()
    # QGIS shows a plain image upright below the x axis; the polygons lie on it there.
    bounds = layer.total_bounds
    assert bounds[0] >= 0
    assert bounds[1] >= -100
    assert bounds[3] <= 0
    for option in ("min_area", "fill_holes", "simplify"):
        with pytest.raises(LsmapError, match="no metres to go by"):
            run(scene, tmp_path / "other.gpkg", None, **{option: 5.0})


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson", ".shp"])
def test_a_layer_says_how_its_datum_is_shifted_or_that_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    crs = "+proj=tmerc +lon_0=15 +x_0=500000 +ellps=bessel +towgs84=682,-203,480 +units=m"
    lies = Affine(0.5, 0, 550000, 0, -0.5, 5100000)
    scene = write_scene(tmp_path / "s.tif", grey(blobs(5, (40, 40))), crs, lies)
    run(scene, tmp_path / f"slides{suffix}")
    slides = read(tmp_path / f"slides{suffix}")
    shown = slides.to_crs(4326).geometry.to_numpy()
    lost = shapely.distance(shown, shapely.points(slides.lon, slides.lat)).max() > 1e-3  # degrees
    assert lost == (suffix == ".shp")
    assert lost == ("TOWGS84" in capsys.readouterr().err)


def test_a_local_grid_has_lengths_but_no_areas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))), crs=local)
    assert run(scene, tmp_path / "slides.gpkg", simplify=1.0).landslides > 0
    assert "areas, lengths, lon and lat stay empty" in capsys.readouterr().err
    assert read(tmp_path / "slides.gpkg")["area_m2"].isna().all()
    for option in ("min_area", "fill_holes"):
        with pytest.raises(LsmapError, match="no metres to go by"):
            run(scene, tmp_path / "other.gpkg", None, **{option: 5.0})


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_plain_images_are_not_taken_for_one_place(tmp_path: Path) -> None:
    scenes = [
        write_scene(tmp_path / f"{n}.tif", grey(blobs(n, (90, 90))), None, Affine.identity())
        for n in (1, 2)
    ]
    alone = [run(scene, tmp_path / "s.gpkg", overwrite=True).landslides for scene in scenes]
    assert run(scenes, tmp_path / "both.gpkg").landslides == sum(alone)
    names = read(tmp_path / "both.gpkg")["scene"].value_counts()
    assert [names["1.tif"], names["2.tif"]] == alone


def test_an_empty_sheet_among_others_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = write_scene(tmp_path / "full.tif", grey(blobs(5, (100, 100))), nodata=0)
    empty = write_scene(tmp_path / "empty.tif", np.zeros((80, 80), np.uint8), nodata=0)
    info = model_info(radiometry="equalize")
    alone = run(full, tmp_path / "alone.gpkg", info)
    report = run([empty, full, empty], tmp_path / "slides.gpkg", info, mask=tmp_path / "masks")
    assert report.landslides == alone.landslides
    assert "empty.tif: no valid pixel" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "masks").glob("*.tif")] == ["full_mask.tif"]
    with pytest.raises(LsmapError, match="no valid pixel"):
        run([empty, empty], tmp_path / "none.gpkg", info)


@pytest.mark.parametrize(("order", "said"), [("bgr", "give --bands 3,2,1"), ("rgb", None)])
def test_colours_in_another_order_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str, said: str | None
) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))))
    colours = {"r": ColorInterp.red, "g": ColorInterp.green, "b": ColorInterp.blue}
    with rasterio.open(scene, "r+") as raster:
        raster.colorinterp = [colours[letter] for letter in order]
    run(scene, tmp_path / "slides.gpkg")
    found = capsys.readouterr().err
    assert said in found if said else "--bands" not in found
    run(scene, tmp_path / "slides.gpkg", bands=(3, 2, 1), overwrite=True)
    assert "--bands" not in capsys.readouterr().err


@pytest.mark.parametrize("known_by", ["interpretation", "description"])
def test_colours_behind_another_band_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known_by: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))), count=4)
    with rasterio.open(scene, "r+") as raster:
        if known_by == "interpretation":
            colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            raster.colorinterp = (ColorInterp.undefined, *colours)
        else:
            raster.colorinterp = (ColorInterp.gray, *[ColorInterp.undefined] * 3)
            raster.descriptions = ("nir", "Red", "Green", "Blue")
    run(scene, tmp_path / "slides.gpkg")
    assert "give --bands 2,3,4" in capsys.readouterr().err


def test_bands_that_are_described_are_not_what_gdal_takes_them_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))))
    with rasterio.open(scene, "r+") as raster:
        assert raster.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        raster.descriptions = ("blue", "green", "red")
    run(scene, tmp_path / "slides.gpkg")
    said = capsys.readouterr().err
    assert "bands 1,2,3 are blue, green, red" in said
    assert "give --bands 3,2,1" in said


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (("nir", "red", "green", "blue"), ["are undefined, red, green", "give --bands 2,3,4"]),
        (("red", "green", "blue", "nir"), []),
        (("", "Red", "Green"), []),  # blue is nowhere
    ],
)
def test_where_colours_are_described_no_other_band_is_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    described: tuple[str, ...],
    said: list[str],
) -> None:
    scene = write_scene(
        tmp_path / "scene.tif", grey(blobs(5, (100, 100))), count=len(described), photometric="RGB"
    )
    with rasterio.open(scene, "r+") as raster:
        assert raster.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        raster.descriptions = described
    run(scene, tmp_path / "slides.gpkg")
    told = capsys.readouterr().err
    assert ("bands 1,2,3 are" in told) == bool(said)
    assert all(words in told for words in said)


def test_the_style_of_a_scene_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "region.tif", grey(blobs(5, (100, 100))))
    (tmp_path / "region.qml").write_text("the scene's")
    run(scene, tmp_path / "region.geojson")
    run(scene, tmp_path / "region.geojson", overwrite=True)
    assert "would be the style of the scene as well" in capsys.readouterr().err
    other = write_scene(tmp_path / "other.tif", grey(blobs(5, (100, 100))))
    run([other, scene], tmp_path / "region.geojson", overwrite=True)
    assert (tmp_path / "region.qml").read_text() == "the scene's"


def test_a_style_that_layers_of_one_name_share_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "region.tif", grey(blobs(5, (100, 100))))
    run(scene, tmp_path / "slides.shp")
    run(scene, tmp_path / "slides.gpkg", mask=tmp_path / "mask.tif")
    run(scene, tmp_path / "slides.shp", overwrite=True)
    assert "style" not in capsys.readouterr().err
    run(scene, tmp_path / "slides.fgb", model_info(threshold=0.7), overwrite=True)
    assert "slides.qml is the one style that QGIS knows for slides.shp" in capsys.readouterr().err
    run(scene, tmp_path / "other.gpkg", mask=tmp_path / "slides.tif", overwrite=True)
    assert "QGIS knows for slides.shp, slides.fgb as well" in capsys.readouterr().err
    run(scene, tmp_path / "again.gpkg", mask=tmp_path / "region.tiff")
    assert "QGIS knows for region.tif as well" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="few users may make links there")
def test_a_link_to_the_output_stays_one(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))))
    (tmp_path / "real").mkdir()
    run(scene, tmp_path / "real" / "x.gpkg")
    (tmp_path / "link.gpkg").symlink_to(tmp_path / "real" / "x.gpkg")
    count = run(scene, tmp_path / "link.gpkg", overwrite=True, min_area=50.0).landslides
    assert (tmp_path / "link.gpkg").is_symlink()
    assert len(read(tmp_path / "real" / "x.gpkg")) == count


def test_what_changes_the_result_is_in_the_outputs(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(5, (100, 100))))
    west, south, east, north = rasterio.open(scene).bounds
    box = (west + 5, south + 5, east, north)
    mask = tmp_path / "mask.tif"
    run(scene, tmp_path / "slides.gpkg", bands=(3, 2, 1), bbox=box, mask=mask)
    tags = rasterio.open(mask).tags()
    assert tags["LSMAP_BANDS"] == "3,2,1"
    assert [float(side) for side in tags["LSMAP_BBOX"].split()] == pytest.approx(box)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (65, 129)])
def test_scenes_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full(size, 200, np.uint8))
    report = run(scene, tmp_path / "slides.gpkg", simplify=0, mask=tmp_path / "mask.tif")
    assert report.landslides == 1
    layer = read(tmp_path / "slides.gpkg")
    assert layer.geometry[0].equals(shapely.box(*rasterio.open(scene).bounds))


def test_scenes_in_different_crs_share_one_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = blobs(6, (100, 100))
    first = write_scene(tmp_path / "scene.tif", grey(mask))
    (tmp_path / "other").mkdir()
    degrees = Affine(5e-6, 0, 102.9, 0, -5e-6, 31.6)
    second = write_scene(tmp_path / "other" / "scene.tif", grey(mask), "EPSG:4326", degrees)
    output, folder = tmp_path / "slides.gpkg", tmp_path / "masks"
    report = run([first, second], output, mask=folder, overlay=folder)
    assert "reprojected: scene.tif" in capsys.readouterr().err
    layer = read(output)
    assert layer.crs == "EPSG:32648"
    assert list(layer["id"]) == list(range(1, report.landslides + 1))
    half = report.landslides // 2
    np.testing.assert_array_equal(burnt(layer[:half], Path(first)), mask)
    assert layer[half:].to_crs("EPSG:4326").total_bounds[0] >= 102.9 - 1e-9
    names = [f"scene{number}_{kind}" for number in ("", "_2") for kind in ("mask", "overlay")]
    assert {path.stem for path in folder.iterdir()} == set(names)
    with pytest.raises(LsmapError, match="give a folder"):
        run([first, second], tmp_path / "b.gpkg", mask=tmp_path / "m.tif")


def test_the_simplified_outline_is_the_default_and_area_is_the_mask(tmp_path: Path) -> None:
    mask = blobs(7, (200, 200), smooth=4)
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    run(scene, tmp_path / "exact.gpkg", simplify=0)
    run(scene, tmp_path / "simple.gpkg")
    exact, simple = read(tmp_path / "exact.gpkg"), read(tmp_path / "simple.gpkg")
    np.testing.assert_allclose(exact["area_m2"], simple["area_m2"])
    moved = exact.boundary.hausdorff_distance(simple.boundary)
    assert 0 < moved.max() <= 0.25 + 1e-6
    assert (simple["perimeter_m"] < exact["perimeter_m"]).all()


def test_the_geopackage_carries_its_style(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    run(scene, tmp_path / "slides.gpkg")
    styles = read(tmp_path / "slides.gpkg", layer="layer_styles")
    assert list(styles["useAsDefault"]) == [True]
    assert list(styles["f_table_name"]) == ["landslides"]
    assert 'type="RuleRenderer"' in styles["styleQML"][0]


def test_geojson_is_wgs84_to_the_centimetre(tmp_path: Path) -> None:
    mask = blobs(1, (80, 80))
    scene = write_scene(tmp_path / "scene.tif", grey(mask))
    run(scene, tmp_path / "a.gpkg", simplify=0)
    run(scene, tmp_path / "a.geojson", simplify=0)
    there = read(tmp_path / "a.geojson").to_crs("EPSG:32648")
    assert read(tmp_path / "a.gpkg").hausdorff_distance(there).max() < 0.01
    assert pyproj.CRS(read(tmp_path / "a.geojson").crs).to_epsg() == 4326
