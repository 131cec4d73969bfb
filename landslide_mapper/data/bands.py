"""Whether the bands that are read of several scenes go together."""

from __future__ import annotations

from collections.abc import Sequence

from landslide_mapper.errors import LsmapError, warn
from landslide_mapper.geo.scene_info import COLOURS, Scene, band_list, unnamed

SAYS_NOTHING = ("gray", "undefined", "alpha")  # what files call a band of any colour


def check_bands(scenes: Sequence[Scene], chosen: Sequence[int] | None) -> None:
    """Raise `LsmapError` unless as many bands, of the same colours, are read of all scenes.

    Colours that a file does not tell are not compared. `chosen` are the bands that were asked for;
    where they were not, warn when they are not red, green and blue though those are there.
    """
    for scene in scenes[1:]:
        if len(scene.bands) != len(scenes[0].bands):
            raise LsmapError(
                f"{scene.path}: {len(scene.bands)} band(s) would be read here but "
                f"{len(scenes[0].bands)} from {scenes[0].name}; choose the same with --bands"
            )
    _check_colours(scenes)
    if chosen is None:
        _warn_of_order(scenes)


def _check_colours(scenes: Sequence[Scene]) -> None:
    """Compare each band with that of the first scene that tells its colour."""
    telling: dict[int, Scene] = {}
    for scene in scenes:
        for place, colour in enumerate(scene.chosen_colours):
            if colour in SAYS_NOTHING:
                continue
            other = telling.setdefault(place, scene)
            if other.chosen_colours[place] != colour:
                here, there = ", ".join(scene.chosen_colours), ", ".join(other.chosen_colours)
                raise LsmapError(
                    f"{scene.path}: bands {band_list(scene.bands)} are {here} here but {there} in "
                    f"{other.name}; choose bands that are alike with --bands, or bring one file's "
                    "into the other's order with gdal_translate -b"
                )


def _warn_of_order(scenes: Sequence[Scene]) -> None:
    """Say how to get red, green and blue, where all scenes have them at the same other places.

    Or that nothing tells, where none of them does.
    """
    first, odd = scenes[0], None
    if len({scene.rgb for scene in scenes}) > 1 or len(first.bands) != len(COLOURS):
        return
    if first.rgb is None:
        odd = unnamed(first, first.bands)
    elif first.rgb != first.bands:
        odd = (
            f"bands {band_list(first.bands)} are {', '.join(first.chosen_colours)}; for red, "
            f"green, blue give --bands {band_list(first.rgb)}"
        )
    if odd:
        warn(f"{first.name}: {odd}")
