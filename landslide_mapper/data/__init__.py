"""Tiles on disk: manifest, spatial split, torch data set, batches."""
