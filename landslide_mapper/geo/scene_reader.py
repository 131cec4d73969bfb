"""Windows of a scene: pixels with their validity, at its own pixel size or another one."""

from __future__ import annotations

import numpy as np
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from landslide_mapper.errors import LsmapFailure, one_line
from landslide_mapper.geo import remote
from landslide_mapper.geo.resample import axis_taps, cells_inside, resample, touched
from landslide_mapper.geo.scene import open_raster
from landslide_mapper.geo.scene_info import SAME_SIZE, Scene

STRIP_PIXELS = 4_000_000  # of a mask that are looked at together
PIECE = 2048  # source pixels a side that are resampled together


class SceneReader:
    """Reads windows of one scene. Holds GDAL handles: use one reader per thread."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._raster = open_raster(scene)
        self._levels: dict[tuple[float, float], rasterio.DatasetReader] = {}
        self._alpha = [i + 1 for i, c in enumerate(scene.colorinterp) if c == "alpha"]
        flags = self._raster.mask_flag_enums
        # A band without a nodata value beside others that have one knows of no holes.
        self._masked = [b for b in scene.bands if MaskFlags.all_valid not in flags[b - 1]]
        self._all_valid = not self._alpha and not self._masked

    @property
    def block_width(self) -> int:
        """Columns of the scene that the file keeps in one block."""
        raster = self._level(self.scene.step)
        columns = raster.block_shapes[self.scene.bands[0] - 1][1]
        return max(1, round(columns * self.scene.width / raster.width))

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the GDAL handles."""
        for raster in (self._raster, *self._levels.values()):
            raster.close()

    def read(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        out_shape: tuple[int, int] | None = None,
        nearest: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the window that starts at `row`, `col` (may lie partly or wholly outside).

        Returns `(data, valid)`: data (B, h, w) in the scene's dtype and valid (h, w) bool.
        Outside the scene data is 0 and invalid. With `out_shape` = (h, w) the window is decimated
        (mean of the valid pixels; valid where all of the source is) or enlarged (bilinear);
        `nearest` takes single source pixels instead of means. A scene at another pixel size than
        its file's is always resampled from the file: means are of valid pixels, from the nearest
        finer overview, and valid where at least half of the source is; what a pixel gets does
        not depend on the window. Raises `LsmapFailure` when pixels cannot be read.
        """
        h, w = out_shape or (height, width)
        data = np.zeros((len(self.scene.bands), h, w), dtype=self.scene.dtype)
        valid = np.zeros((h, w), dtype=bool)
        rows, source_rows = cells_inside(row, height, h, self.scene.height)
        cols, source_cols = cells_inside(col, width, w, self.scene.width)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return data, valid
        try:
            with remote.settings(self.scene.gdal):
                if self.scene.native:
                    down = row + np.arange(rows.start, rows.stop + 1) * (height / h)
                    across = col + np.arange(cols.start, cols.stop + 1) * (width / w)
                    part = self._resampled(down, across, (width / w, height / h), nearest)
                else:
                    resampling = Resampling.nearest
                    if (h, w) != (height, width) and not nearest:
                        shrinks = h * w < height * width
                        resampling = Resampling.average if shrinks else Resampling.bilinear
                    window = Window.from_slices(source_rows, source_cols)
                    shape = (rows.stop - rows.start, cols.stop - cols.start)
                    part = self._read(self._raster, window, shape, resampling)
        except RasterioError as error:
            raise LsmapFailure(_read_error(self.scene, row, col, error)) from error
        data[:, rows, cols], valid[rows, cols] = part
        return data, valid

    def _resampled(
        self, down: np.ndarray, across: np.ndarray, cell: tuple[float, float], nearest: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cells of size `cell` (x, y) between the edges `down` and `across`, piece by piece.

        All are in pixels of the scene, which are not the file's.
        """
        native = self.scene.native
        assert native is not None
        step = (cell[0] * self.scene.step[0], cell[1] * self.scene.step[1])
        raster = self._raster if nearest else self._level(step)
        # A level spans what the file spans, so its pixels need not be a power of two of them.
        x = self.scene.step[0] * (raster.width / native.width)
        y = self.scene.step[1] * (raster.height / native.height)
        data = np.empty((len(native.bands), len(down) - 1, len(across) - 1), dtype=native.dtype)
        valid = np.empty(data.shape[1:], dtype=bool)
        for rows in _pieces(len(down) - 1, y * cell[1]):
            edges = down[rows.start : rows.stop + 1] * y
            row_taps = axis_taps(edges, raster.height, step[1], nearest)
            for cols in _pieces(len(across) - 1, x * cell[0]):
                edges = across[cols.start : cols.stop + 1] * x
                col_taps = axis_taps(edges, raster.width, step[0], nearest)
                shape = (row_taps.count, col_taps.count)
                window = Window(col_taps.first, row_taps.first, shape[1], shape[0])
                pixels, seen = self._read(raster, window, shape, Resampling.nearest)
                known = None if seen.all() else seen
                data[:, rows, cols], valid[rows, cols] = resample(pixels, known, row_taps, col_taps)
        return data, valid

    def _level(self, step: tuple[float, float]) -> rasterio.DatasetReader:
        """The coarsest overview that is still as fine as `step` file pixels (x, y)."""
        if step not in self._levels:
            self._levels[step] = self._open_level(min(step))
        return self._levels[step]

    def _open_level(self, step: float) -> rasterio.DatasetReader:
        raster = self._raster
        factors = raster.overviews(self.scene.bands[0])
        fitting = [n for n, factor in enumerate(factors) if factor <= step * (1 + SAME_SIZE)]
        if not fitting or any(raster.overviews(band) != factors for band in raster.indexes):
            return raster
        level = open_raster(self.scene, overview_level=fitting[-1])
        # A mask may have no overviews; then only the file itself knows what is valid.
        if level.mask_flag_enums != raster.mask_flag_enums or not self._mask_has(factors):
            level.close()
            return raster
        return level

    def _mask_has(self, factors: list[int]) -> bool:
        """Whether the file's mask, if it has one, has these overviews too.

        Where it has not, as it was made after them, GDAL takes all of an overview for valid.
        """
        raster = self._raster
        for file in raster.files:
            if file.endswith(".msk"):
                with rasterio.open(file) as mask:
                    return mask.overviews(1) == factors
        if raster.driver != "GTiff" or [MaskFlags.per_dataset] not in raster.mask_flag_enums:
            return True
        # A mask inside of the file: image, mask and the overviews of both are directories of it.
        last = 2 * (1 + len(factors))
        try:
            with remote.settings(raster.name), rasterio.open(f"GTIFF_DIR:{last}:{raster.name}"):
                return True
        except RasterioError:
            return False

    def _read(
        self,
        raster: rasterio.DatasetReader,
        window: Window,
        shape: tuple[int, int],
        resampling: Resampling,
    ) -> tuple[np.ndarray, np.ndarray]:
        data = self._pixels(raster, window, shape, resampling)
        if resampling == Resampling.average:
            valid = self._shrunk_valid(window, shape)
            data[:, ~valid] = 0
        else:
            single = data if resampling == Resampling.nearest else None
            valid = self._valid(raster, window, shape, single)
            if data.dtype.kind == "f":
                finite = np.isfinite(data).all(axis=0)
                valid &= finite
                data[:, ~finite] = 0
        return data, valid

    def _pixels(
        self,
        raster: rasterio.DatasetReader,
        window: Window,
        shape: tuple[int, int],
        resampling: Resampling,
    ) -> np.ndarray:
        """Pixels (B, h, w) of a window in the scene's type; bands of a VRT may have others."""
        bands = list(self.scene.bands)
        if len({raster.dtypes[band - 1] for band in bands}) == 1:
            return raster.read(
                bands, window=window, out_shape=(len(bands), *shape), resampling=resampling
            )
        parts = [
            raster.read(band, window=window, out_shape=shape, resampling=resampling)
            for band in bands
        ]
        return np.stack(parts).astype(self.scene.dtype)

    def _valid(
        self,
        raster: rasterio.DatasetReader,
        window: Window,
        shape: tuple[int, int],
        data: np.ndarray | None,
    ) -> np.ndarray:
        """Validity (h, w) of a window, from single source pixels; `data` saves a second read."""
        valid = np.ones(shape, dtype=bool)
        if self._masked:
            # A pixel is seen when any of its bands is: black in one band is not a hole.
            bands = self._masked
            masks = raster.read_masks(bands, window=window, out_shape=(len(bands), *shape))
            valid &= (masks > 0).any(axis=0)
        for alpha in self._alpha:
            valid &= raster.read(alpha, window=window, out_shape=shape) > 0
        if np.dtype(self.scene.dtype).kind == "f":
            if data is None:
                data = self._pixels(raster, window, shape, Resampling.nearest)
            valid &= np.isfinite(data).all(axis=0)
        return valid

    def _shrunk_valid(self, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """Validity (h, w) of a decimated window: true where every source pixel is valid.

        GDAL decimates masks by picking single pixels, so they are read whole, strip by strip.
        """
        if self._all_valid and np.dtype(self.scene.dtype).kind != "f":
            return np.ones(shape, dtype=bool)
        tops, bottoms = touched(window.row_off, window.height, shape[0], self.scene.height)
        lefts, rights = touched(window.col_off, window.width, shape[1], self.scene.width)
        first, width = lefts[0], rights[-1] - lefts[0]
        valid = np.empty(shape, dtype=bool)
        at_once = max(1, int(STRIP_PIXELS / (width * window.height / shape[0])))
        for start in range(0, shape[0], at_once):
            part = slice(start, min(start + at_once, shape[0]))
            top, height = tops[part][0], bottoms[part][-1] - tops[part][0]
            strip = self._valid(
                self._raster, Window(first, top, width, height), (height, width), None
            )
            holes = np.zeros((height + 1, width + 1), dtype=np.int64)
            holes[1:, 1:] = (~strip).cumsum(axis=0).cumsum(axis=1)
            rows, cols = (tops[part] - top, bottoms[part] - top), (lefts - first, rights - first)
            count = holes[np.ix_(rows[1], cols[1])] - holes[np.ix_(rows[0], cols[1])]
            count += holes[np.ix_(rows[0], cols[0])] - holes[np.ix_(rows[1], cols[0])]
            valid[part] = count == 0
        return valid


def _pieces(cells: int, size: float) -> list[slice]:
    """Slices of an axis of `cells` cells, each of which takes about `PIECE` source pixels."""
    at_once = max(1, int(PIECE / size))
    return [slice(first, min(first + at_once, cells)) for first in range(0, cells, at_once)]


def _read_error(scene: Scene, row: int, col: int, error: Exception) -> str:
    cause = one_line(error.__cause__ or error)
    if remote.is_remote(scene.gdal):
        hint = "the server or the network may be gone; run the same command again later"
    else:
        hint = "the file may be cut short or damaged, or its disk may be gone"
    return f"{scene.path}: pixels at row {row}, column {col} cannot be read ({cause}); {hint}"
