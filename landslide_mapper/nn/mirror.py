"""Ground in the place of what was not seen, so that a network meets no outline but the ground's.

A network learns where padding lies. Images that were cut around their landslides and padded to a
tile tell it where to look; a collar that it then meets in a scene tells it something else, and
landslides beside it are missed. Mirrored ground tells nothing.
"""

from __future__ import annotations

import numpy as np

FAR = np.iinfo(np.int32).max
# Lossy compression leaves nearly black specks in a collar; mirrored, they would fill it.
LEAST = 8  # pixels a side of a square of ground, as a block of JPEG has
STEPS = (1, 2, 4)  # sum to LEAST - 1


def shown(images: np.ndarray, unseen: str) -> np.ndarray:
    """What a network with this `ModelConfig.unseen` is to get of images (see `mirror_unseen`)."""
    return mirror_unseen(images) if unseen == "mirror" else images


def mirror_unseen(images: np.ndarray) -> np.ndarray:
    """Fill what was not seen with the ground beside it, mirrored.

    A pixel is filled from the nearest ground in its row or its column, whichever is nearer: as far
    behind where that begins as it lies before it, back and forth where less was seen. Rows and
    columns without any ground follow from those that were filled. Specks and slivers stay as they
    are, and are mirrored only where nothing else was seen.

    Args:
        images: uint8 (..., B, H, W), 0 in every band where nothing was seen.

    Returns:
        `images` itself where nothing is to be filled. An image without any seen pixel stays 0.
    """
    seen: np.ndarray = np.any(images, axis=-3)
    partly = np.any(seen, axis=(-2, -1)) & ~np.all(seen, axis=(-2, -1))
    if not partly.any():
        return images
    filled = images.copy()
    for place in map(tuple, np.argwhere(partly)):
        filled[place] = _filled(images[place], seen[place])
    return filled


def _filled(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """One image (B, H, W) with some pixels that were seen, (H, W) bool, and some that were not."""
    filled, known = image.copy(), _ground(seen)
    while not known.all():  # twice at most: the first time fills a pixel of every row
        rows, cols = np.nonzero(~known)
        found = [_reflection(known, rows, cols, backwards) for backwards in (False, True)]
        found += [_reflection(known.T, cols, rows, backwards) for backwards in (False, True)]
        gaps = np.stack([gap for gap, _ in found])
        nearest = gaps.argmin(axis=0)
        source = np.choose(nearest, [source for _, source in found])
        near = gaps.min(axis=0) < FAR
        holes = rows[near], cols[near]
        sideways = nearest[near] < 2
        from_row = np.where(sideways, holes[0], source[near])
        from_col = np.where(sideways, source[near], holes[1])
        filled[:, *holes] = filled[:, from_row, from_col]
        known[holes] = True
    return np.where(seen, image, filled)


def _ground(seen: np.ndarray) -> np.ndarray:
    """What may be mirrored of pixels that were seen, (H, W) bool; a new array.

    All that lies in squares of `LEAST` seen pixels; everything where there is no such square.
    """
    if min(seen.shape) < LEAST:
        return seen.copy()
    corners = seen
    for _ in range(2):
        for step in STEPS:
            corners = corners[step:] & corners[:-step]
        corners = corners.T
    found = np.pad(corners, LEAST - 1)
    for _ in range(2):
        for step in STEPS:
            found = found[step:] | found[:-step]
        found = found.T
    return found if found.any() else seen.copy()


def _reflection(
    seen: np.ndarray, line: np.ndarray, at: np.ndarray, backwards: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror places about the last seen pixel before them, or with `backwards` the first after.

    Args:
        seen: bool (lines, length of a line).
        line, at: lines, and places in them, of the pixels (N,) that were not seen.
        backwards: which way to look.

    Returns:
        How far the pixel is that is mirrored about, `FAR` where there is none, and the place that
        each pixel comes from; both (N,).
    """
    end = seen.shape[1] - 1
    holed: np.ndarray = np.any(~seen, axis=1)  # where holes are few most lines have none
    seen, line = seen[holed], (holed.cumsum() - 1)[line]
    if backwards:
        seen, at = seen[:, ::-1], end - at
    begins = seen.copy()
    begins[:, 1:] &= ~seen[:, :-1]
    last = _last(seen)[line, at]
    length = last + 1 - _last(begins)[line, at]  # of the run of seen pixels that it ends
    gap = at - last
    back = (gap - 1) % (2 * length)
    source = last - np.where(back < length, back, 2 * length - 1 - back)
    return np.where(last < 0, FAR, gap), end - source if backwards else source


def _last(there: np.ndarray) -> np.ndarray:
    """Where in its line the last true value up to every place is; -1 for none."""
    place = np.arange(there.shape[1], dtype=np.int32)
    return np.maximum.accumulate(np.where(there, place, np.int32(-1)), axis=1)
