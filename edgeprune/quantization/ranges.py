"""From a histogram to the range that an 8-bit scale covers; 0 is always inside."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.quantization import RangeMethod
from edgeprune.quantization.calibration import Histogram

LEVELS = 256
PERCENTILE = 99.99
"""Of the values that stay inside, counted from either end."""
_SHARES = np.linspace(0.3, 1.0, 36)
"""Shares of the whole range at either end that are tried."""

Range = tuple[float, float]


def chosen_range(histogram: Histogram, method: RangeMethod) -> Range:
    """The range that ``method`` takes.

    - minmax: all that was seen;
    - percentile: all but 0.01% of the values at either end;
    - mse: the least mean squared error of rounding and clipping together.

    The least divergence of histograms (entropy, as in TensorRT) is left out: on ResNet-20 it clipped so much
    that 88.8% were right, where all others kept 91.7 to 91.8% of 91.7%.

    Nothing depends on the unit of the values; what 32-bit scales cannot hold is told by ``scales.py``.
    """
    whole = with_zero((histogram.low, histogram.high))
    if histogram.counts.sum() == 0 or whole[1] == whole[0]:
        return whole
    if method is RangeMethod.MINMAX:
        return whole
    if method is RangeMethod.PERCENTILE:
        return with_zero(_percentile(histogram))
    return _least_squares(histogram)


def with_zero(ends: Range) -> Range:
    """A range that holds 0, which padding and ReLU need exactly."""
    return min(0.0, ends[0]), max(0.0, ends[1])


def _percentile(histogram: Histogram) -> Range:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    outside = 1 - PERCENTILE / 100
    low = edges[int(np.searchsorted(share, outside, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - outside)) + 1, len(edges) - 1)]
    return float(low), float(high)


def _least_squares(histogram: Histogram) -> Range:
    """Over a grid of both ends; an end at 0 stays there."""
    low, high = with_zero((histogram.low, histogram.high))
    lows = low * _SHARES if low < 0 else np.zeros(1)
    highs = high * _SHARES if high > 0 else np.zeros(1)
    best, least = (low, high), squared_error(histogram, (low, high))
    for below in lows:
        for above in highs:
            error = squared_error(histogram, (float(below), float(above)))
            if error < least:
                best, least = (float(below), float(above)), error
    return best


def squared_error(histogram: Histogram, covered: Range) -> float:
    """Sum over the values of the squared error that 8 bits over this range make."""
    scale = (covered[1] - covered[0]) / (LEVELS - 1)
    centres = histogram.centres
    width = (histogram.high - histogram.low) / len(centres)
    zero = round(-covered[0] / scale)
    rounded = (np.clip(np.round(centres / scale) + zero, 0, LEVELS - 1) - zero) * scale
    error = np.square(rounded - centres)
    # Within a bin values are spread: where steps are finer than bins, rounding costs a twelfth of a step.
    inside = (centres >= covered[0]) & (centres <= covered[1])
    error = np.where(inside & (scale < width), scale * scale / 12, error)
    return float((histogram.counts * error).sum())
