"""Bootstrap intervals: units (scenes, images or tiles) are drawn again, with replacement.

Metrics are ratios of sums, so each draw sums the units' counts and forms the metrics anew; the
mean of the units' own metrics is never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from landslide_mapper.metrics import rates

DRAWS = 2000
SEED = 0
LEVEL = 0.95
AT_ONCE = 4_000_000  # weights that are held at a time

Rates = Callable[[np.ndarray], dict[str, np.ndarray]]


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum counts (n, ...) by group number (n,); (groups, ...), int64."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]), dtype=np.int64)
    np.add.at(sums, groups, values)
    return sums


def intervals(
    counts: np.ndarray,
    formula: Rates = rates,
    draws: int = DRAWS,
    seed: int = SEED,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the metrics that `formula` makes of summed counts.

    Args:
        counts: (units, k) of the units that are drawn; at least one.
        formula: counts (..., k) → metrics (...) by name.
        draws: how many times as many units as there are are drawn.
        seed: of the draws; the same units with the same seed are drawn alike.
    """
    parts = [formula(sums) for sums in _resampled(counts, draws, seed)]
    ends = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
    found = {}
    for name in parts[0]:
        low, high = np.percentile(np.concatenate([part[name] for part in parts]), ends)
        found[name] = (float(low), float(high))
    return found


def _resampled(counts: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Sums (some draws, k) over units that are drawn with replacement, part by part."""
    units = len(counts)
    rng = np.random.default_rng(seed)
    step = max(1, AT_ONCE // units)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        # How often each unit is drawn; float, so that the product runs in BLAS, exact below 2⁵³.
        times = rng.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)
        yield times @ counts.astype(np.float64)
