"""Georeferenced input and output, without torch: scenes, labels, grids, rasters, polygons."""
