"""Two inventories of landslides compared: shared area, landslides matched, missed, false alarms.

Areas are measured in a Lambert azimuthal equal-area projection around the middle of both layers,
on the ellipsoid of the reference: true to area everywhere, whatever the layers' own CRS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from landslide_mapper.errors import LsmapError, note
from landslide_mapper.evaluation.objects import FOUND_SHARE, ObjectScores, match_pairs, score
from landslide_mapper.geo.crs import (
    Move,
    crs_name,
    geodetic,
    moved,
    same_crs,
    unit_metres,
)
from landslide_mapper.geo.labels import (
    Labels,
    LayerOptions,
    read_aoi,
)
from landslide_mapper.geo.placing import way_to
from landslide_mapper.geo.review import read_unrejected
from landslide_mapper.geo.scan import link, roots
from landslide_mapper.metrics import ratio

AT_ONCE = 50_000  # pairs of polygons that are cut with each other together
# An edge that is straight in one CRS is bent in another, by 2 cm at this length.
EDGE_METRES = 1000.0

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
            CRS, or there is no way from one CRS to the other.
    """
    mapped = read_unrejected(mapped_path, layer, LayerOptions("--layer"))
    reference = read_unrejected(reference_path, reference_layer, LayerOptions("--reference-layer"))
    if not len(reference.polygons):
        raise LsmapError(f"{reference_path}: there is no polygon in it to compare with")
    for labels in (mapped, reference):
        counts = labels.counts
        left = counts.null_or_empty + counts.not_polygon + counts.degenerate
        if counts.repaired or left:
            note(f"{labels.path}: {counts.repaired} polygons repaired, {left} features left out")
    area = read_aoi(aoi) if aoi else None
    layers = [mapped, reference] if area is None else [mapped, reference, area]
    moves = _moves(layers)
    layers, flat = zip(*map(_flatten, layers, moves), strict=True)
    mapped, reference, flat = layers[0], layers[1], list(flat)
    if not len(reference.polygons):
        raise LsmapError(f"{reference_path}: no polygon of it lies where its CRS reaches")
    if area is not None:
        inside = shapely.union_all(flat.pop())
        mapped, flat[0] = _clip(mapped, flat[0], inside)
        reference, flat[1] = _clip(reference, flat[1], inside)
        if not len(reference.polygons):
            raise LsmapError(f"{reference_path}: there is no polygon in it inside {aoi}")
    return _judge(mapped, reference, flat[0], flat[1])


def _moves(layers: list[Labels]) -> list[Move | None]:
    """For each layer the way from its CRS into the equal-area plane; None: as it is."""
    crs = layers[1].crs
    lacking = [labels for labels in layers if labels.crs is None]
    if len(lacking) == len(layers):
        return [None] * len(layers)
    if lacking or crs is None:
        known = next(labels for labels in layers if labels.crs is not None)
        raise LsmapError(
            f"{lacking[0].path}: has no coordinate reference system and {known.path} has one "
            f"({crs_name(known.crs)}), so they cannot be laid over each other; assign it first: "
            "ogr2ogr -a_srs EPSG:... OUTPUT.gpkg INPUT"
        )
    ground = geodetic(crs)
    known_crs = [labels.crs for labels in layers if labels.crs is not None]
    if ground is None or any(c.is_geocentric for c in known_crs):
        raise LsmapError(
            f"{layers[1].path}: areas need maps on an ellipsoid, and a CRS here is none "
            f"({', '.join(crs_name(labels.crs) for labels in layers)}); reproject it first: "
            "ogr2ogr -t_srs EPSG:4326 OUTPUT.gpkg INPUT"
        )
    degrees = ground.degrees
    ways = [way_to(ground.crs, layers[1].path, labels) for labels in layers]
    lon, lat = _middle(layers[1], ways[1], degrees)
    plane = pyproj.Proj(proj="laea", lat_0=lat, lon_0=lon, a=ground.geod.a, es=ground.geod.es)

    def move_by(way: pyproj.Transformer) -> Move:
        def move(points: np.ndarray) -> np.ndarray:
            x, y = way.transform(points[:, 0], points[:, 1])
            return np.column_stack(plane(np.asarray(x) * degrees, np.asarray(y) * degrees))

        return move

    return [move_by(way) for way in ways]


def _middle(labels: Labels, way: pyproj.Transformer, degrees: float) -> tuple[float, float]:
    """Longitude and latitude of the middle of a layer: the mean direction of its polygons.

    A mean of directions is right at the antimeridian too.
    """
    centres = shapely.get_coordinates(shapely.centroid(labels.polygons))
    x, y = way.transform(centres[:, 0], centres[:, 1])
    lon, lat = np.radians(np.asarray(x) * degrees), np.radians(np.asarray(y) * degrees)
    seen = np.isfinite(lon) & np.isfinite(lat)
    lon, lat = lon[seen], lat[seen]
    if not len(lon):
        raise LsmapError(f"{labels.path}: its coordinates lie outside of its CRS; is it right?")
    mean = [(np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean()]
    return math.degrees(math.atan2(mean[1], mean[0])), math.degrees(
        math.atan2(np.sin(lat).mean(), math.hypot(*mean))
    )


def _flatten(labels: Labels, move: Move | None) -> tuple[Labels, np.ndarray]:
    """The polygons that the projection reaches, as they are and, valid, in the plane."""
    if move is None or labels.crs is None or not len(labels.polygons):
        return labels, labels.polygons
    metres = unit_metres(labels.crs)
    assert metres is not None  # or there would be no way
    polygons = shapely.segmentize(labels.polygons, EDGE_METRES / metres)
    flat, reached = moved(polygons, move)
    if not reached.all():
        lost = np.count_nonzero(~reached)
        note(f"{labels.path}: {lost} polygons lie where its CRS does not reach; left out")
        labels = labels.only(reached)
    return labels, flat


def _clip(labels: Labels, flat: np.ndarray, inside: shapely.Geometry) -> tuple[Labels, np.ndarray]:
    """The polygons that reach into `inside`, and their parts there."""
    shapely.prepare(inside)
    meets, whole = shapely.intersects(inside, flat), shapely.contains(inside, flat)
    cut = flat.copy()
    crossing = meets & ~whole
    cut[crossing] = shapely.intersection(flat[crossing], inside)
    keep = meets & (shapely.area(cut) > 0)
    return labels.only(keep), cut[keep]


def _judge(mapped: Labels, reference: Labels, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Compare what is in the plane: mapped `a` and reference `b`."""
    pairs, shared = overlaps(b, a)  # reference, mapped
    iou = ratio(shared, shapely.area(b)[pairs[:, 0]] + shapely.area(a)[pairs[:, 1]] - shared)
    kept = match_pairs(pairs, iou)
    pieces = (disjoint(b), disjoint(a))
    of_reference = _verdicts(reference, b, pieces[1], mapped.fids, pairs, iou, kept, MISSED)
    swapped = pairs[:, ::-1]
    of_mapped = _verdicts(mapped, a, pieces[0], reference.fids, swapped, iou, kept, FALSE_ALARM)
    unit = "m²" if reference.crs is not None else "units²"
    return Comparison(
        mapped=of_mapped,
        reference=of_reference,
        unit=unit,
        mapped_area=float(shapely.area(pieces[1]).sum()),
        reference_area=float(shapely.area(pieces[0]).sum()),
        shared_area=float(overlaps(*pieces)[1].sum()),
        objects=score(
            of_reference.area,
            of_mapped.area,
            (of_reference.verdict == MATCH, of_mapped.verdict == MATCH),
            of_reference.covered >= FOUND_SHARE,
            unit,
        ),
    )


def _verdicts(
    labels: Labels,
    flat: np.ndarray,
    other: np.ndarray,
    other_fids: np.ndarray,
    pairs: np.ndarray,
    iou: np.ndarray,
    kept: np.ndarray,
    alone: str,
) -> Judged:
    """What is to be said of the landslides of one inventory.

    Args:
        labels: the inventory.
        flat: its polygons in the plane, (n,).
        other: the ground of the other inventory in the plane, without overlaps.
        other_fids: ids of the other's landslides.
        pairs: (p, 2) indices of landslides of this and the other that share ground.
        iou: (p,) of the pairs.
        kept: which pairs are partners.
        alone: the verdict on what has nothing to do with the other.
    """
    own, partners = pairs[:, 0], np.full(len(flat), -1, np.int64)
    partners[own[kept]] = other_fids[pairs[kept, 1]]
    on_other, common = overlaps(flat, other)
    covered = ratio(np.bincount(on_other[:, 0], common, len(flat)), shapely.area(flat))
    best = np.zeros(len(flat))
    np.maximum.at(best, own, iou)
    verdict = np.where(covered >= FOUND_SHARE, PARTIAL, alone)
    verdict[own[kept]] = MATCH
    return Judged(
        path=labels.path,
        fids=labels.fids,
        polygons=labels.polygons,
        crs=labels.crs,
        area=shapely.area(flat),
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
    _, group, sizes = np.unique(roots(parent), return_inverse=True, return_counts=True)
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
