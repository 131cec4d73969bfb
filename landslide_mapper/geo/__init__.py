"""Georeferenced input and output, without torch.

- what a person names, as scenes: `sources`, `stac`, `remote`, `band_stack`, `scene_files`
- pixels of a scene: `scene`, `scene_info`, `scene_reader`, `resample`, `radiometry`, `fill`
- windows and blocks of it: `grid`, `blocks`, `reading`, `blend`, `views`
- polygons that come in: `labels`, `review`, `placing`, `aoi`
- from masks to outlines: `scan`, `rings`, `vectorize`, `joining`, `merge`, `simplify`, `cover`
- from outlines to a layer: `measure`, `features`, `vectors`, `vector_formats`
- rasters and pictures: `rasters`, `picture`, `overlay`, `style`
- for all of these: `crs`, `gdal`
"""

import warnings

# Rasters without georeference (image folders) and layers without a CRS are normal inputs here;
# what follows from it lsmap says itself. Measures (M) are dropped, as heights are, and rings that
# are not closed are closed and counted.
# Once for all: the filters are no matter of one thread.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")
warnings.filterwarnings("ignore", message="'crs' was not provided")
warnings.filterwarnings("ignore", message="Non closed ring detected")
warnings.filterwarnings("ignore", message=r"Measured \(M\) geometry types are not supported")
# Of a nodata value and an alpha band GDAL's masks know the value only; here both count.
warnings.filterwarnings("ignore", message=".*nodata attribute is shadowing the alpha band")
# A GeoPackage on a drive that is read only; what may be lost by that lsmap says itself.
warnings.filterwarnings("ignore", message=".*Retrying with IMMUTABLE=YES open option")
