"""Statistics of repeated measurements: percentiles, and how far processes lie apart."""

from collections.abc import Sequence
from statistics import median

import numpy as np

SPREAD_LIMIT = 0.05  # above it more processes are measured
LEAST_RUNS = 3
MOST_TIMES = 3  # as many processes as asked for, at most
_TRIM_EACH = 5  # of five values the largest and the smallest are left out, of ten two each


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of one value or more."""
    return {f"p{percent}": float(np.percentile(values, percent)) for percent in (50, 95, 99)}


def spread(values: Sequence[float]) -> float:
    """The largest less the smallest, over the median.

    From five values on the fastest and the slowest fifth are left out, so that measuring more can
    make it smaller: one disturbed process of five does not count.
    """
    cut = len(values) // _TRIM_EACH
    kept = sorted(values)[cut : len(values) - cut]
    return (kept[-1] - kept[0]) / median(values)


def settled(values: Sequence[float]) -> bool:
    """Whether enough was measured: three or more, not further apart than 5 %."""
    return len(values) >= LEAST_RUNS and spread(values) <= SPREAD_LIMIT
