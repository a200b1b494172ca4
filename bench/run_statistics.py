"""Statistics of repeated measurements: percentiles, and how far processes lie apart."""

from collections.abc import Sequence
from math import ceil, floor
from statistics import median

SPREAD_LIMIT = 0.05  # above it more processes are measured
LEAST_RUNS = 3
MOST_TIMES = 3  # as many processes as asked for, at most
_TRIM_EACH = 5  # of five values the largest and the smallest are left out, of ten two each


def percentile(values: Sequence[float], percent: float) -> float:
    """Percentile 0..100 of one value or more, between neighbours in a straight line."""
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(values)} values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (high - low) * (place - floor(place))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    return {f"p{percent}": percentile(values, percent) for percent in (50, 95, 99)}


def spread(values: Sequence[float]) -> float:
    """Largest less smallest, by the median; the outermost fifth is left out from five on.

    So that measuring more can make it smaller: one disturbed process of five does not count.
    """
    cut = len(values) // _TRIM_EACH
    kept = sorted(values)[cut : len(values) - cut]
    return (kept[-1] - kept[0]) / median(values)


def settled(values: Sequence[float]) -> bool:
    """Whether enough was measured: three or more, not further apart than 5 %."""
    return len(values) >= LEAST_RUNS and spread(values) <= SPREAD_LIMIT
