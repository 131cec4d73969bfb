"""Maps of lsmap's that people have gone through: what their verdicts mean to each command."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import geopandas
import pandas
import pytest
import rasterio
import shapely
from fakes import blobs, grey, read, write_scene
from fakes import detect_brightness as run

from landslide_mapper.data.config import PrepareConfig
from landslide_mapper.errors import LsmapError
from landslide_mapper.evaluation.inventories import compare
from landslide_mapper.geo.labels import OptionNames
from landslide_mapper.geo.review import (
    ACCEPTED,
    NOT_REVIEWED,
    check_conditions,
    read_unrejected,
    verdicts,
    work_in,
)
from landslide_mapper.prepare import prepare


@pytest.fixture
def scene(tmp_path: Path) -> str:
    return write_scene(tmp_path / "scene.tif", grey(blobs(3, (256, 256), 0.2, smooth=4)))


@pytest.fixture(params=[".gpkg", ".shp", ".fgb"])
def slides(tmp_path: Path, scene: str, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"slides{request.param}"
    assert run(scene, path).landslides > 6
    return path


def reviewed(path: Path) -> tuple[int, int]:
    """Give verdicts in turn: yes, no, none; how many are yes and no."""
    table = read(path)
    table["review"] = [("yes", "no", None)[number % 3] for number in range(len(table))]
    table.to_file(path, **({"layer": "landslides"} if path.suffix == ".gpkg" else {}))
    return int((table["review"] == "yes").sum()), int((table["review"] == "no").sum())


def is_kept(slides: Path, scene: str, why: str) -> None:
    """Whether --overwrite is refused and leaves the layer as it is."""
    before = slides.read_bytes()
    with pytest.raises(LsmapError, match=why):
        run(scene, slides, overwrite=True)
    assert slides.read_bytes() == before


def test_what_was_rejected_is_no_landslide(
    slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = read_unrejected(str(slides), None, OptionNames())
    assert "left out" not in capsys.readouterr().err
    yes, no = reviewed(slides)
    assert verdicts(str(slides)) == {"yes": yes, "no": no}
    left = read_unrejected(str(slides), None, OptionNames())
    assert len(left.polygons) == len(everything.polygons) - no
    assert f"{no} polygons whose review is 'no' are left out" in capsys.readouterr().err
    assert len(compare(str(slides), str(slides)).reference.verdict) == len(left.polygons)


def test_labels_that_were_reviewed_want_conditions(
    tmp_path: Path, scene: str, slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_conditions(str(slides), None)
    assert f"{slides}: lsmap mapped this and nobody has reviewed it" in capsys.readouterr().err
    _, no = reviewed(slides)
    config = {"scenes": (scene,), "labels": str(slides), "tile_size": 64}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing of GDAL's is said to people
        said = "say which are landslides: --where \"review = 'yes'\""
        with pytest.raises(LsmapError, match=said):
            prepare(PrepareConfig(tmp_path / "a", **config))
    asked = {"where": ACCEPTED, "ignore_where": NOT_REVIEWED}
    prepare(PrepareConfig(tmp_path / "b", **config, **asked))
    said = capsys.readouterr().err
    assert f"{no} polygons whose review is 'no' count as background" in said
    assert "no condition takes" not in said


def test_a_map_whose_false_alarms_were_deleted_is_good_for_labels(
    slides: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = read(slides).iloc[1:]
    table.to_file(slides, **({"layer": "landslides"} if slides.suffix == ".gpkg" else {}))
    check_conditions(str(slides), None)
    assert "nobody has reviewed" not in capsys.readouterr().err


@pytest.mark.parametrize("change", ["drawn", "deleted"])
def test_a_layer_that_was_edited_is_not_replaced(scene: str, slides: Path, change: str) -> None:
    table = read(slides)
    if change == "deleted":
        table = table.drop(index=[2])
    else:
        drawn = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 9, 9)], crs=table.crs)
        table = pandas.concat([table, drawn], ignore_index=True)
    table.to_file(slides, **({"layer": "landslides"} if slides.suffix == ".gpkg" else {}))
    is_kept(slides, scene, "have been drawn or deleted in it")


def test_an_edit_that_only_the_file_s_clock_tells_is_not_lost(tmp_path: Path, scene: str) -> None:
    slides = tmp_path / "slides.gpkg"
    run(scene, slides)
    with closing(sqlite3.connect(slides)) as database:  # a style that is saved to the file
        database.execute("UPDATE layer_styles SET description = 'mine'")
        database.commit()
    run(scene, slides, overwrite=True)
    copied = read(slides).iloc[-1:]
    copied.assign(id=copied["id"] + 1).to_file(slides, layer="landslides", mode="a")
    is_kept(slides, scene, "it has been edited, which --overwrite would undo")


def test_a_field_that_was_added_is_not_lost(scene: str, slides: Path) -> None:
    table = read(slides)
    table["seen_on"] = "2026-05-01"
    table.to_file(slides, **({"layer": "landslides"} if slides.suffix == ".gpkg" else {}))
    is_kept(slides, scene, "it has got the field seen_on")


def test_a_layer_of_somebody_else_s_is_not_replaced(tmp_path: Path, scene: str) -> None:
    own = geopandas.GeoDataFrame({"kind": ["debris"]}, geometry=[shapely.box(0, 0, 9, 9)])
    own = own.set_crs("EPSG:32648")
    for path, options in (
        (tmp_path / "own.gpkg", {"layer": "landslides"}),
        (tmp_path / "o.shp", {}),
    ):
        own.to_file(path, **options)
        is_kept(path, scene, "its polygons are not a map of lsmap's")
        own.iloc[:0].to_file(path, **options)
        assert run(scene, path, overwrite=True).landslides > 6


def test_tables_and_projects_of_qgis_in_the_file_are_not_lost(tmp_path: Path, scene: str) -> None:
    slides = tmp_path / "slides.gpkg"
    run(scene, slides)
    with rasterio.open(scene) as raster:
        basemap = raster.read()
        profile = {"driver": "GPKG", "width": raster.width, "height": raster.height, "count": 1}
        profile |= {"dtype": "uint8", "crs": raster.crs, "transform": raster.transform}
    with rasterio.open(
        slides, "w", **profile, APPEND_SUBDATASET="YES", RASTER_TABLE="basemap"
    ) as written:
        written.write(basemap[:1])
    is_kept(slides, scene, "also holds basemap, which")
    slides.unlink()
    run(scene, slides)
    with closing(sqlite3.connect(slides)) as database:
        database.execute("CREATE TABLE qgis_projects(name TEXT PRIMARY KEY, content BLOB)")
        database.commit()
    is_kept(slides, scene, "also holds qgis_projects, which")


def test_other_layers_in_the_file_are_not_lost(tmp_path: Path, scene: str) -> None:
    slides = tmp_path / "slides.gpkg"
    run(scene, slides)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # nothing of GDAL's is said to people
        run(scene, slides, overwrite=True)
    notes = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32648")
    notes.to_file(slides, layer="my notes")
    is_kept(slides, scene, "also holds my notes, which --overwrite would delete")


def test_a_layer_that_somebody_is_changing_is_not_replaced(tmp_path: Path, scene: str) -> None:
    slides = tmp_path / "slides.gpkg"
    run(scene, slides)
    for mode in ("WAL", "DELETE"):
        with closing(sqlite3.connect(slides, isolation_level=None)) as other:
            other.execute(f"PRAGMA journal_mode={mode}")
            other.execute("BEGIN IMMEDIATE")
            other.execute("UPDATE layer_styles SET description = 'mine'")
            with pytest.raises(LsmapError, match="another program is changing it"):
                run(scene, slides, overwrite=True)
            other.execute("ROLLBACK")
    assert run(scene, slides, overwrite=True).landslides > 6


def test_a_layer_that_is_opened_while_it_is_made_anew_is_not_replaced(
    tmp_path: Path, scene: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is checked before the work is checked after it again, and the work is kept."""
    from landslide_mapper import detect

    slides = tmp_path / "slides.gpkg"
    run(scene, slides)
    join_all = detect.join_all

    def review_meanwhile(*arguments: object) -> object:
        joined = join_all(*arguments)  # type: ignore[arg-type]
        reviewed(slides)
        return joined

    monkeypatch.setattr(detect, "join_all", review_meanwhile)
    with pytest.raises(LsmapError, match="of its polygons have been reviewed"):
        run(scene, slides, overwrite=True)
    assert verdicts(str(slides)).total() > 3
    made = tmp_path / "mask.tif"
    monkeypatch.setattr(
        detect, "join_all", lambda *a: (join_all(*a), made.write_text("somebody's"))[0]
    )
    with pytest.raises(LsmapError, match=r"mask\.tif: somebody has made this file"):
        run(scene, tmp_path / "other.gpkg", mask=made)
    assert made.read_text() == "somebody's"
    assert not (tmp_path / "other.gpkg").exists()


def test_ids_that_are_no_numbers_are_somebody_s_work(tmp_path: Path) -> None:
    fields = {"id": ["LS-1"], "confidence": ["high"], "review": [None]}
    table = geopandas.GeoDataFrame(fields, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32648")
    table.to_file(tmp_path / "own.shp")
    assert "ids" in work_in(str(tmp_path / "own.shp"))


def test_numbers_are_verdicts_and_nan_is_none(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    table = geopandas.GeoDataFrame(
        {"id": [1, 2, 3], "confidence": [0.5] * 3, "review": [1.0, None, 2.0]},
        geometry=[shapely.box(n, 0, n + 1, 1) for n in range(3)],
        crs="EPSG:32648",
    )
    table.to_file(path)
    assert verdicts(str(path)) == {"1.0": 1, "2.0": 1}
