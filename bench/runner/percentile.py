"""Percentiles, told only where the samples carry them."""

from collections.abc import Sequence

BEYOND = 10
"""Samples that must lie beyond a percentile: of 224 requests p99.9 is the largest one, and says nothing."""


def carried(samples: int, share: float) -> bool:
    """Whether so many samples say something about that percentile (0.99: p99)."""
    return samples * (1 - share) >= BEYOND - 1e-6


def at(ordered: Sequence[float], share: float) -> float | None:
    """The percentile of sorted samples; None where too few lie beyond it."""
    return ordered[int(len(ordered) * share)] if carried(len(ordered), share) else None


def shown(value: float | None, digits: int = 1) -> str:
    """For a table."""
    return "–" if value is None else f"{value:,.{digits}f}"
