"""``python -m landslide_mapper`` is the same as ``lsmap``."""

from landslide_mapper.cli import main

if __name__ == "__main__":
    main()
