"""Parts: what is kept of a block once it is mapped.

One part is one file: a checksum, then an npz archive without pickles. Polygons are WKB in pixel
coordinates of the scene, rasters are compressed.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely

from landslide_mapper.geo.features import Pieces
from landslide_mapper.geo.vectorize import Components, Sides

CHECKSUM = 4  # bytes, of a CRC-32; the archive has its own, but not of its table of contents
MEASURES = ("pixels", "total", "highest")


@dataclass(frozen=True)
class Part:
    """A mapped block: its landslides, and what the blocks beside it need to know.

    Attributes:
        outlines: finished landslides in pixels of the scene.
        columns: what is said of each, one array per name.
        pieces: whole components that may go on in another scene, not yet shaped.
        open: components that may go on in the next block, not yet shaped.
        sides: which of them touch which pixel of the block's sides.
        seen: number of valid pixels.
        mask: uint8 (h, w), see `geo.rasters`; None when nobody asked for it.
        percent: likewise, the probability.
    """

    outlines: np.ndarray
    columns: dict[str, np.ndarray]
    pieces: Pieces
    open: Components
    sides: Sides
    seen: int
    mask: np.ndarray | None = None
    percent: np.ndarray | None = None


def to_bytes(part: Part) -> bytes:
    """The part as the content of a file."""
    arrays: dict[str, np.ndarray] = {}
    _put_polygons(arrays, "outlines", part.outlines)
    arrays |= {f"column.{name}": values for name, values in part.columns.items()}
    _put_components(arrays, "pieces", part.pieces.components)
    arrays["pieces.room"] = part.pieces.room
    _put_components(arrays, "open", part.open)
    arrays |= {f"sides.{name}": values for name, values in vars(part.sides).items()}
    arrays["seen"] = np.array(part.seen)
    for name in ("mask", "percent"):
        raster = getattr(part, name)
        if raster is not None:
            # The fastest level: masks are mostly empty.
            arrays[name] = np.frombuffer(zlib.compress(raster.tobytes(), 1), np.uint8)
            arrays[f"{name}.shape"] = np.array(raster.shape)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    content = file.getvalue()
    return zlib.crc32(content).to_bytes(CHECKSUM) + content


def from_bytes(content: bytes) -> Part:
    """The inverse of `to_bytes`. Raises `ValueError` when this is not a whole part."""
    archive = content[CHECKSUM:]
    if not archive or zlib.crc32(archive).to_bytes(CHECKSUM) != content[:CHECKSUM]:
        raise ValueError("damaged part")
    with np.load(io.BytesIO(archive), allow_pickle=False) as members:
        arrays = {name: members[name] for name in members.files}
    rasters: dict[str, Any] = {}
    for name in ("mask", "percent"):
        if name in arrays:
            values = np.frombuffer(zlib.decompress(arrays[name].tobytes()), np.uint8)
            rasters[name] = values.reshape(arrays[f"{name}.shape"])
    return Part(
        outlines=_get_polygons(arrays, "outlines"),
        columns={
            name.removeprefix("column."): values
            for name, values in arrays.items()
            if name.startswith("column.")
        },
        pieces=Pieces(_get_components(arrays, "pieces"), arrays["pieces.room"]),
        open=_get_components(arrays, "open"),
        sides=Sides(**{n: arrays[f"sides.{n}"] for n in ("top", "bottom", "left", "right")}),
        seen=int(arrays["seen"]),
        **rasters,
    )


def _put_components(arrays: dict[str, np.ndarray], name: str, components: Components) -> None:
    _put_polygons(arrays, name, components.polygons)
    arrays |= {f"{name}.{measure}": getattr(components, measure) for measure in MEASURES}


def _get_components(arrays: dict[str, np.ndarray], name: str) -> Components:
    polygons = _get_polygons(arrays, name)
    return Components(polygons, *(arrays[f"{name}.{measure}"] for measure in MEASURES))


def _put_polygons(arrays: dict[str, np.ndarray], name: str, polygons: np.ndarray) -> None:
    wkb = shapely.to_wkb(polygons)
    arrays[name] = np.frombuffer(b"".join(wkb), np.uint8)
    arrays[f"{name}.ends"] = np.cumsum([len(one) for one in wkb], dtype=np.int64)


def _get_polygons(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    content, ends = arrays[name].tobytes(), [0, *arrays[f"{name}.ends"].tolist()]
    wkb = [content[start:end] for start, end in pairwise(ends)]
    polygons: np.ndarray = shapely.from_wkb(np.array(wkb, dtype=object))
    return polygons
