"""Pixel metrics of mapped polygons against reference polygons, on the grid of the scenes.

    python examples/compare.py SLIDES LABELS SCENE...

Both layers are reprojected to each scene and rasterised by pixel centres; only valid pixels of
the scenes count. Prints precision, recall, F1 and landslide IoU per scene and over all of them.
"""

from __future__ import annotations

import click

from landslide_mapper.geo.labels import burn, in_scene_crs, read_labels
from landslide_mapper.geo.scene import SceneReader, open_scene
from landslide_mapper.nn.metrics import Confusion


def compare(scene_path: str, found_path: str, real_path: str) -> Confusion:
    """Confusion of one scene's valid pixels."""
    scene = open_scene(scene_path)
    with SceneReader(scene) as reader:
        _, valid = reader.read(0, 0, scene.height, scene.width)
    found, real = (
        burn(valid.shape, scene.transform, in_scene_crs(read_labels(path), scene)[0], [], None) == 1
        for path in (found_path, real_path)
    )
    return Confusion(
        int((found & real & valid).sum()),
        int((found & ~real & valid).sum()),
        int((~found & real & valid).sum()),
        int((~found & ~real & valid).sum()),
    )


@click.command()
@click.argument("slides")
@click.argument("labels")
@click.argument("scenes", nargs=-1, required=True)
def main(slides: str, labels: str, scenes: tuple[str, ...]) -> None:
    """Compare SLIDES with LABELS on the grid of SCENES."""
    total = Confusion()
    click.echo(f"{'scene':24} precision  recall      F1     IoU")
    for scene in scenes:
        counts = compare(scene, slides, labels)
        total += counts
        _print(scene.rpartition("/")[2], counts)
    _print("all", total)


def _print(name: str, counts: Confusion) -> None:
    click.echo(
        f"{name:24} {counts.precision:9.4f} {counts.recall:7.4f} {counts.f1:7.4f} "
        f"{counts.landslide_iou:7.4f}"
    )


if __name__ == "__main__":
    main()
