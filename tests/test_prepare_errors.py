"""`lsmap prepare` on what it cannot use, and through what it cannot help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from preparing import make
from running import full_disk

from landslide_mapper.cli import main
from landslide_mapper.data.manifest import LAYER, TILES, load_dataset
from landslide_mapper.errors import LsmapError
from landslide_mapper.prepare import PrepareConfig, prepare


def test_nothing_is_overwritten_unasked(tmp_path: Path, scene: str, slides: str) -> None:
    make(tmp_path, [scene], slides)
    with pytest.raises(LsmapError, match="--overwrite"):
        make(tmp_path, [scene], slides)
    with pytest.raises(LsmapError, match="no polygon fulfils"):
        make(tmp_path, [scene], slides, overwrite=True, where="kind = 'none'")
    assert load_dataset(tmp_path / "dataset").tiles
    assert make(tmp_path, [scene], slides, overwrite=True, tile_size=128).tile_size == 128
    with pytest.raises(LsmapError, match="this is a file"):
        make(tmp_path, [scene], slides, name="slides.geojson/dataset")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(LsmapError, match="leaves it alone"):
        make(tmp_path, [scene], slides, overwrite=True, name="precious")
    assert not list(tmp_path.glob(".*"))


def test_what_else_lies_in_a_data_set_s_folder_is_not_lost(
    tmp_path: Path, scene: str, slides: str
) -> None:
    folder = tmp_path / "dataset"
    make(tmp_path, [scene], slides)
    (folder / f"{TILES}-wal").touch()  # what QGIS leaves there goes with the data set
    make(tmp_path, [scene], slides, overwrite=True)
    inside = folder / "images" / "scene.tif"
    shutil.copy(scene, inside)
    with pytest.raises(LsmapError, match=r"images/scene\.tif: this is an input and lies in"):
        make(tmp_path, [str(inside)], slides, overwrite=True)
    assert inside.exists()
    inside.unlink()
    for name in ("notes.txt", "slides.gpkg"):
        (folder / name).write_text("mine")
        with pytest.raises(LsmapError, match=rf"also holds {name}, which --overwrite would delete"):
            make(tmp_path, [scene], slides, overwrite=True)
        assert (folder / name).read_text() == "mine"
        (folder / name).unlink()
    make(tmp_path, [scene], slides, overwrite=True)


@pytest.mark.parametrize("limit", [4_000, 60_000])  # of a tile, then of the footprints
def test_a_full_disk_is_one_line_and_no_data_set(
    scene: str, slides: str, tmp_path: Path, limit: int
) -> None:
    """A limit on the size of files stands for the disk."""
    command = [sys.executable, "-m", "landslide_mapper", "prepare", scene, slides]
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [*command, "--tile-size", "64", "-o", str(tmp_path / "set")],
        capture_output=True,
        text=True,
        **full_disk(limit),
    )
    assert done.returncode == 1, done.stderr
    *_, line = done.stderr.strip().splitlines()
    assert line.startswith(f"Error: {tmp_path / 'set'}: the data set could not be written")
    assert "choose another place with -o" in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sampling": "centred"}, "--sampling centred: give one of grid, centered"),
        ({"stretch": "gamma"}, "--stretch gamma"),
        ({"negatives": "some"}, "--negatives some"),
        ({"negatives": -1.0}, "--negatives -1"),
    ],
)
def test_unknown_settings_are_refused_from_python_too(options: dict[str, Any], says: str) -> None:
    with pytest.raises(LsmapError, match=says):
        PrepareConfig(scenes=("a.tif",), labels="b.shp", **options)


def test_killed_run_leaves_no_data_set_and_can_be_repeated(
    tmp_path: Path, scene: str, slides: str
) -> None:
    command = [sys.executable, "-m", "landslide_mapper", "prepare", scene, slides]
    command += ["-o", str(tmp_path / "d"), "--tile-size", "64", "--stride", "8", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / ".d.partial" / "images"
    while process.poll() is None and not (part.is_dir() and any(part.iterdir())):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert part.is_dir()
    assert not (tmp_path / "d").exists()
    dataset = make(tmp_path, [scene], slides, name="d")
    assert len(list((dataset.root / "images").iterdir())) == len(dataset.tiles)
    assert not list(tmp_path.glob(".*"))


def test_labels_elsewhere_are_explained(tmp_path: Path, scene: str) -> None:
    far = geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 9, 9)], crs="EPSG:32632")
    pyogrio.write_dataframe(far, tmp_path / "far.gpkg")
    result = CliRunner().invoke(
        main, ["prepare", scene, str(tmp_path / "far.gpkg"), "-o", str(tmp_path / "d")]
    )
    assert result.exit_code == 2
    line = result.stderr.strip()
    assert line.startswith("Error: ")
    assert "\n" not in line
    assert "x 500000 to 501800" in line
    assert "x 0 to 9" in line


def test_labels_that_do_not_fit_their_crs_are_explained(
    tmp_path: Path, scene: str, slides: str
) -> None:
    metres = pyogrio.read_dataframe(slides).to_crs(32632).geometry.values
    geopandas.GeoDataFrame(geometry=np.array(metres), crs=4326).to_file(tmp_path / "wrong.gpkg")
    command = ["prepare", scene, str(tmp_path / "wrong.gpkg"), "-o", str(tmp_path / "d")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert result.stderr.strip().count("\n") == 0
    assert "are x and y swapped" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "at least one SCENE"),
        (["a.tif"], "at least one SCENE"),
        (["a.tif", "b.shp", "--pairs", "x", "y"], "not both"),
        (["a.tif", "b.shp", "--tile-size", "100"], "multiple of 8"),
        (["a.tif", "b.shp", "--stride", "600"], "1 to the tile size"),
        (["a.tif", "b.shp", "--negatives", "-1"], "0 or more"),
        (["a.tif", "b.shp", "--negatives", "nan"], "0 or more"),
        (["a.tif", "b.shp", "--seed", "-1"], "whole number from 0"),
        (["a.tif", "b.shp", "--workers", "-1"], "1 or more"),
        (["a.tif", "b.shp", "--negatives", "some"], "'all'"),
        (["a.tif", "b.shp", "--bands", "r,g"], "whole numbers"),
        (["a.tif", "b.shp", "--bands", "0"], "start at 1"),
        (["a.tif", "b.shp", "--gsd", "1"], "--pairs only"),
        (["--pairs", "x", "y", "--aoi", "z"], "LABELS only"),
        (["absent.tif", "b.shp"], "no such file"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["prepare", *arguments, "-o", str(tmp_path / "d")])
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: ")


def test_manifest_errors(tmp_path: Path, scene: str, slides: str) -> None:
    with pytest.raises(LsmapError, match="no data set here"):
        load_dataset(tmp_path)
    dataset = make(tmp_path, [scene], slides)
    dataset.tiles[0].mask.unlink()
    with pytest.raises(LsmapError, match=r"1 of .* tiles have no image or mask"):
        load_dataset(dataset.root)
    (dataset.root / "dataset.json").write_text('{"schema_version": 99}')
    with pytest.raises(LsmapError, match="schema 99"):
        load_dataset(dataset.root)
    (dataset.root / "dataset.json").write_text("{")
    with pytest.raises(LsmapError, match="damaged"):
        load_dataset(dataset.root)
    (dataset.root / "dataset.json").unlink()
    (dataset.root / "dataset.json").mkdir()
    why = "Is a directory" if os.name == "posix" else "Permission denied"
    with pytest.raises(LsmapError, match=rf"dataset.json: cannot be read \({why}"):
        load_dataset(dataset.root)


def test_a_changed_table_of_tiles_is_one_line(tmp_path: Path, scene: str, slides: str) -> None:
    """As after work on it in QGIS: a row without a number, a field that is gone."""
    dataset = make(tmp_path, [scene], slides)
    table = geopandas.read_file(dataset.root / TILES, layer=LAYER)
    unknown = table["valid_px"].astype("Int64").where(table.index > 0)
    for changed in (table.assign(valid_px=unknown), table.drop(columns="source")):
        (dataset.root / TILES).unlink()
        pyogrio.write_dataframe(changed, dataset.root / TILES, layer=LAYER)
        result = CliRunner().invoke(main, ["info", str(dataset.root)])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"Error: {dataset.root}: {TILES} is missing or damaged")


def test_tiles_of_unknown_splits_are_not_left_out_unsaid(
    tmp_path: Path, scene: str, slides: str
) -> None:
    dataset = make(tmp_path, [scene], slides)
    table = geopandas.read_file(dataset.root / TILES, layer=LAYER)
    for name in ("validation", None):
        table.loc[0, "split"] = name
        (dataset.root / TILES).unlink()
        pyogrio.write_dataframe(table, dataset.root / TILES, layer=LAYER)
        with pytest.raises(LsmapError, match=rf"1 tiles .*in '{name}'.*delete its row"):
            load_dataset(dataset.root)
    pyogrio.write_dataframe(table[1:], dataset.root / TILES, layer=LAYER)
    assert len(load_dataset(dataset.root).tiles) == len(table) - 1


def test_advice_on_empty_splits_suits_how_they_came_about(
    tmp_path: Path, scene: str, slides: str
) -> None:
    (tmp_path / "split.csv").write_text("scene;Split\nscene one (a);train\n")
    given: dict[str, Any] = {"scenes": (scene,), "labels": slides, "workers": 2}
    split_file = tmp_path / "split.csv"
    report = prepare(PrepareConfig(tmp_path / "a", split_file=split_file, tile_size=64, **given))
    said = "\n".join(report.lines())
    assert f"No tiles in val and test: {split_file} puts nothing there" in said
    assert "--split-file" not in said
    report = prepare(PrepareConfig(tmp_path / "b", tile_size=1024, **given))
    assert "give a --split-file" in "\n".join(report.lines())


def test_conditions_that_leave_nothing_say_why(
    tmp_path: Path, scene: str, slides: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LsmapError, match="no polygon fulfils --where \"kind = 'none'\""):
        make(tmp_path, [scene], slides, where="kind = 'none'")
    with pytest.raises(LsmapError, match=r"fulfil --ignore-where .* too, which goes before"):
        make(tmp_path, [scene], slides, where="kind = 'slide'", ignore_where="kind LIKE 's%'")
    make(tmp_path, [scene], slides, where="kind = 'slide'")
    assert "10 features that no condition takes count as background" in capsys.readouterr().err
    make(tmp_path, [scene], slides, name="b", where="kind = 'slide'", ignore_where="kind = 'maybe'")
    assert "no condition" not in capsys.readouterr().err
