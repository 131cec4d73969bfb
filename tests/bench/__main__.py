"""``python tests/bench [NAME...]``: measure and print tables of ratios.

NAME is one of those below; all of them by default, which takes about an hour.
"""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "vectorise",
    "tiles",
    "windows",
    "predictors",
    "train",
    "pipeline",
    "memory",
    "remote",
    "cluster",
    "overlap",
    "collar",
    "peers",
)


def main(names: list[str]) -> None:
    """Run the benchmarks of these names, all if there are none."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]}; there are {', '.join(NAMES)}")
    for name in names or NAMES:
        importlib.import_module(name).run()


if __name__ == "__main__":
    main(sys.argv[1:])
