"""Every format holds every polygon and value, in few bytes of memory, or says that it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from fakes import read
from pyarrow import parquet

from landslide_mapper.geo import vector_formats, vectors
from landslide_mapper.geo.gdal import new_layer
from landslide_mapper.geo.style import add_default_style, polygon_qml
from landslide_mapper.geo.vector_formats import DRIVERS, FIELDS, VectorTarget
from landslide_mapper.geo.vectors import PolygonWriter

pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided")

UTM = pyproj.CRS.from_epsg(32648)
NUMBERS = [name for name, kind in FIELDS.items() if kind is np.float64]


def layer(count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Squares of 1 m in a row, each with its own numbers; every third has no width."""
    left = 2.0 * np.arange(count) + 400000
    columns: dict[str, np.ndarray] = {
        name: np.arange(count) + place / 16 for place, name in enumerate(NUMBERS)
    }
    columns["width_m"][::3] = np.nan
    columns["scene"] = np.array([f"Szene {i % 3} – Süd.tif" for i in range(count)], dtype=object)
    columns["model"] = np.full(count, "fake", dtype=object)
    return shapely.box(left, 3500000, left + 1, 3500001), columns


def written(path: Path, count: int, batch: int, crs: pyproj.CRS | None = UTM) -> Path:
    polygons, columns = layer(count)
    if path.suffix == ".geojson":
        polygons, crs = shapely.transform(polygons, lambda p: p / 1e5), pyproj.CRS.from_epsg(4326)
    path.parent.mkdir(exist_ok=True)
    with PolygonWriter(VectorTarget(path, crs), path.parent, 0.5) as writer:
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            writer.write(polygons[part], {name: column[part] for name, column in columns.items()})
    assert writer.count == count
    return path


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_what_was_written_is_read_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "BATCH_POINTS", 100)
    path = written(tmp_path / f"slides{suffix}", 100, 7)
    assert sorted(tmp_path.iterdir()) == sorted(vector_formats.outputs(path))
    table = read(path).sort_values("id")  # FlatGeobuf sorts by place
    polygons, columns = layer(100)
    names = vector_formats.SHAPEFILE_NAMES if suffix == ".shp" else {}
    assert list(table.columns) == [*(names.get(name, name) for name in FIELDS), "geometry"]
    assert list(table["id"]) == list(range(1, 101))
    assert table["id"].dtype == np.int32
    for name in NUMBERS:
        np.testing.assert_array_equal(table[names.get(name, name)], columns[name])
    assert list(table["scene"]) == list(columns["scene"])
    assert table["review"].isna().all()
    if suffix != ".geojson":
        assert table.crs == UTM
        assert all(shapely.equals(table.geometry, polygons))


@pytest.mark.parametrize("suffix", [".shp", ".gpkg"])
def test_a_text_that_a_shapefile_cannot_hold_is_cut_visibly(tmp_path: Path, suffix: str) -> None:
    names = ["x" * 254, "ä" * 200, "short"]
    columns = {"scene": np.array(names, dtype=object)}
    path = tmp_path / f"slides{suffix}"
    with PolygonWriter(VectorTarget(path, UTM), tmp_path, 0.5) as writer:
        writer.write(layer(3)[0], columns)
    if suffix == ".shp":
        names[1] = "ä" * 125 + " …"
    assert list(read(path)["scene"]) == names


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_the_same_polygons_are_the_same_bytes(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches they came in, and the day."""
    first = written(tmp_path / "a" / f"slides{suffix}", 300, 7)
    monkeypatch.setattr(vectors, "BATCH_POINTS", 100)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    second = written(tmp_path / "b" / f"slides{suffix}", 300, 50)
    for one, two in zip(vector_formats.outputs(first), vector_formats.outputs(second), strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


@pytest.mark.parametrize("before", [None, "2001-02-03T04:05:06Z"])
def test_options_of_gdal_are_what_they_were(tmp_path: Path, before: str | None) -> None:
    options = {"OGR_CURRENT_DATE": before, "OGR_SQLITE_SYNCHRONOUS": None}
    pyogrio.set_gdal_config_options(options)
    try:
        written(tmp_path / "slides.gpkg", 3, 3)
        found = {name: pyogrio.get_gdal_config_option(name) for name in options}
    finally:
        pyogrio.set_gdal_config_options(dict.fromkeys(options))
    assert found == options


def test_bounds_of_geoparquet_are_those_of_all_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "BATCH_POINTS", 1)
    path = written(tmp_path / "slides.parquet", 30, 7)
    said = json.loads(parquet.read_schema(path).metadata[b"geo"])
    assert said["columns"]["geometry"]["bbox"] == [400000, 3500000, 400059, 3500001]


@pytest.mark.parametrize("suffix", [suffix for suffix in DRIVERS if suffix != ".geojson"])
@pytest.mark.parametrize("wkt", ["WKT2_2019", "WKT1_GDAL", "WKT1_ESRI"])
@pytest.mark.parametrize("unit", ["us-ft", "ft", "km"])
def test_a_utm_zone_in_other_units_is_not_taken_for_one_in_metres(
    tmp_path: Path, suffix: str, wkt: str, unit: str
) -> None:
    crs = pyproj.CRS(f"+proj=utm +zone=11 +datum=NAD83 +units={unit}")
    path = written(tmp_path / f"slides{suffix}", 1, 1, pyproj.CRS(crs.to_wkt(wkt)))
    there = pyproj.CRS(read(path).crs)
    to_there = pyproj.Transformer.from_crs(crs, there, always_xy=True)
    assert to_there.transform(1000, 3000) == pytest.approx((1000, 3000), abs=1e-6)


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_an_empty_layer_has_fields_and_a_place(tmp_path: Path, suffix: str) -> None:
    table = read(written(tmp_path / f"slides{suffix}", 0, 1))
    assert len(table) == 0
    if suffix != ".geojson":  # an empty GeoJSON has nowhere to keep its fields
        assert "area_m2" in table.columns
        assert table.crs == UTM


@pytest.mark.parametrize("suffix", [s for s in DRIVERS if s != ".geojson"])
def test_a_layer_may_have_no_crs(tmp_path: Path, suffix: str) -> None:
    table = read(written(tmp_path / f"slides{suffix}", 5, 5, crs=None))
    assert len(table) == 5
    assert table.crs is None or "Undefined" in table.crs.name


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_vectors import written
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limits = Path(sys.argv[2]), sys.argv[3:]
for limit in map(int, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for old in path.parent.iterdir():
        old.unlink()
    try:
        written(path, 3000, 1000)
        print("DONE")
    except OSError as error:
        print("REFUSED", error)
"""


@pytest.mark.parametrize("suffix", list(DRIVERS))
def test_a_full_disk_never_passes_for_a_file(tmp_path: Path, suffix: str) -> None:
    """A limit on the size of files stands for the disk; each format meets it somewhere else."""
    pytest.importorskip("resource", reason="limits on files are those of POSIX")
    path = written(tmp_path / "good" / f"slides{suffix}", 3000, 1000)
    size = path.stat().st_size
    limits = [0, 5_000, size // 2, size - 3000, size - 10, 100_000_000]
    folder = tmp_path / "full"
    folder.mkdir()
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, here, str(folder / path.name), *map(str, limits)],
        capture_output=True,
        text=True,
        cwd=Path(here).parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    said = done.stdout.strip().splitlines()
    assert [line.split()[0] for line in said] == ["REFUSED"] * 5 + ["DONE"], done.stdout
    assert (folder / path.name).read_bytes() == path.read_bytes()


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_new_layer_needs_no_locks(tmp_path: Path) -> None:
    """A lock that another process holds stands for a drive that gives none."""
    path = tmp_path / "new.gpkg"
    shapes = shapely.to_wkb(shapely.box([0, 2], 0, [1, 3], 1))
    options = {"layer": "one", "driver": "GPKG", "geometry_type": "Polygon", "crs": "EPSG:32648"}
    with new_layer():
        pyogrio.raw.write(path, shapes, [], [], **options)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"locked{os.linesep}".encode()
        with new_layer():
            pyogrio.raw.write(path, shapes, [], [], append=True, **options)
            add_default_style(path, "one", "geom", polygon_qml(0.5), "confidence")
        holder.communicate()
    assert pyogrio.read_info(path, layer="one")["features"] == 4
    assert "layer_styles" in pyogrio.list_layers(path)[:, 0]
