"""Two inventories of landslides compared: shared area, landslides matched, missed, false alarms.

Areas are measured in a Lambert azimuthal equal-area projection around the middle of the reference,
on its ellipsoid: true to area everywhere, whatever the layers' own CRS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.evaluation.equal_area import in_plane
from landslide_mapper.evaluation.objects import FOUND_SHARE, HAIR, ObjectScores, match_pairs, score
from landslide_mapper.geo.crs import crs_name, same_crs
from landslide_mapper.geo.labels import Labels, OptionNames, read_aoi
from landslide_mapper.geo.review import is_map, read_unrejected
from landslide_mapper.geo.scan import link
from landslide_mapper.metrics import ratio

AT_ONCE = 50_000  # pairs of polygons that are cut with each other together
SLIVER = 1e-4  # of a polygon's size: the mean width of a part of it that counts, at least

MATCH, PARTIAL, MISSED, FALSE_ALARM = "match", "partial", "missed", "false alarm"


@dataclass(frozen=True)
class Judged:
    """The landslides of one inventory inside the AOI and what is to be said of each.

    Attributes:
        path: where they come from.
        fids: (n,) ids in the file.
        polygons: (n,) in the layer's own CRS, whole.
        crs: that CRS; None: unknown.
        area: (n,) m² inside the AOI (square units of the coordinates without a CRS).
        iou: (n,) highest IoU with a landslide of the other inventory, 0 for none.
        covered: (n,) share of its area that lies on landslides of the other inventory.
        partner: (n,) fid of its one-to-one partner in the other, -1 without.
        verdict: (n,) text. "match": it has a partner (IoU ≥ 0.5). "partial": none, but at least
            20 % of it lies on the other's landslides. Else "missed" (of the reference) or
            "false alarm" (of the mapped).
    """

    path: str
    fids: np.ndarray
    polygons: np.ndarray
    crs: pyproj.CRS | None
    area: np.ndarray
    iou: np.ndarray
    covered: np.ndarray
    partner: np.ndarray
    verdict: np.ndarray

    def __len__(self) -> int:
        return len(self.fids)

    def counts(self) -> dict[str, int]:
        """How many have each verdict."""
        names, numbers = np.unique(self.verdict, return_counts=True)
        return dict(zip(names.tolist(), numbers.tolist(), strict=True))

    def listed(self, verdict: str) -> list[dict[str, Any]]:
        """Fid, area and covered share of those with a verdict, large ones first."""
        chosen = np.flatnonzero(self.verdict == verdict)
        chosen = chosen[np.argsort(-self.area[chosen], kind="stable")]
        return [
            {
                "fid": int(self.fids[n]),
                "area": round(float(self.area[n]), 2),
                "covered": round(float(self.covered[n]), 4),
            }
            for n in chosen
        ]


@dataclass(frozen=True)
class Comparison:
    """Two inventories of the same ground.

    Attributes:
        mapped, reference: the landslides of each.
        unit: "m²", or "units²" of the coordinates where neither layer has a CRS.
        mapped_area, reference_area: with what overlaps within a layer counted once.
        shared_area: what is landslide in both.
        objects: matched and found landslides by size class.
    """

    mapped: Judged
    reference: Judged
    unit: str
    mapped_area: float
    reference_area: float
    shared_area: float
    objects: ObjectScores

    @property
    def areas(self) -> dict[str, float]:
        """Areas and what they say: precision, recall, F1 and IoU of area."""
        union = self.mapped_area + self.reference_area - self.shared_area
        both = self.mapped_area + self.reference_area
        return {
            "mapped": self.mapped_area,
            "reference": self.reference_area,
            "intersection": self.shared_area,
            "union": union,
            "precision": float(ratio(self.shared_area, self.mapped_area)),
            "recall": float(ratio(self.shared_area, self.reference_area)),
            "f1": float(ratio(2 * self.shared_area, both)),
            "iou": float(ratio(self.shared_area, union)),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "kind": "inventories",
            "mapped": self.mapped.path,
            "reference": self.reference.path,
            "area_unit": self.unit,
            "area": self.areas,
            "objects": self.objects.to_dict(),
            "verdicts": {"mapped": self.mapped.counts(), "reference": self.reference.counts()},
            "missed": self.reference.listed(MISSED),
            "false_alarms": self.mapped.listed(FALSE_ALARM),
        }


def compare(
    mapped_path: str,
    reference_path: str,
    aoi: str | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
) -> Comparison:
    """Compare two inventories.

    Of maps that have been reviewed, what somebody has said "no" to does not count.

    Args:
        mapped_path: polygons that are judged, any format and CRS; each feature is a landslide.
        reference_path: polygons that are taken for true.
        aoi: polygons of the ground that both cover; what lies outside is cut off.
        layer, reference_layer: of files with several.

    Raises:
        LsmapError: a file that cannot be read or has no polygons, only one of the layers has a
            CRS, there is no way from one CRS to the other, or a layer does not fit its own.
    """
    mapped = read_unrejected(mapped_path, layer, OptionNames("--layer"))
    reference = read_unrejected(reference_path, reference_layer, OptionNames("--reference-layer"))
    if not len(reference.polygons):
        raise LsmapError(f"{reference_path}: there is no polygon in it to compare with")
    if is_map(reference_path, reference.layer) and not is_map(mapped_path, mapped.layer):
        note(
            f"{reference_path} is a map of lsmap's and stands for the truth here; to measure it, "
            "name it first"
        )
    for labels in (mapped, reference):
        counts = labels.counts
        left = counts.null_or_empty + counts.not_polygon + counts.degenerate
        if counts.repaired or left:
            note(f"{labels.path}: {counts.repaired} polygons repaired, {left} features left out")
        _tell_of_parts(labels)
    area = read_aoi(aoi) if aoi else None
    layers = [mapped, reference] if area is None else [mapped, reference, area]
    layers, flat = in_plane(layers)
    mapped, reference = layers[:2]
    if area is None:
        _tell_what_lies_apart(mapped, reference, flat[0], flat[1])
    else:
        inside = shapely.union_all(flat.pop())
        mapped, flat[0] = _clip(mapped, flat[0], inside)
        reference, flat[1] = _clip(reference, flat[1], inside)
        if not len(reference.polygons):
            raise LsmapError(f"{reference_path}: there is no polygon in it inside {aoi}")
    return _judge(_Side.of(mapped, flat[0]), _Side.of(reference, flat[1]))


def _tell_of_parts(labels: Labels) -> None:
    """Say that landslides come in several parts: in a dissolved layer all landslides are one."""
    parts = shapely.get_num_geometries(labels.polygons)
    if several := np.count_nonzero(parts > 1):
        note(
            f"{labels.path}: {several} of {len(parts)} landslides are polygons in several parts, "
            f"{parts[parts > 1].sum()} in all; if each is a landslide: "
            "ogr2ogr -explodecollections OUTPUT.gpkg INPUT"
        )


def _tell_what_lies_apart(
    mapped: Labels, reference: Labels, found: np.ndarray, real: np.ndarray
) -> None:
    """Say that some of the reference may never have been mapped; shapes are in the plane."""
    if not len(found):
        return
    apart = np.count_nonzero(~shapely.intersects(shapely.box(*shapely.total_bounds(found)), real))
    if apart:
        note(
            f"{apart} of {len(real)} landslides of {reference.path} lie outside of the box around "
            f"those of {mapped.path} and count as missed; give --aoi if nobody has mapped there"
        )


def _clip(labels: Labels, flat: np.ndarray, inside: shapely.Geometry) -> tuple[Labels, np.ndarray]:
    """The polygons that reach into `inside`, and their parts there."""
    shapely.prepare(inside)
    meets, whole = shapely.intersects(inside, flat), shapely.contains(inside, flat)
    cut = flat.copy()
    crossing = meets & ~whole
    cut[crossing] = shapely.intersection(flat[crossing], inside)
    # What only touches does so to rounding, and to the bend of its edges in the plane.
    thin = SLIVER * np.sqrt(shapely.area(flat)) * shapely.length(cut) / 2
    keep = whole | (crossing & (shapely.area(cut) > thin))
    return labels.only(keep), cut[keep]


@dataclass(frozen=True)
class _Side:
    """An inventory in the plane.

    Attributes:
        labels: as they are, n landslides.
        flat: (n,) polygons in the plane.
        ground: the same ground without overlaps.
    """

    labels: Labels
    flat: np.ndarray
    ground: np.ndarray

    @classmethod
    def of(cls, labels: Labels, flat: np.ndarray) -> _Side:
        return cls(labels, flat, disjoint(flat))

    @property
    def area(self) -> float:
        return float(shapely.area(self.ground).sum())


def _judge(mapped: _Side, reference: _Side) -> Comparison:
    pairs, shared = overlaps(reference.flat, mapped.flat)
    areas = shapely.area(reference.flat)[pairs[:, 0]] + shapely.area(mapped.flat)[pairs[:, 1]]
    iou = ratio(shared, areas - shared)
    kept = match_pairs(pairs, iou)
    of_reference = _verdicts(reference, mapped, pairs, iou, kept, MISSED)
    of_mapped = _verdicts(mapped, reference, pairs[:, ::-1], iou, kept, FALSE_ALARM)
    unit = "m²" if reference.labels.crs is not None else "units²"
    return Comparison(
        mapped=of_mapped,
        reference=of_reference,
        unit=unit,
        mapped_area=mapped.area,
        reference_area=reference.area,
        shared_area=float(overlaps(reference.ground, mapped.ground)[1].sum()),
        objects=score(
            of_reference.area,
            of_mapped.area,
            (of_reference.verdict == MATCH, of_mapped.verdict == MATCH),
            of_reference.covered >= FOUND_SHARE - HAIR,
            unit,
        ),
    )


def _verdicts(
    side: _Side, other: _Side, pairs: np.ndarray, iou: np.ndarray, kept: np.ndarray, alone: str
) -> Judged:
    """What is to be said of the landslides of one side.

    Args:
        side, other: the inventories.
        pairs: (p, 2) indices of landslides of this and the other that share ground.
        iou: (p,) of the pairs.
        kept: which pairs are partners.
        alone: the verdict on what has nothing to do with the other.
    """
    count, own = len(side.flat), pairs[:, 0]
    partners = np.full(count, -1, np.int64)
    partners[own[kept]] = other.labels.fids[pairs[kept, 1]]
    on_other, common = overlaps(side.flat, other.ground)
    area = shapely.area(side.flat)
    covered = ratio(np.bincount(on_other[:, 0], common, count), area)
    best = np.zeros(count)
    np.maximum.at(best, own, iou)
    verdict = np.where(covered >= FOUND_SHARE - HAIR, PARTIAL, alone)
    verdict[own[kept]] = MATCH
    return Judged(
        path=side.labels.path,
        fids=side.labels.fids,
        polygons=side.labels.polygons,
        crs=side.labels.crs,
        area=area,
        iou=best,
        covered=np.minimum(covered, 1.0),
        partner=partners,
        verdict=verdict.astype(object),
    )


def overlaps(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (p, 2) of indices whose polygons share area, and how much."""
    pairs = shapely.STRtree(second).query(first, predicate="intersects").T
    shared = np.empty(len(pairs))
    for start in range(0, len(pairs), AT_ONCE):
        some = pairs[start : start + AT_ONCE]
        cut = shapely.intersection(first[some[:, 0]], second[some[:, 1]])
        shared[start : start + AT_ONCE] = shapely.area(cut)
    touching = shared <= 0
    return pairs[~touching].reshape(-1, 2), shared[~touching]


def disjoint(polygons: np.ndarray) -> np.ndarray:
    """The same ground without overlaps: polygons that meet are united, the others as they are."""
    pairs = shapely.STRtree(polygons).query(polygons, predicate="intersects").T
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    parent = np.arange(len(polygons))
    link(parent, pairs[:, 0], pairs[:, 1])
    _, group, sizes = np.unique(parent, return_inverse=True, return_counts=True)
    alone = sizes[group] == 1
    together = np.flatnonzero(~alone)
    together = together[np.argsort(group[together], kind="stable")]
    ends = np.flatnonzero(np.diff(group[together])) + 1
    united = [shapely.union_all(polygons[some]) for some in np.split(together, ends) if len(some)]
    return np.concatenate([polygons[alone], np.array(united, dtype=object)])


def summary(comparison: Comparison) -> list[str]:
    """Areas in words, for the terminal."""
    areas, unit = comparison.areas, comparison.unit
    alike = same_crs(comparison.mapped.crs, comparison.reference.crs)
    note_crs = "" if alike else f" (in {crs_name(comparison.mapped.crs)})"
    return [
        f"{Path(comparison.mapped.path).name}{note_crs}: {len(comparison.mapped)} landslides, "
        f"{areas['mapped']:,.0f} {unit}",
        f"{Path(comparison.reference.path).name}: {len(comparison.reference)} landslides, "
        f"{areas['reference']:,.0f} {unit}",
        f"area        IoU {areas['iou']:.4f}, precision {areas['precision']:.4f}, "
        f"recall {areas['recall']:.4f}, F1 {areas['f1']:.4f}; {areas['intersection']:,.0f} {unit} "
        "in both",
    ]
