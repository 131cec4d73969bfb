"""Names for tiles and data sets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence


def unique_names(stems: Sequence[str]) -> list[str]:
    """File-name-safe, distinct names for sources."""
    seen: Counter[str] = Counter()
    names = []
    for stem in stems:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._") or "scene"
        seen[name.casefold()] += 1
        again = seen[name.casefold()]
        names.append(name if again == 1 else f"{name}~{again}")
    return names
