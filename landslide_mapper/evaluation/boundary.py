"""How near outlines lie to where they should: boundary F1 (Csurka et al. 2013)."""

from __future__ import annotations

import numpy as np

from landslide_mapper.metrics import ratio

RADII = (2, 5)  # pixels


def boundary(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels of `mask` (h, w, bool) with a valid pixel outside it above, below or beside.

    Where the image ends or was not seen nobody knows where a landslide ends: that is none.
    """
    outside = np.pad(valid & ~mask, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    found: np.ndarray = mask & valid & beside
    return found


def near(mask: np.ndarray, radius: int) -> np.ndarray:
    """Pixels whose centre is at most `radius` pixels from that of a pixel of `mask` (h, w)."""
    height, width = mask.shape
    # Counts of set pixels from the left, with room for the widest window at both ends.
    padded = np.pad(mask, ((radius, radius), (radius + 1, radius)))
    before = padded.cumsum(axis=1, dtype=np.int32)
    found = np.zeros(mask.shape, dtype=bool)
    for row in range(-radius, radius + 1):
        reach = int(np.sqrt(radius**2 - row**2))
        rows = before[radius + row : radius + row + height]
        right = rows[:, radius + 1 + reach : radius + 1 + reach + width]
        left = rows[:, radius - reach : radius - reach + width]
        found |= right > left
    return found


def boundary_counts(predicted: np.ndarray, reference: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Counts (2, 1 + len(RADII)), int64, of arrays bool (h, w).

    Row 0 is for the prediction, row 1 for the reference: boundary pixels, then those within each
    radius of the other's boundary.
    """
    drawn, true = boundary(predicted, valid), boundary(reference, valid)
    counts = [[np.count_nonzero(drawn)], [np.count_nonzero(true)]]
    for radius in RADII:
        counts[0].append(np.count_nonzero(drawn & near(true, radius)))
        counts[1].append(np.count_nonzero(true & near(drawn, radius)))
    return np.array(counts, dtype=np.int64)


def boundary_rates(counts: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Precision, recall and F1 for counts (..., 2, 1 + len(RADII)), by radius; 0 for 0/0."""
    found = {}
    for index, radius in enumerate(RADII, start=1):
        precision = ratio(counts[..., 0, index], counts[..., 0, 0])
        recall = ratio(counts[..., 1, index], counts[..., 1, 0])
        f1 = ratio(2 * precision * recall, precision + recall)
        found[f"{radius}px"] = {"precision": precision, "recall": recall, "f1": f1}
    return found
