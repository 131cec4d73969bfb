"""Whether the bands that are read of several scenes go together."""

from __future__ import annotations

from collections.abc import Sequence

from landslide_mapper.errors import LsmapError, warn
from landslide_mapper.geo.scene import COLOURS, Scene

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
        for place, colour in enumerate(_colours(scene)):
            if colour in SAYS_NOTHING:
                continue
            other = telling.setdefault(place, scene)
            if _colours(other)[place] != colour:
                raise LsmapError(
                    f"{scene.path}: bands {_listed(scene.bands)} are "
                    f"{', '.join(_colours(scene))} here but {', '.join(_colours(other))} in "
                    f"{other.name}; choose bands that are alike with --bands, or bring one file's "
                    "into the other's order with gdal_translate -b"
                )


def _warn_of_order(scenes: Sequence[Scene]) -> None:
    """Say how to get red, green and blue, where all scenes have them at the same other places."""
    found = {_colour_bands(scene) for scene in scenes}
    wanted = found.pop()
    first = scenes[0]
    if found or wanted is None or len(first.bands) != len(COLOURS) or first.bands == wanted:
        return
    warn(
        f"{first.name}: bands {_listed(first.bands)} are {', '.join(_colours(first))}; for red, "
        f"green, blue give --bands {_listed(wanted)}"
    )


def _colour_bands(scene: Scene) -> tuple[int, ...] | None:
    """The numbers of the red, the green and the blue band; None unless all are there."""
    if not set(COLOURS) <= set(scene.colours):
        return None
    return tuple(scene.colours.index(colour) + 1 for colour in COLOURS)


def _colours(scene: Scene) -> list[str]:
    return [scene.colours[band - 1] for band in scene.bands]


def _listed(bands: Sequence[int]) -> str:
    return ",".join(map(str, bands))
