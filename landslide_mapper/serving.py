"""Which scenes a model can serve, and at which pixel size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from affine import Affine

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.errors import LsmapError, note, warn
from landslide_mapper.geo.scene import Scene, Source, at_pixel_size, open_scene
from landslide_mapper.geo.scene_info import COLOURS, band_list, unnamed

GSD_FACTOR = 1.5  # pixel sizes this close to the training's are left as they are
# From here on pixels are made square: degrees of longitude are this much shorter at 37° from the
# equator, and what is drawn out looks like something else to a network.
ELONGATED = 1.25
# A scene is not enlarged further than this unasked: there is nothing in its pixels to be found at
# a finer size, and the work grows with the square.
MAX_ENLARGED = 8.0


def refusal(scene: Scene, model: ModelInfo, bands: Sequence[int] | None = None) -> str | None:
    """Why `model` cannot serve `scene`, in half a sentence; None when it can.

    `bands` are those to read, None for those that the model was trained on.
    """
    chosen = tuple(bands or model.bands)
    if max(chosen) > scene.count:
        if bands is not None:
            return f"has no band {max(chosen)}, only 1 to {scene.count} (see --bands)"
        grey = f"; say which to use, e.g. --bands {','.join(['1'] * model.band_count)}"
        return (
            f"has {scene.count} band{'s' * (scene.count != 1)}; the model {model.name} was trained "
            f"on bands {band_list(model.bands)}{grey if scene.count == 1 else ''}"
        )
    alpha = [band for band in chosen if band > 0 and scene.colorinterp[band - 1] == "alpha"]
    if alpha:
        return (
            f"band {alpha[0]} is transparency, and the model {model.name} takes "
            f"{model.band_count} bands of colour; say which to use with --bands"
        )
    if model.radiometry == "none" and scene.dtype != "uint8":
        return (
            f"pixels are {scene.dtype}; the model {model.name} was trained without a stretch and "
            "takes 8-bit pixels only; convert the scene or use a model that was prepared with "
            "--stretch equalize"
        )
    return None


def open_for(source: Source, bands: Sequence[int] | None, model: ModelInfo) -> Scene:
    """The scene with the bands that go into the model, at its own pixel size.

    Raises `LsmapError` when the scene cannot be opened or the model cannot serve it.
    """
    if bands is not None and len(bands) != model.band_count:
        raise LsmapError(
            f"--bands names {len(bands)} bands; the model {model.name} takes {model.band_count}"
        )
    scene = open_scene(source)
    reason = refusal(scene, model, bands)
    if reason is None:
        scene = _where_qgis_has_it(open_scene(source, bands or model.bands))
        reason = refusal(scene, model, bands)  # the type of pixels depends on the bands
    if reason:
        raise LsmapError(f"{source.path}: {reason}")
    if bands is None and (odd := odd_order(scene, model)):
        warn(f"{scene.name}: {odd}")
    return scene


def odd_order(scene: Scene, model: ModelInfo) -> str | None:
    """What is odd about the colours of the bands that the model would get; None for nothing.

    A scene that has red, green and blue elsewhere, or in another order, is odd, and so is one of
    more bands that does not say which they are.
    """
    if len(model.bands) != len(COLOURS) or max(model.bands) > scene.count:
        return None
    if scene.rgb is None:
        return unnamed(scene, model.bands)
    if scene.rgb == tuple(model.bands):
        return None
    found = [scene.colours[band - 1] for band in model.bands]
    return (
        f"bands {band_list(model.bands)} are {', '.join(found)}; if the model was trained on red, "
        f"green, blue give --bands {band_list(scene.rgb)}"
    )


def _where_qgis_has_it(scene: Scene) -> Scene:
    """A plain image, without any georeference, below the x axis: there QGIS shows it upright."""
    if scene.crs is None and scene.transform.is_identity:
        return replace(scene, transform=Affine.scale(1, -1))
    return scene


def size_ratio(scene: Scene, model: ModelInfo) -> float | None:
    """The scene's pixel size over that of the training; None when either is not known."""
    if scene.pixel_side is None or model.gsd is None:
        return None
    return scene.pixel_side / model.gsd


def near_training(ratio: float) -> bool:
    """Whether pixels of this `size_ratio` are what the model knows."""
    return 1 / GSD_FACTOR <= ratio <= GSD_FACTOR


def odd_size(gsd: float | None, model: ModelInfo) -> str | None:
    """What is odd to the model about pixels of so many metres; None for nothing, or not known."""
    if gsd is None or model.gsd is None or near_training(gsd / model.gsd):
        return None
    return (
        f"pixels are {gsd:.2g} m, and {model.name} was trained at {model.gsd:.2g} m: landslides "
        "look another size to it"
    )


def working_scene(scene: Scene, model: ModelInfo, gsd: str | float | None) -> Scene:
    """The scene at the pixel size to work at.

    Args:
        scene: as it is in the file.
        model: whose pixel size counts.
        gsd: "native", "model", metres, or None: the scene's own size when it is near the
            model's and its pixels are about square, else the model's, or square ones.

    Raises:
        LsmapError: `gsd` is none of these; or a pixel size is asked for and the scene or the model
            does not know its own.
    """
    if isinstance(gsd, str) and gsd not in ("model", "native"):
        raise LsmapError(f"--gsd {gsd}: give model, native, or metres such as 0.5")
    if isinstance(gsd, float | int) and not (gsd > 0 and math.isfinite(gsd)):
        raise LsmapError(f"--gsd {gsd:g}: give metres above 0")
    if gsd == "native":
        return scene
    if gsd is None:
        return _automatic(scene, model)
    if gsd == "model":
        if model.gsd is None:
            raise LsmapError(
                f"--gsd model: the model {model.name} does not know the pixel size of its "
                "training; give it in metres, e.g. --gsd 0.5"
            )
        return at_pixel_size(scene, model.gsd)
    return at_pixel_size(scene, float(gsd))


def _squared(scene: Scene) -> Scene:
    side = scene.pixel_side
    if scene.gsd is None or side is None or scene.elongation < ELONGATED:
        return scene
    note(
        f"{scene.name}: pixels are {scene.gsd[0]:.3g} x {scene.gsd[1]:.3g} m; the scene is read "
        f"with square ones of {side:.3g} m (--gsd native keeps its pixels)"
    )
    return at_pixel_size(scene, side)


def _automatic(scene: Scene, model: ModelInfo) -> Scene:
    ratio = size_ratio(scene, model)
    if ratio is None or model.gsd is None or near_training(ratio):
        return _squared(scene)
    sizes = (
        f"{scene.name}: pixels are {ratio * model.gsd:.3g} m, the model was trained at "
        f"{model.gsd:.3g} m"
    )
    if ratio > MAX_ENLARGED:
        warn(f"{sizes}; they stay as they are, so expect little (--gsd model enlarges them)")
        return scene
    note(f"{sizes}; the scene is read at that size (--gsd native keeps its pixels)")
    return at_pixel_size(scene, model.gsd)
