"""What a pixel of a mask says: the values in data sets, in training and in evaluation."""

BACKGROUND = 0
LANDSLIDE = 1
IGNORE = 255  # not seen: nodata, padding, outside the area of interest
