"""Confidence intervals of proportions; needs no framework."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Normal quantile of a two-sided 95% interval."""


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927)."""
    share = hits / count
    denominator = 1 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / denominator
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
