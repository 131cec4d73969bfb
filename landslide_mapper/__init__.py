"""lsmap: map landslides in large georeferenced images with MRIFE."""

__version__ = "0.1.0"
