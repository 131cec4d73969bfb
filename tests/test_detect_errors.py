"""`detect` refuses what cannot work before any work, and leaves nothing when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from fakes import UTM, blobs, brightness, grey, model_info, nothing_but, read, write_scene
from fakes import detect_brightness as run

from landslide_mapper.detect import detect_with
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.scene import Source, open_scene
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.join import join_all
from landslide_mapper.mapping.outputs import check_outputs
from landslide_mapper.mapping.workspace import Workspace

SUFFIXES = (".ovr", ".msk", ".aux.xml")  # of what GDAL takes for parts of a raster


def test_outputs_that_exist_are_kept_unless_told(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    output = tmp_path / "slides.shp"
    run(scene, output)
    (tmp_path / "slides.qix").write_bytes(b"index of the old layer")
    (tmp_path / "slides.qml").write_text("mine")
    before = output.read_bytes()
    with pytest.raises(LsmapError, match="--overwrite"):
        run(scene, output, threshold=0.9)
    assert output.read_bytes() == before
    run(scene, tmp_path / "slides.fgb")
    assert (tmp_path / "slides.qml").read_text() == "mine"
    run(scene, output, threshold=0.9, overwrite=True)
    assert len(read(output)) == 0
    assert "RuleRenderer" in (tmp_path / "slides.qml").read_text()
    assert not (tmp_path / "slides.qix").exists()


def test_what_belonged_to_an_old_raster_goes_with_it(tmp_path: Path) -> None:
    """Its overviews would be shown in place of the new one's."""
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    options = {"mask": tmp_path / "mask.tif", "probability": tmp_path / "percent.tif"}
    run(scene, tmp_path / "slides.gpkg", **options)
    old = [tmp_path / f"{name}.tif{suffix}" for name in ("mask", "percent") for suffix in SUFFIXES]
    for path in old:
        path.write_bytes(b"old")
    run(scene, tmp_path / "slides.gpkg", overwrite=True, **options)
    assert not any(path.exists() for path in old)


def refused(tmp_path: Path) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    return [
        ({"output": tmp_path / "slides.xyz"}, {}, "end the name with"),
        ({"output": tmp_path / "no" / "slides.gpkg"}, {}, "no such folder"),
        ({"mask": tmp_path / "no" / "mask.tif"}, {}, "no such folder"),
        ({"mask": tmp_path / "mask.jpg"}, {}, "give a .tif file, or a folder"),
        ({"mask": tmp_path / "scene.tif"}, {}, "this file exists"),
        ({"mask": tmp_path / "scene.tif", "overwrite": True}, {}, "this is an input"),
        ({"mask": tmp_path / "a.tif", "probability": tmp_path / "a.tif"}, {}, "two outputs"),
        ({"threshold": 0.0}, {}, "--threshold"),
        ({"threshold": 1.5}, {}, "--threshold"),
        ({"overlap": 64}, {}, "--overlap 64"),
        ({"overlap": -1}, {}, "--overlap -1"),
        ({"min_area": -1.0}, {}, "--min-area -1"),
        ({"fill_holes": float("inf")}, {}, "--fill-holes inf"),
        ({"simplify": -1.0}, {}, "--simplify -1"),
        ({"batch_size": 0}, {}, "--batch-size"),
        ({"workers": 0}, {}, "--workers 0: give 1 or more"),
        ({"workers": 2, "dask": "tcp://a:1"}, {}, "give one of them"),
        ({"gsd": -1.0}, {}, "--gsd -1: give metres above 0"),
        ({"asset": ("red",)}, {}, "none of the inputs is a STAC item"),
        ({"bands": (1, 2)}, {}, "--bands names 2 bands"),
        ({"bands": (1, 2, 9)}, {}, "no band 9"),
        ({}, {"band_count": 4, "bands": (1, 2, 3, 4)}, "has 3 bands; the model fake was trained"),
    ]


@pytest.mark.parametrize("case", range(len(refused(Path()))))
def test_bad_input_is_refused_before_any_work(tmp_path: Path, case: int) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    options, changes, message = refused(tmp_path)[case]
    output = options.pop("output", tmp_path / "slides.gpkg")
    with pytest.raises(LsmapError, match=message) as error:
        run(scene, output, model_info(**changes), **options)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert nothing_but(tmp_path, "scene.tif")


@pytest.mark.parametrize(
    ("name", "says"),
    [("slides.SHP", "write the suffix small"), ("a;b.gpkg", "';'"), ("C!1/slides.gpkg", "'!'")],
)
def test_names_that_gdal_takes_for_others_are_refused(tmp_path: Path, name: str, says: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with pytest.raises(LsmapError, match=says):
        run(scene, tmp_path / name)


def test_what_lies_behind_an_input_is_an_input(tmp_path: Path) -> None:
    paths = [write_scene(tmp_path / f"{n}.tif", grey(blobs(n, (80, 80)))) for n in (1, 2)]
    (tmp_path / "both.vrt").write_text(stack(paths))
    before = Path(paths[1]).read_bytes()
    for source in (str(tmp_path / "both.vrt"), f"file://{paths[1]}"):
        with pytest.raises(LsmapError, match="this is an input"):
            run(source, tmp_path / "s.gpkg", mask=Path(paths[1]), overwrite=True)
    assert Path(paths[1]).read_bytes() == before
    item = tmp_path / "item.geojson"
    item.write_text("{}")
    asset = Source(str(item), opened=paths[0])  # as that of a STAC item
    with pytest.raises(LsmapError, match="this is an input"):
        check_outputs(DetectConfig(scenes=(), output=item, overwrite=True), {}, [open_scene(asset)])
    folder = tmp_path / "here"
    folder.mkdir()
    same = {"mask": tmp_path / "m.tif", "probability": folder / ".." / "m.tif"}
    with pytest.raises(LsmapError, match="two outputs"):
        run(paths[0], tmp_path / "s.gpkg", **same)


def test_scenes_that_the_layers_crs_does_not_reach_are_refused(tmp_path: Path) -> None:
    band = grey(blobs(1, (80, 80)))
    italy = write_scene(
        tmp_path / "italy.tif", band, "EPSG:32633", Affine(0.5, 0, 260000, 0, -0.5, 4870000)
    )
    java = write_scene(
        tmp_path / "java.tif", band, "EPSG:32748", Affine(0.5, 0, 720000, 0, -0.5, 9225000)
    )
    with pytest.raises(LsmapError, match="outside of where that is defined"):
        run([italy, java], tmp_path / "slides.gpkg")
    way = pyproj.Transformer.from_crs(4326, 32760, always_xy=True)
    x, y = way.transform(180 - 1e-9, -17)
    fiji = write_scene(
        tmp_path / "fiji.tif", band, "EPSG:32760", Affine(0.5, 0, x - 20, 0, -0.5, y)
    )
    pole = write_scene(tmp_path / "pole.tif", band, "EPSG:3031", Affine(0.5, 0, -20, 0, -0.5, 20))
    for scene in (fiji, pole):
        with pytest.raises(LsmapError, match="where coordinates jump"):
            run(scene, tmp_path / "slides.geojson")
        assert run(scene, tmp_path / "slides.gpkg", overwrite=True).landslides > 0


def test_parts_that_somebody_removed_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))

    def robbed(*arguments: Any) -> Any:
        store = arguments[4]
        store.delete(next(name for name in store.names() if name.endswith(".part")))
        return join_all(*arguments)

    monkeypatch.setattr("landslide_mapper.detect.join_all", robbed)
    with pytest.raises(LsmapFailure, match="removed by somebody else"):
        run(scene, tmp_path / "slides.gpkg")
    monkeypatch.setattr("landslide_mapper.detect.join_all", join_all)
    assert run(scene, tmp_path / "slides.gpkg").landslides > 0


def test_runs_of_one_name_share_a_scratch_folder(tmp_path: Path) -> None:
    outputs = [tmp_path / name / "slides.gpkg" for name in "ab"]
    for output in outputs:
        output.parent.mkdir()
    urls = {Workspace(output, str(tmp_path / "scratch")).store.url for output in outputs}
    assert len(urls) == 2
    again = Workspace(tmp_path / "a" / ".." / "a" / "slides.gpkg", str(tmp_path / "scratch"))
    assert again.store.url in urls


def test_a_model_without_stretch_refuses_other_pixels(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((80, 80), 900, np.uint16))
    with pytest.raises(LsmapError, match="takes 8-bit pixels only"):
        run(scene, tmp_path / "slides.gpkg")


def test_alpha_never_goes_into_the_model(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))), count=4, alpha="yes")
    info = model_info(band_count=4, bands=(1, 2, 3, 4))
    with pytest.raises(LsmapError, match="band 4 is transparency"):
        run(scene, tmp_path / "slides.gpkg", info)
    assert run(scene, tmp_path / "slides.gpkg").landslides > 0


def test_an_area_is_never_written_over(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (80, 80))))
    area = geopandas.GeoDataFrame(geometry=[shapely.box(3e5, 3e6, 4e5, 4e6)], crs="EPSG:32648")
    area.to_file(tmp_path / "aoi.gpkg")
    before = (tmp_path / "aoi.gpkg").read_bytes()
    with pytest.raises(LsmapError, match=r"aoi\.gpkg: this is an input"):
        run(scene, tmp_path / "aoi.gpkg", aoi=str(tmp_path / "aoi.gpkg"), overwrite=True)
    assert (tmp_path / "aoi.gpkg").read_bytes() == before


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt,
        RuntimeError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
    ids=["stopped", "cuda", "cublas", "cudnn"],
)
def test_a_run_that_ends_half_way_leaves_nothing(tmp_path: Path, error: Any) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(1, (300, 80))))
    calls = 0

    def breaks(windows: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise error
        return brightness(windows)

    config = DetectConfig((scene,), tmp_path / "s.gpkg", mask=tmp_path / "m.tif")
    expected = KeyboardInterrupt if error is KeyboardInterrupt else LsmapFailure
    with pytest.raises(expected):
        detect_with(config, breaks, model_info())
    assert nothing_but(tmp_path, "scene.tif")


def test_a_source_that_breaks_off_is_one_clear_line(tmp_path: Path) -> None:
    band = np.random.default_rng(0).integers(1, 255, (600, 300)).astype(np.uint8)
    scene = write_scene(tmp_path / "scene.tif", band)
    os.truncate(scene, os.path.getsize(scene) // 2)
    with pytest.raises(LsmapError, match="cannot be read") as error:
        run(scene, tmp_path / "slides.gpkg", mask=tmp_path / "mask.tif")
    assert "\n" not in str(error.value)
    assert nothing_but(tmp_path, "scene.tif")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakes import brightness, model_info
from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.errors import LsmapFailure
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, limit = Path(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
config = DetectConfig((str(folder / "scene.tif"),), folder / "slides.gpkg",
                      probability=folder / "percent.tif")
try:
    detect_with(config, brightness, model_info())
except LsmapFailure as error:
    print("REFUSED", error)
"""


@pytest.mark.parametrize("limit", [2_000, 100_000, 180_000])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, limit: int) -> None:
    """A limit on the size of files stands for the disk; GDAL meets it at different moments."""
    pytest.importorskip("resource", reason="limits on files are those of POSIX")
    noise = np.random.default_rng(0).integers(1, 255, (500, 500)).astype(np.uint8)
    write_scene(tmp_path / "scene.tif", noise)
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, here, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert "REFUSED" in done.stdout, done.stderr
    assert len(done.stdout.strip().splitlines()) == 1
    assert nothing_but(tmp_path, "scene.tif")


MEMORY = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fakes import brightness, model_info
from landslide_mapper import detect
from landslide_mapper.detect import detect_with
from landslide_mapper.mapping.config import DetectConfig
folder = Path(sys.argv[2])
# Small blocks: memory goes with the block, whatever it is.
detect.Layout = partial(detect.Layout, max_pixels=500 * 1000)
config = DetectConfig((str(folder / "scene.tif"),), folder / "slides.gpkg",
                      mask=folder / "mask.tif")
detect_with(config, brightness, model_info(tile_size=256))
# Not ru_maxrss: a process begins with that of the one that starts it.
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    peaks = []
    band = grey(blobs(8, (500, 500), 0.2, smooth=20))
    for repeat in (24, 96):
        folder = tmp_path / str(repeat)
        folder.mkdir()
        write_scene(folder / "scene.tif", np.tile(band, (repeat, 1)), compress="deflate")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(folder)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "GDAL_CACHEMAX": "8"},
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]))
    # What the longer scene has more would be 72 MB as float32, with its bands and mask 72 MB more.
    assert peaks[1] - peaks[0] < 48, peaks


def test_a_projected_layer_ends_at_the_antimeridian_too(tmp_path: Path) -> None:
    band = grey(blobs(1, (80, 80)))
    x, y = pyproj.Transformer.from_crs(4326, 32760, always_xy=True).transform(180 - 1e-9, -17)
    place = Affine(0.5, 0, x - 20, 0, -0.5, y)
    fiji = write_scene(tmp_path / "fiji.tif", band, "EPSG:32760", place)
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(179.99, -17)
    west = write_scene(tmp_path / "west.tif", band, "EPSG:3857", Affine(0.5, 0, x, 0, -0.5, y))
    with pytest.raises(LsmapError, match="where coordinates jump"):
        run([west, fiji], tmp_path / "slides.gpkg")
    # The other way round there is a place for both.
    assert run([fiji, west], tmp_path / "slides.gpkg", gsd="native").landslides > 0
    assert read(tmp_path / "slides.gpkg").bounds.pipe(lambda b: b.maxx - b.minx).max() < 100


def test_a_scene_in_degrees_beyond_the_antimeridian(tmp_path: Path) -> None:
    place = Affine(5e-6, 0, 180 - 200e-6, 0, -5e-6, -17)
    scene = write_scene(tmp_path / "s.tif", grey(blobs(1, (80, 80))), "EPSG:4326", place)
    near = Affine(5e-6, 0, 179, 0, -5e-6, -17)
    west = write_scene(tmp_path / "w.tif", grey(blobs(1, (9, 9))), "EPSG:4326", near)
    for scenes in (scene, [west, scene]):
        with pytest.raises(LsmapError, match="GeoJSON ends at longitudes"):
            run(scenes, tmp_path / "slides.geojson")
    world = geopandas.GeoDataFrame(geometry=[shapely.box(-180, -90, 180, 90)], crs=4326)
    world.to_file(tmp_path / "world.gpkg")
    outputs = []
    for name, area in (("plain", None), ("asked", str(tmp_path / "world.gpkg"))):
        run(scene, tmp_path / f"{name}.gpkg", aoi=area, mask=tmp_path / f"{name}.tif")
        with rasterio.open(tmp_path / f"{name}.tif") as raster:
            outputs.append(raster.read(1))
    assert np.array_equal(*outputs)
    lon = read(tmp_path / "plain.gpkg").lon
    assert lon.between(-180, 180).all()
    assert (lon < 0).any()
    assert (lon > 0).any()


def test_geojson_without_crs_is_refused(tmp_path: Path) -> None:
    """It would be taken for longitude and latitude."""
    scene = write_scene(tmp_path / "s.tif", grey(blobs(1, (80, 80))), None)
    with pytest.raises(LsmapError, match=r"no coordinate reference system.*write \.gpkg"):
        run(scene, tmp_path / "slides.geojson")


def test_a_scene_without_crs_does_not_go_with_others(tmp_path: Path) -> None:
    band = grey(blobs(1, (80, 80)))
    scenes = [write_scene(tmp_path / f"{crs}.tif", band, crs) for crs in ("EPSG:32648", None)]
    for some in (scenes, scenes[::-1]):
        with pytest.raises(LsmapError, match=r"None\.tif: has no coordinate reference system and"):
            run(some, tmp_path / "slides.gpkg")


def test_where_the_middle_of_a_scene_is_off_its_map_there_are_no_metres(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the scenes it is: here one that looks past the edge of the globe."""
    globe, band = "+proj=ortho +lat_0=0 +lon_0=0 +ellps=sphere", grey(blobs(1, (80, 80)))
    scenes = [
        write_scene(tmp_path / f"{x}.tif", band, globe, Affine(10, 0, x, 0, -10, 0))
        for x in (1000, 7_000_000)
    ]
    for option in ("min_area", "fill_holes", "simplify"):
        with pytest.raises(LsmapError, match=r"7000000\.tif: its middle lies outside .* no metres"):
            run(scenes, tmp_path / "slides.gpkg", gsd="native", **{option: 5.0})
    assert run(scenes, tmp_path / "slides.gpkg", gsd="native").landslides > 0
    assert "7000000.tif: its middle lies outside" in capsys.readouterr().err


def test_geocentric_scenes_are_refused_and_what_has_no_area_is_kept(tmp_path: Path) -> None:
    band = grey(blobs(1, (80, 80)))
    scene = write_scene(tmp_path / "s.tif", band, "EPSG:4978")
    with pytest.raises(LsmapError, match="geocentric"):
        run(scene, tmp_path / "slides.gpkg")


def test_where_nothing_was_seen_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    band = grey(blobs(1, (80, 160)))
    band[:, 80:] = 0
    scene = write_scene(tmp_path / "s.tif", band, nodata=0)
    for columns, said in (((0, 80), False), ((90, 150), True)):
        west, north = UTM * (columns[0], 10)
        east, south = UTM * (columns[1], 70)
        box = (west, south, east, north)
        run(scene, tmp_path / "slides.gpkg", bbox=box, overwrite=True)
        assert ("no valid pixel lies in what was asked for" in capsys.readouterr().err) == said


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_a_reviewed_layer_is_never_replaced(tmp_path: Path, suffix: str) -> None:
    scene = write_scene(tmp_path / "s.tif", grey(blobs(1, (80, 80))))
    layer = tmp_path / f"slides{suffix}"
    run(scene, layer)
    run(scene, layer, overwrite=True)
    table = read(layer)
    table["review"] = table["review"].astype(object)
    table.loc[0, "review"] = "yes"
    table.loc[1, "review"] = ""
    if suffix == ".parquet":
        table.to_parquet(layer)
    else:
        table.to_file(layer, **({"layer": "landslides"} if suffix == ".gpkg" else {}))
    before = layer.read_bytes()
    with pytest.raises(LsmapError, match="1 of its polygons have been reviewed"):
        run(scene, layer, overwrite=True)
    assert layer.read_bytes() == before


def test_a_name_with_a_line_break_is_refused_at_once(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", grey(blobs(1, (80, 80))))
    with pytest.raises(LsmapError, match=r"new\\nline\.gpkg': there is a line break"):
        run(scene, tmp_path / "new\nline.gpkg")


def test_a_name_that_is_too_long_is_refused_at_once(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", grey(blobs(1, (80, 80))))
    with pytest.raises(LsmapError, match="this name is too long"):
        run(scene, tmp_path / f"{'s' * 210}.gpkg")
    assert run(scene, tmp_path / f"{'s' * 195}.gpkg").landslides > 0
