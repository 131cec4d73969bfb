"""Interrupted runs: whatever happens, the same command ends with the identical files."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from fakes import UTM, blobs, brightness, detect_brightness, grey, model_info, read, write_scene

from landslide_mapper import detect as detect_module
from landslide_mapper.detect import detect, detect_with
from landslide_mapper.errors import LsmapError, LsmapFailure
from landslide_mapper.geo.band_stack import stack
from landslide_mapper.geo.blocks import Layout
from landslide_mapper.geo.measure import to_map
from landslide_mapper.mapping import parts
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.store import FolderStore
from landslide_mapper.mapping.workspace import hidden_folder
from landslide_mapper.staging import Staging

# Children come from a process without threads: those of GDAL and torch do not survive a fork.
CHILDREN = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
if os.name == "posix":
    CHILDREN.set_forkserver_preload(["landslide_mapper.detect", "fakes"])

OUTPUTS = ("slides.gpkg", "mask.tif", "percent.tif", "mask.qml", "percent.qml")


# Blocks of about 150 × 150 pixels instead of five million pixels.
SMALL = partial(Layout, max_width=200, max_pixels=200 * 150)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_module, "Layout", SMALL)


def child(config: DetectConfig, predict: Slow) -> Any:
    """A process that runs `detect`, not yet started."""
    return CHILDREN.Process(target=_child, args=(config, predict))


def _child(config: DetectConfig, predict: Slow) -> None:
    detect_module.Layout = SMALL  # type: ignore[assignment, misc]
    try:
        detect_with(config, predict, model_info())
    except LsmapError as error:
        sys.exit(str(error))


@pytest.fixture
def scene(tmp_path: Path) -> str:
    return write_scene(tmp_path / "scene.tif", grey(blobs(8, (600, 400), 0.4)))


def config(scene: str, folder: Path, **options: Any) -> DetectConfig:
    folder.mkdir(exist_ok=True)
    options = {"min_area": 5.0, "fill_holes": 4.0} | options
    return DetectConfig(
        (scene,),
        folder / "slides.gpkg",
        mask=folder / "mask.tif",
        probability=folder / "percent.tif",
        **options,
    )


class Slow:
    """`brightness` with a pause; notes how many windows it was asked for."""

    def __init__(self, log: Path, pause: float = 0.003, stop_after: int | None = None) -> None:
        self._log, self._pause, self._left = log, pause, stop_after

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        time.sleep(self._pause)
        with self._log.open("a") as log:
            log.write("." * len(windows))
        return brightness(windows)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def remove_outputs(folder: Path) -> None:
    for path in folder.glob("[!.]*"):
        path.unlink()


def test_twenty_kills_and_the_identical_files(
    scene: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detect_with(config(scene, tmp_path / "whole"), Slow(tmp_path / "log"), model_info())
    expected = contents(tmp_path / "whole")
    assert set(expected) == set(OUTPUTS)
    asked = (tmp_path / "log").stat().st_size
    folder = tmp_path / "killed"
    rng = random.Random(1)
    kills = finished = 0
    while kills < 20:
        process = child(config(scene, folder), Slow(tmp_path / "log"))
        process.start()
        process.join(rng.uniform(0.02, 0.9))
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            for name, content in contents(folder).items():
                assert content == expected[name], "an output that is there is whole"
        else:
            # Killed while it cleaned up, a run is finished: the next one finds its outputs.
            said = capfd.readouterr().err
            assert process.exitcode == 0 or "slides.gpkg: this file exists" in said
            finished += 1
            assert contents(folder) == expected
            remove_outputs(folder)
    if contents(folder) == expected:  # so was the last one
        remove_outputs(folder)
    detect_with(config(scene, folder), Slow(tmp_path / "log"), model_info())
    assert contents(folder) == expected
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    # Without parts every try would start from nothing and few would ever end.
    assert (tmp_path / "log").stat().st_size < asked * (1 + finished + 1 + kills / 2)


def stop_after_the_first_move(staging: Staging) -> None:
    """In place of `Staging.publish`: killed when one output is in its place."""
    made, target = next((made, target) for made, target, _ in staging._moves if made.exists())
    os.replace(made, target)
    raise KeyboardInterrupt


def interrupted(store: FolderStore) -> None:
    """In place of `FolderStore.clear`: killed half way."""
    kept = sorted(name for name in store.names() if name.endswith(".part"))
    if kept:
        store.delete(kept[0])
        raise KeyboardInterrupt


def test_a_run_stopped_among_its_moves_replaces_its_own_outputs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(8, (90, 80), 0.4)))
    detect_with(config(scene, tmp_path / "whole"), brightness, model_info())
    folders = tmp_path / "same", tmp_path / "other"
    for folder in folders:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Staging, "publish", stop_after_the_first_move)
            with pytest.raises(KeyboardInterrupt):
                detect_with(config(scene, folder), brightness, model_info())
        assert len(contents(folder)) == 1
    detect_with(config(scene, folders[0]), brightness, model_info())
    assert contents(folders[0]) == contents(tmp_path / "whole")
    published = contents(folders[1])
    capsys.readouterr()
    waits = r"mask\.tif: a run that was stopped .* \(--threshold changed since\)"
    with pytest.raises(LsmapError, match=waits):
        detect_with(config(scene, folders[1], threshold=0.1), brightness, model_info())
    assert "starting afresh" not in capsys.readouterr().err
    assert contents(folders[1]) == published
    # Nothing of the first one is lost by that.
    detect_with(config(scene, folders[1]), brightness, model_info())
    assert contents(folders[1]) == contents(tmp_path / "whole")
    assert "starting afresh" not in capsys.readouterr().err


def test_a_run_stopped_among_its_moves_replaces_no_picture_of_somebody_s(tmp_path: Path) -> None:
    """The picture may be another one when the run goes on."""
    scene = write_scene(tmp_path / "scene.tif", grey(blobs(8, (90, 80), 0.4)))
    folder, theirs = tmp_path / "out", tmp_path / "theirs.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "publish", stop_after_the_first_move)
        first = config(scene, folder, overlay=folder / "picture.png")
        with pytest.raises(KeyboardInterrupt):
            detect_with(first, brightness, model_info())
    theirs.write_text("holiday")
    with pytest.raises(LsmapError, match=r"theirs\.png: this file exists"):
        detect_with(config(scene, folder, overlay=theirs), brightness, model_info())
    assert theirs.read_text() == "holiday"
    detect_with(config(scene, folder, overlay=tmp_path / "new.png"), brightness, model_info())
    assert set(OUTPUTS) <= set(contents(folder))
    assert (tmp_path / "new.png").is_file()


def test_a_run_stopped_while_it_cleaned_up_is_finished(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderStore, "clear", interrupted)
        with pytest.raises(KeyboardInterrupt):
            detect_with(config(scene, folder, overwrite=True), brightness, model_info())
    finished = contents(folder)
    assert set(finished) == set(OUTPUTS)
    with pytest.raises(LsmapError, match="this file exists"):
        detect_with(config(scene, folder), brightness, model_info())
    detect_with(config(scene, folder, overwrite=True), brightness, model_info())
    assert contents(folder) == finished
    assert "starting afresh" not in capsys.readouterr().err


def test_finished_parts_are_not_predicted_again(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detect_with(config(scene, tmp_path / "whole"), Slow(tmp_path / "first"), model_info())
    all_windows = (tmp_path / "first").stat().st_size
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        detect_with(
            config(scene, folder), Slow(tmp_path / "a", stop_after=all_windows // 2), model_info()
        )
    assert contents(folder) == {}
    kept = list((hidden_folder(folder / "slides.gpkg") / "parts").glob("*.part"))
    assert len(kept) > 3
    detect_with(config(scene, folder), Slow(tmp_path / "b"), model_info())
    assert f"going on with an unfinished run, {len(kept)} parts" in capsys.readouterr().err
    assert (tmp_path / "b").stat().st_size < 0.7 * all_windows
    assert contents(folder) == contents(tmp_path / "whole")


def no_memory(_windows: np.ndarray) -> np.ndarray:
    raise RuntimeError("CUDA out of memory")


def test_a_run_that_cannot_work_costs_no_finished_parts(
    scene: str, tmp_path: Path, bundled_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device or a scheduler that is not there, too little memory: parts are hours of work."""
    folder, slow = tmp_path / "out", Slow(tmp_path / "log", 0, stop_after=60)
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, folder), slow, model_info())
    kept = contents(hidden_folder(folder / "slides.gpkg") / "parts")
    assert sum(name.endswith(".part") for name in kept) > 3
    with pytest.raises(LsmapError, match="'gpu' is not known"):
        detect(config(scene, folder, model=str(bundled_model), device="gpu"))
    other = config(scene, folder, threshold=0.1)
    nobody = replace(other, dask="tcp://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("landslide_mapper.mapping.cluster.PATIENCE", 1)
        with pytest.raises(LsmapError, match=r"no scheduler answers there|need Dask"):
            detect_with(nobody, brightness, model_info())
    with pytest.raises(LsmapFailure, match=r"out of memory; .*--device cpu$"):
        detect_with(other, no_memory, model_info())
    assert contents(hidden_folder(folder / "slides.gpkg") / "parts") == kept
    capsys.readouterr()
    detect_with(config(scene, folder), Slow(tmp_path / "log", 0), model_info())
    assert "going on with an unfinished run" in capsys.readouterr().err


def write_area(path: Path, *boxes: tuple[int, int, int, int]) -> str:
    """Rectangles (left, top, right, bottom) in pixels of `scene`, as a layer."""
    placed = to_map(shapely.box(*np.transpose(boxes)), UTM)
    geopandas.GeoDataFrame(geometry=placed, crs="EPSG:32648").to_file(path)
    return str(path)


@pytest.mark.parametrize("change", ["option", "place", "area", "scene", "model", "blocks"])
def test_anything_different_starts_afresh_and_says_so(
    scene: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    folder, slow = tmp_path / "out", Slow(tmp_path / "log", 0, stop_after=60)
    options: dict[str, Any] = {}
    if change == "area":
        options = {"aoi": write_area(tmp_path / "aoi.gpkg", (0, 0, 400, 600))}
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, folder, **options), slow, model_info())
    info, said = model_info(), ""
    if change == "area":  # in the same frame
        write_area(tmp_path / "aoi.gpkg", (0, 0, 90, 600), (200, 0, 400, 600))
        said = "scene.tif (1) changed"
    elif change == "option":
        options, said = {"min_area": 6.0}, "--min-area changed"
    elif change == "place":
        options, said = {"bbox": (300000, 3499900, 300150, 3500000)}, "as --bbox, "
    elif change == "scene":
        with rasterio.open(scene, "r+") as raster:
            raster.write(np.full((3, 50, 50), 200, np.uint8), window=((0, 50), (0, 50)))
        said = "scene.tif (1) changed"
    elif change == "blocks":  # of another version that has kept its number
        larger = partial(Layout, max_width=250, max_pixels=250 * 200)
        monkeypatch.setattr(detect_module, "Layout", larger)
        said = "the size of blocks changed"
    else:
        info, said = model_info(threshold=0.6), "the model changed"
    detect_with(config(scene, folder, **options), Slow(tmp_path / "log", 0), info)
    errors = capsys.readouterr().err
    assert "starting afresh" in errors
    assert said in errors
    other = tmp_path / "other"
    detect_with(config(scene, other, **options), Slow(tmp_path / "log", 0), info)
    assert contents(folder) == contents(other)


def test_two_at_once_are_kept_apart(scene: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = child(config(scene, folder), Slow(tmp_path / "log", 0.01))
    process.start()
    try:
        while not (hidden_folder(folder / "slides.gpkg") / "parts").exists():
            assert process.is_alive()
            time.sleep(0.01)
        with pytest.raises(LsmapError, match="another lsmap is writing this"):
            detect_with(config(scene, folder), brightness, model_info())
    finally:
        process.join()
    assert process.exitcode == 0
    assert set(contents(folder)) == set(OUTPUTS)


def test_a_full_disk_leaves_no_output_and_the_next_try_ends_well(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    write = FolderStore.write
    count = 0

    def full(store: FolderStore, name: str, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise OSError(28, "No space left on device")
        write(store, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "write", full)
        with pytest.raises(LsmapFailure, match="the disk is full") as error:
            detect_with(config(scene, folder), brightness, model_info())
    assert "finished parts will be used" in str(error.value)
    assert contents(folder) == {}
    detect_with(config(scene, folder), brightness, model_info())
    assert set(contents(folder)) == set(OUTPUTS)


def test_a_source_that_vanishes_is_one_line_and_no_output(scene: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def cut(windows: np.ndarray) -> np.ndarray:
        if Path(scene).stat().st_size > 1000:
            Path(scene).write_bytes(Path(scene).read_bytes()[:1000])
        return brightness(windows)

    with pytest.raises(LsmapFailure, match="cannot be read") as error:
        detect_with(config(scene, folder), cut, model_info())
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    assert contents(folder) == {}


def test_a_part_is_told_from_one_with_any_other_byte(scene: str, tmp_path: Path) -> None:
    predictor = Slow(tmp_path / "log", 0, stop_after=60)
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, tmp_path / "out"), predictor, model_info())
    part = min((hidden_folder(tmp_path / "out" / "slides.gpkg") / "parts").glob("*.part"))
    content = part.read_bytes()
    assert parts.from_bytes(content).seen > 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="damaged"):
            parts.from_bytes(bytes(changed))
    for zeros in (0, 4, 8):
        with pytest.raises(ValueError, match="damaged"):
            parts.from_bytes(bytes(zeros))


@pytest.mark.parametrize(("kept", "zeros"), [(-100, 0), (-12, 12), (0, 0), (0, 500)])
def test_a_damaged_part_is_made_anew(scene: str, tmp_path: Path, kept: int, zeros: int) -> None:
    folder = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, folder), Slow(tmp_path / "log", 0, stop_after=60), model_info())
    part = min((hidden_folder(folder / "slides.gpkg") / "parts").glob("*.part"))
    part.write_bytes(part.read_bytes()[:kept] + bytes(zeros))
    with pytest.raises(LsmapFailure, match="damaged"):
        detect_with(config(scene, folder), brightness_named_slow(), model_info())
    detect_with(config(scene, folder), brightness_named_slow(), model_info())
    assert set(contents(folder)) == set(OUTPUTS)


def brightness_named_slow() -> Slow:
    """The same model as far as a run can tell."""
    return Slow(Path(os.devnull), 0)


@pytest.fixture
def blocky() -> Iterator[np.ndarray]:
    return blobs(3, (500, 700), 0.5)


@pytest.mark.parametrize("limits", [(100, 100 * 100), (10_000, 10**9), (64, 64 * 700)])
def test_blocks_do_not_change_what_is_found(
    tmp_path: Path, blocky: np.ndarray, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int]
) -> None:
    layout = partial(Layout, max_width=limits[0], max_pixels=limits[1])
    monkeypatch.setattr(detect_module, "Layout", layout)
    scene = write_scene(tmp_path / "scene.tif", grey(blocky))
    detect_brightness(scene, tmp_path / "a.gpkg", min_area=2, fill_holes=3, mask=tmp_path / "a.tif")
    monkeypatch.setattr(detect_module, "Layout", Layout)
    detect_brightness(scene, tmp_path / "b.gpkg", min_area=2, fill_holes=3, mask=tmp_path / "b.tif")
    ours, theirs = read(tmp_path / "a.gpkg"), read(tmp_path / "b.gpkg")
    key = ["lon", "lat"]
    ours, theirs = (
        layer.sort_values(key).drop(columns="id").reset_index(drop=True) for layer in (ours, theirs)
    )
    assert len(ours) == len(theirs) > 20
    assert (ours.normalize().geometry == theirs.normalize().geometry).all()
    np.testing.assert_allclose(ours["confidence"], theirs["confidence"], rtol=1e-6)
    np.testing.assert_allclose(ours["area_m2"], theirs["area_m2"], rtol=1e-9)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("change", ["tile of a mosaic", "external mask", "nodata in a sidecar"])
def test_pixels_that_change_behind_a_scene_start_afresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    found = blobs(8, (600, 400), 0.4)
    tile = write_scene(tmp_path / "tile.tif", grey(found))
    scene = tile
    if change == "tile of a mosaic":
        scene = str(tmp_path / "mosaic.vrt")
        (tmp_path / "inner.vrt").write_text(stack([tile]))
        Path(scene).write_text(stack([str(tmp_path / "inner.vrt")]))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tile, "r+") as raster:
        raster.write_mask(np.ones(found.shape, bool))
    stop = Slow(tmp_path / "log", 0, stop_after=60)
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, tmp_path / "out"), stop, model_info())
    if change == "tile of a mosaic":
        with rasterio.open(tile, "r+") as raster:
            raster.write(np.stack([grey(~found)] * 3))
    elif change == "external mask":
        with rasterio.open(f"{tile}.msk", "r+") as raster:
            raster.write(np.where(np.arange(600)[:, None] < 300, 0, 255 + 0 * found), 1)
    else:
        band = '<PAMRasterBand band="{}"><NoDataValue>50</NoDataValue></PAMRasterBand>'
        bands = "".join(band.format(number) for number in (1, 2, 3))
        Path(f"{tile}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    for folder in ("out", "fresh"):
        detect_with(config(scene, tmp_path / folder), Slow(tmp_path / "log", 0), model_info())
    assert "starting afresh" in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_runs_that_share_a_folder_of_masks_leave_each_others_files(tmp_path: Path) -> None:
    """A run goes by while another one of the same output name is putting its files in place."""
    scenes = [write_scene(tmp_path / f"{n}.tif", grey(blobs(n, (80, 80)))) for n in (1, 2)]
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def between(windows: np.ndarray) -> np.ndarray:
        if not (tmp_path / "b" / "slides.gpkg").exists():
            other = tmp_path / "masks" / "2.tif"
            detect_brightness(scenes[1], tmp_path / "b" / "slides.gpkg", mask=other)
        return brightness(windows)

    with Staging(tmp_path / "a" / "slides.gpkg") as staging:
        made = staging.stage(tmp_path / "masks" / "1.tif")
        made.write_bytes(b"mask")
        between(np.zeros((1, 3, 8, 8), np.uint8))
        staging.publish()
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.tif")) == ["1.tif", "2.tif"]
    with Staging(tmp_path / "a" / "slides.gpkg") as staging:
        staging.stage(tmp_path / "masks" / "1.tif")
        with pytest.raises(FileNotFoundError, match="is gone"):
            staging.publish()
    assert (tmp_path / "masks" / "1.tif").read_bytes() == b"mask"


def test_parts_of_another_run_are_never_taken(scene: str, tmp_path: Path) -> None:
    """Workers of a cluster may finish a part when another run has begun in the same place."""
    folder = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, folder), Slow(tmp_path / "log", 0, stop_after=60), model_info())
    parts = hidden_folder(folder / "slides.gpkg") / "parts"
    late = {path.name: path.read_bytes() for path in parts.glob("*.part")}
    assert late
    again = Slow(tmp_path / "log", 0, stop_after=60)
    with pytest.raises(KeyboardInterrupt):
        detect_with(config(scene, folder, threshold=0.1), again, model_info())
    for name, content in late.items():
        (parts / name).write_bytes(content)
    for out in (folder, tmp_path / "fresh"):
        detect_with(config(scene, out, threshold=0.1), Slow(tmp_path / "log", 0), model_info())
    assert contents(folder) == contents(tmp_path / "fresh")
