"""How good a model or an inventory is: pixels, objects, boundaries, calibration, reports."""
