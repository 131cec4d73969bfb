"""Georeferenced input and output, without torch: scenes, labels, grids, rasters, polygons."""

import warnings

# Rasters without georeference (image folders) and layers without a CRS are normal inputs here;
# what follows from it lsmap says itself. Measures (M) are dropped, as heights are.
# Once for all: the filters are no matter of one thread.
warnings.filterwarnings("ignore", message="Dataset has no geotransform")
warnings.filterwarnings("ignore", message="'crs' was not provided")
warnings.filterwarnings("ignore", message=r"Measured \(M\) geometry types are not supported")
