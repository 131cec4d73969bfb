"""The two passes of Grad-CAM over the windows that `lsmap detect` would predict.

The first finds what weighs how much for the pixels called landslide, the second draws the maps,
which are blended as probabilities are. Memory follows the width of what is explained, not its
height.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landslide_mapper.errors import LsmapError
from landslide_mapper.explanation.heat import HeatStore
from landslide_mapper.explanation.subject import Subject
from landslide_mapper.geo.blend import Span, WindowRow, blend
from landslide_mapper.geo.reading import scene_rows
from landslide_mapper.nn.gradcam import GradCam
from landslide_mapper.nn.mirror import shown


def draw(cam: GradCam, subject: Subject, batch: int, store: HeatStore) -> None:
    """Both passes over the windows of `subject`; the maps are in the store then.

    Args:
        cam: what is explained, still without weights.
        subject: the pixels.
        batch: windows at once.
        store: of the subject's frame, for the maps.

    Raises:
        LsmapError: no pixel is called landslide.
    """
    span = subject.grid.span(subject.frame)

    def maps(images: np.ndarray) -> np.ndarray:
        return cam.maps(*_to_device(cam, shown(images, subject.unseen))).float().cpu().numpy()

    # None: a bar on terminals only.
    with tqdm(total=2 * span.count, unit=" windows", disable=None) as bar:
        bar.set_description("weights")
        with closing(_rows(subject, span)) as rows:
            for images, wanted, count in _windows(rows, span, batch):
                cam.gather(*_to_device(cam, shown(images, subject.unseen), wanted))
                bar.update(count)
            bar.update(span.count - bar.n)
        target = cam.target()
        if not target.pixels:
            raise LsmapError(
                f"{subject.scene.path}: no pixel is called landslide, the highest probability is "
                f"{target.highest:.3g}; to see what speaks for landslide nevertheless give "
                "--threshold a value below that"
            )
        bar.set_description("maps")
        with closing(_rows(subject, span)) as rows:
            layers = (len(cam.names),)
            for strip in blend(rows, maps, span, batch, bar.update, layers):
                store.write(strip, span.left)


def _rows(subject: Subject, span: Span) -> Any:
    return scene_rows(subject.scene, subject.radiometry, span, subject.aoi)


def _to_device(cam: GradCam, *arrays: np.ndarray) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(array)).to(cam.device) for array in arrays)


def _windows(
    rows: Iterator[WindowRow], span: Span, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Windows with valid pixels: images, how much each pixel counts, and how many they are."""
    grid = span.grid
    for row in rows:
        parts = [(col, span.columns(col)) for col in span.cols]
        seen = [(col, part) for col, part in parts if row.valid[:, part].any()]
        for first in range(0, len(seen), batch):
            some = seen[first : first + batch]
            images = np.stack([row.data[:, :, part] for _, part in some])
            down = grid.row_weights[row.index]
            wanted = [
                np.outer(down, grid.col_weights[col]) * row.valid[:, part] for col, part in some
            ]
            yield images, np.stack(wanted), len(some)
