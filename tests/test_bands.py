"""Which scenes' bands go together in one data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import model_info
from rasterio.enums import ColorInterp

from landslide_mapper.data.bands import check_bands
from landslide_mapper.errors import LsmapError
from landslide_mapper.geo.scene import Scene, Source, open_scene
from landslide_mapper.geo.scene_info import unnamed
from landslide_mapper.serving import open_for

RGB, BGR = ("red", "green", "blue"), ("blue", "green", "red")
PLAIN = ("gray", "undefined", "undefined")


def scene(
    folder: Path, name: str, colours: tuple[str, ...], bands: tuple[int, ...] | None = None
) -> Scene:
    with rasterio.open(
        folder / name, "w", driver="GTiff", count=len(colours), height=8, width=8, dtype="uint8",
        crs="EPSG:32632", transform=rasterio.Affine(1, 0, 500000, 0, -1, 4000000),
        photometric="minisblack",
    ) as raster:  # fmt: skip
        raster.write(np.ones((len(colours), 8, 8), np.uint8))
        raster.colorinterp = [ColorInterp[colour] for colour in colours]
    return open_scene(str(folder / name), bands)


def test_scenes_with_colours_in_different_order_are_refused(tmp_path: Path) -> None:
    one, other = scene(tmp_path, "one.tif", RGB), scene(tmp_path, "other.tif", BGR)
    plain = scene(tmp_path, "plain.tif", PLAIN)
    with pytest.raises(LsmapError) as caught:
        check_bands([plain, one, one, other], None)
    said = str(caught.value)
    assert "\n" not in said
    for words in ("other.tif: bands 1,2,3 are blue, green, red", "red, green, blue in one.tif"):
        assert words in said
    assert "--bands" in said
    assert "gdal_translate -b" in said
    four = [scene(tmp_path, f"{c[0]}.tif", (*c, "undefined"), (1, 2, 3, 4)) for c in (RGB, BGR)]
    with pytest.raises(LsmapError, match="blue, green, red, undefined"):
        check_bands(four, (1, 2, 3, 4))


@pytest.mark.parametrize("colours", [RGB, BGR, ("undefined", "green", "undefined")])
def test_unknown_colours_go_with_any(
    tmp_path: Path, colours: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = [scene(tmp_path, "a.tif", PLAIN), scene(tmp_path, "b.tif", colours)]
    check_bands(scenes, None)
    check_bands(scenes[::-1], None)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("colours", "bands", "says"),
    [
        (RGB, None, ""),
        (BGR, None, "a.tif: bands 1,2,3 are blue, green, red; for red, green, blue give --bands 3"),
        (BGR, (1, 2, 3), ""),  # asked for
        (("cyan", *BGR), None, "are cyan, blue, green; for red, green, blue give --bands 4,"),
        (("nir", "red", "green"), None, ""),  # there is no blue
        (PLAIN, None, ""),
        ((*PLAIN, "undefined"), None, "a.tif: nothing says which of its 4 bands are red, green"),
        ((*PLAIN, "undefined"), (1, 2, 3), ""),
    ],
)
def test_an_order_that_nobody_asked_for_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    colours: tuple[str, ...],
    bands: tuple[int, ...] | None,
    says: str,
) -> None:
    check_bands([scene(tmp_path, f"{name}.tif", colours, bands) for name in "ab"], bands)
    said = capsys.readouterr().err
    assert says in said
    assert bool(said) == bool(says)


def test_detect_says_when_nothing_names_the_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four = scene(tmp_path, "four.tif", (*PLAIN, "undefined"))
    assert unnamed(replace(four, colorinterp=(*PLAIN, "alpha")), (1, 2, 3)) is None
    source = Source(str(tmp_path / "four.tif"))
    for bands, says in ((None, "four.tif: nothing says which of its 4 bands are"), ((1, 2, 3), "")):
        open_for(source, bands, model_info())
        said = capsys.readouterr().err
        assert says in said
        assert bool(said) == bool(says)
