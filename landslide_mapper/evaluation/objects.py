"""Landslides as objects: pieces of tiles put together, matched one to one, by size.

An object is a component of landslide pixels that hang together by their edges (4-connectivity).
Tiles that lie side by side in one scene are looked at together, so that a landslide which tiles
cut is one object; no mosaic is made, the pieces are linked along the tiles' sides. What reaches
over the end of a split is cut there. Pixels that are not counted (255) belong to no object.

Objects match one to one where their IoU is at least 0.5. Taking pairs greedily by IoU is then
optimal among objects that do not overlap one another: what a and b share is at least half of
their union, hence at least half of a. Two such, b and c, are disjoint, so each covers exactly one
half and lies wholly inside a; they touch nothing else, and either of them is as good. At any IoU
above 0.5 there is no second candidate at all (Kirillov et al. 2019, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from landslide_mapper.geo.scan import Scan, label_runs, link
from landslide_mapper.metrics import ratio

MATCH_IOU = 0.5
FOUND_SHARE = 0.2
HAIR = 1e-9  # sizes are rounded, and an exact half or fifth must not depend on that
SIZE_EDGES = (100, 1_000, 10_000, 100_000)  # m², or pixels where their size is not known


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Component of each pixel (h, w), int32 from 1, 0 outside; and how many there are."""
    labels = np.zeros(mask.shape, np.int32)
    scan = Scan.of(mask, np.ones(np.count_nonzero(mask), np.float32))
    if len(scan.starts) == 0:
        return labels, 0
    runs = label_runs(scan)
    labels[mask] = np.repeat(runs + 1, scan.ends - scan.starts)
    return labels, int(runs.max()) + 1


@dataclass(frozen=True)
class Objects:
    """Reference and mapped objects, and how much of each lies on which of the other."""

    reference: np.ndarray  # (r,) size in m² or pixels
    mapped: np.ndarray  # (m,) size
    reference_source: np.ndarray  # (r,) number of the scene or image
    mapped_source: np.ndarray  # (m,)
    pairs: np.ndarray  # (p, 2) int: reference, mapped object that share ground
    shared: np.ndarray  # (p,) size of what they share

    def match(self) -> tuple[np.ndarray, np.ndarray]:
        """Which reference and which mapped objects have a one-to-one partner, bool."""
        a, b = self.pairs.T
        iou = ratio(self.shared, self.reference[a] + self.mapped[b] - self.shared)
        kept = match_pairs(self.pairs, iou)
        reference = np.zeros(len(self.reference), bool)
        mapped = np.zeros(len(self.mapped), bool)
        reference[a[kept]] = True
        mapped[b[kept]] = True
        return reference, mapped

    def found(self) -> np.ndarray:
        """Reference objects of which at least `FOUND_SHARE` is mapped, bool."""
        covered = np.bincount(self.pairs[:, 0], self.shared, len(self.reference))
        return covered >= (FOUND_SHARE - HAIR) * self.reference


def match_pairs(pairs: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Indices of the pairs (p, 2) that are matched one to one, greedily by falling IoU.

    Equal IoU: the earlier pair first. Optimal for objects that do not overlap their own kind (see
    above); where polygons of one layer overlap, a good match, not always the largest one.
    """
    candidates = np.flatnonzero(iou >= MATCH_IOU - HAIR)
    candidates = candidates[np.argsort(-iou[candidates], kind="stable")]
    taken: tuple[set[int], set[int]] = (set(), set())
    kept = []
    for index, (a, b) in zip(candidates.tolist(), pairs[candidates].tolist(), strict=True):
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            kept.append(index)
    return np.array(kept, dtype=np.int64)


@dataclass(frozen=True)
class ObjectCounts:
    """How many objects there are, match one to one, and are found.

    A reference object is found where at least 20 % of it is mapped, by however many objects.
    """

    reference: int
    mapped: int
    matched_reference: int
    matched_mapped: int
    found: int

    def to_dict(self) -> dict[str, Any]:
        """Counts and rates as plain JSON values; a rate of nothing is None, not a bad one."""
        rates = object_rates(np.array(list(vars(self).values())))
        of = {"precision": self.mapped, "f1": self.mapped + self.reference}
        known = {name: of.get(name, self.reference) > 0 for name in rates}
        return dict(vars(self)) | {
            name: float(rate) if known[name] else None for name, rate in rates.items()
        }


@dataclass(frozen=True)
class ObjectScores:
    """All objects, and by size class: reference objects by their own size, mapped by theirs."""

    unit: str  # of the sizes: "m²", "px", or "units²" of a map without CRS
    all: ObjectCounts
    classes: tuple[tuple[str, ObjectCounts], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{"size": name, **counts.to_dict()} for name, counts in self.classes]
        return {**self.all.to_dict(), "size_unit": self.unit, "by_size": rows}


def score(
    reference: np.ndarray,
    mapped: np.ndarray,
    matched: tuple[np.ndarray, np.ndarray],
    found: np.ndarray,
    unit: str,
) -> ObjectScores:
    """Count objects by size class.

    Args:
        reference, mapped: sizes (r,) and (m,).
        matched: of each kind, whether it has a one-to-one partner.
        found: reference objects that are found, (r,) bool.
        unit: of the sizes, see `ObjectScores`.
    """
    classes = [np.searchsorted(SIZE_EDGES, sizes, side="right") for sizes in (reference, mapped)]

    def count(a: np.ndarray, b: np.ndarray) -> ObjectCounts:
        numbers = (a, b, a & matched[0], b & matched[1], a & found)
        return ObjectCounts(*(int(np.count_nonzero(chosen)) for chosen in numbers))

    rows = [
        (name, count(classes[0] == index, classes[1] == index))
        for index, name in enumerate(size_names(unit))
    ]
    everything = count(np.ones(len(reference), bool), np.ones(len(mapped), bool))
    return ObjectScores(unit, everything, tuple(rows))


def size_names(unit: str) -> list[str]:
    """The size classes in words, from small to large."""
    shown = [f"{edge:,}".replace(",", " ") for edge in SIZE_EDGES]
    between = [f"{low} – {high} {unit}" for low, high in pairwise(shown)]
    return [f"< {shown[0]} {unit}", *between, f"≥ {shown[-1]} {unit}"]


def source_counts(objects: Objects, sources: int) -> np.ndarray:
    """Objects per scene (sources, 5), int64, in the order of `ObjectCounts`."""
    matched = objects.match()
    a, b = objects.reference_source, objects.mapped_source
    chosen = (a, b, a[matched[0]], b[matched[1]], a[objects.found()])
    return np.stack([np.bincount(part, minlength=sources) for part in chosen], axis=1)


def object_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates for counts (..., 5) in the order of `ObjectCounts`; for bootstraps."""
    reference, mapped, matched_reference, matched_mapped, found = np.moveaxis(counts, -1, 0)
    precision, recall = ratio(matched_mapped, mapped), ratio(matched_reference, reference)
    return {
        "precision": precision,
        "recall": recall,
        "f1": ratio(2 * precision * recall, precision + recall),
        "found_share": ratio(found, reference),
    }


@dataclass(frozen=True)
class Place:
    """Where a tile lies: number of its scene, row and column of its upper left pixel there."""

    source: int
    row: int
    col: int


class _Kind:
    """Objects of one kind (reference or mapped) in pieces, and the links between the pieces."""

    def __init__(self) -> None:
        self.count = 0
        self._sizes: list[np.ndarray] = []
        self._sources: list[np.ndarray] = []
        self._links: list[np.ndarray] = []
        self._sides: dict[Place, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}

    def add(self, mask: np.ndarray, pixel: float, source: int, place: Place | None) -> np.ndarray:
        """Piece number per pixel (h, w), int64, -1 outside."""
        labels, count = label_components(mask)
        pieces = np.where(labels > 0, labels.astype(np.int64) + (self.count - 1), -1)
        self._sizes.append(np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel)
        self._sources.append(np.full(count, source))
        self.count += count
        if place is not None and count:
            self._link(pieces, place)
        return pieces

    def _link(self, pieces: np.ndarray, place: Place) -> None:
        sides = tuple(np.array(s) for s in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]))
        height, width = pieces.shape
        # The side of this tile, the neighbour beyond it, the neighbour's side.
        for side, row, col, beyond in (
            (0, -height, 0, 1),
            (1, height, 0, 0),
            (2, 0, -width, 3),
            (3, 0, width, 2),
        ):
            other = self._sides.get(Place(place.source, place.row + row, place.col + col))
            if other is not None:
                both = np.stack([sides[side], other[beyond]], axis=1)
                self._links.append(both[(both >= 0).all(axis=1)])
        self._sides[place] = (sides[0], sides[1], sides[2], sides[3])

    def join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Object of every piece; size and source of every object."""
        parent = np.arange(self.count)
        links = np.concatenate([np.empty((0, 2), np.int64), *self._links])
        link(parent, links[:, 0], links[:, 1])
        _, first, number = np.unique(parent, return_index=True, return_inverse=True)
        sizes = np.concatenate([np.empty(0), *self._sizes])
        sources = np.concatenate([np.empty(0, np.int64), *self._sources])
        return number, np.bincount(number, sizes, len(first)), sources[first]


class ObjectTable:
    """Collects the objects of tiles; `finish` puts together what tiles have cut."""

    def __init__(self) -> None:
        self._reference, self._mapped = _Kind(), _Kind()
        self._pairs: list[np.ndarray] = []
        self._shared: list[np.ndarray] = []

    def add(
        self,
        reference: np.ndarray,
        mapped: np.ndarray,
        pixel: float,
        source: int,
        place: Place | None,
    ) -> None:
        """Add a tile.

        Args:
            reference, mapped: bool (h, w).
            pixel: size of a pixel in the unit of sizes.
            source: number of the scene or image.
            place: None: nothing of this tile goes on in another one.
        """
        a = self._reference.add(reference, pixel, source, place)
        b = self._mapped.add(mapped, pixel, source, place)
        both = reference & mapped
        if both.any():
            pairs, shared = np.unique(np.stack([a[both], b[both]]), axis=1, return_counts=True)
            self._pairs.append(pairs.T)
            self._shared.append(shared * pixel)

    def finish(self) -> Objects:
        """All objects."""
        a, reference, reference_source = self._reference.join()
        b, mapped, mapped_source = self._mapped.join()
        pairs = np.concatenate([np.empty((0, 2), np.int64), *self._pairs])
        shared = np.concatenate([np.empty(0), *self._shared])
        joined = np.stack([a[pairs[:, 0]], b[pairs[:, 1]]], axis=1)
        joined, index = np.unique(joined, axis=0, return_inverse=True)
        return Objects(
            reference,
            mapped,
            reference_source,
            mapped_source,
            joined,
            np.bincount(index.ravel(), shared, len(joined)),
        )
