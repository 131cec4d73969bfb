"""Pixel metrics of mapped polygons against reference polygons, on the grid of the scenes.

    python examples/bundled_model/compare.py SLIDES LABELS SCENE...

Both layers are reprojected to each scene and rasterised by pixel centres; only valid pixels of
the scenes count. Prints precision, recall, F1 and landslide IoU per scene and over all of them.
"""

from __future__ import annotations

import click
import numpy as np

from landslide_mapper.geo.labels import (
    read_labels,
)
from landslide_mapper.geo.placing import (
    burn,
    in_scene_crs,
)
from landslide_mapper.geo.scene import open_scene
from landslide_mapper.geo.scene_reader import SceneReader
from landslide_mapper.mask_values import IGNORE, LANDSLIDE
from landslide_mapper.metrics import confusion, rates


def compare(scene_path: str, found_path: str, real_path: str) -> np.ndarray:
    """Counts tp, fp, fn, tn of one scene's valid pixels."""
    scene = open_scene(scene_path)
    with SceneReader(scene) as reader:
        _, valid = reader.read(0, 0, scene.height, scene.width)
    found, real = (
        burn(valid.shape, scene.transform, in_scene_crs(read_labels(path), scene)[0], [], None)
        for path in (found_path, real_path)
    )
    real[~valid] = IGNORE
    return confusion(found == LANDSLIDE, real)


@click.command()
@click.argument("slides")
@click.argument("labels")
@click.argument("scenes", nargs=-1, required=True)
def main(slides: str, labels: str, scenes: tuple[str, ...]) -> None:
    """Compare SLIDES with LABELS on the grid of SCENES."""
    total = np.zeros(4, np.int64)
    click.echo(f"{'scene':24} precision    recall        F1       IoU")
    for scene in scenes:
        counts = compare(scene, slides, labels)
        total += counts
        _print(scene.rpartition("/")[2], counts)
    _print("all", total)


def _print(name: str, counts: np.ndarray) -> None:
    columns = ("precision", "recall", "f1", "landslide_iou")
    values = [float(rates(counts)[column]) for column in columns]
    click.echo(f"{name:24} " + " ".join(f"{value:9.4f}" for value in values))


if __name__ == "__main__":
    main()
