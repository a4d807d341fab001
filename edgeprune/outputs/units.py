"""Units of a network's outputs: errors counted channel by channel, by each channel's own spread.

A detector's outputs may join boxes in pixels with scores in 0..1 in one tensor. By the power of the whole
tensor the scores would not count at all; by the spread of each channel alone, channels that hardly move
(classes that no image shows) would count as much as those that matter. So channels whose spreads are close to
each other form a group of one unit, of which small ones count by a share of the largest; groups count alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray

_GAP = 10.0
"""Spreads further apart than this factor are of different units."""
_LEAST_SHARE = 0.1
"""Of the largest spread of a unit: channels that spread less count as if they spread so much."""
_ROUNDING = 1e-5
"""Of a channel's size: what spreads less is constant."""
_CONSTANT = 0.01
"""A channel with less than this share of its original spread has become constant."""
_LEAST = 1e-30
_LONGER = 1.5
"""Channels come last in a map that would be longer by this factor if they came first."""


@dataclass(frozen=True)
class OutputUnits:
    """Channels (c,) of one output: their axis, spread, unit, and the weight of a squared error in each.

    ``spread``: standard deviation over images, 0 where a channel does not depend on them. ``unit``: number
    of its group. ``weights``: an error as large as the spread in every channel sums up to 1.
    """

    axis: int
    spread: FloatArray
    unit: IndexArray
    weights: FloatArray

    def weights_for(self, shape: tuple[int, ...]) -> FloatArray:
        """Weights that broadcast over outputs of this shape (n, ...), whose weighted squares sum up to the
        error of an image."""
        if len(shape) == 1:
            return self.weights
        wide = [1] * len(shape)
        wide[self.axis] = len(self.weights)
        return self.weights.reshape(wide) / (math.prod(shape[1:]) / len(self.weights))

    def scales_for(self, shape: tuple[int, ...]) -> FloatArray:
        """Roots of :meth:`weights_for`: scaled errors have squares in range where weights would overflow."""
        return np.sqrt(self.weights_for(shape))


@dataclass(frozen=True, kw_only=True)
class ChannelErrors:
    """How far channels (c,) of one output are off: root mean squared error, in the output's own numbers and
    over the counted spread, and which channels, not constant in the original, became constant."""

    absolute: FloatArray
    relative: FloatArray
    constant: BoolArray


def units_of(reference: NDArray[Any]) -> OutputUnits:
    """Units of an output (n, ...) from its values on calibration images.

    Channels are along axis 1, or the last where that tells more units apart (n, anchors, values); of a map
    only where its sizes are those of (n, h, w, values).
    """
    values = _with_channels(reference)
    axis = _channel_axis(values)
    spread = _spread(values, axis)
    unit = _groups(spread)
    counted = np.empty_like(spread)
    for group in np.unique(unit):
        own = unit == group
        counted[own] = np.maximum(spread[own], _LEAST_SHARE * float(spread[own].max()))
    # What is constant counts by its size: by the least spread of others its rounding would be an error.
    counted = np.where(
        spread > 0, counted, np.maximum(counted, np.abs(values).mean(axis=_others(values.ndim, axis)))
    )
    counted = np.where(counted > 0, counted, max(float(np.abs(values).max(initial=0.0)), _LEAST))
    sizes = np.bincount(unit)[unit]
    weights = 1.0 / (len(np.unique(unit)) * sizes * np.square(counted))
    return OutputUnits(axis, spread, unit, weights)


def relative_errors(
    reference: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]], units: Sequence[OutputUnits]
) -> FloatArray:
    """Squared error (n,) of every image by the outputs' units, averaged over outputs.

    1 is as far off as outputs that do not depend on the image.
    """
    errors = []
    for wanted, given, unit in zip(reference, outputs, units, strict=True):
        squared = np.square(_with_channels(given) - _with_channels(wanted))
        weighted = squared * unit.weights_for(squared.shape)
        errors.append(weighted.reshape(len(squared), -1).sum(axis=1))
    return np.asarray(np.mean(errors, axis=0))


def channel_errors(reference: NDArray[Any], output: NDArray[Any], units: OutputUnits) -> ChannelErrors:
    """Errors of one output (n, ...) channel by channel."""
    values = _with_channels(output)
    others = _others(values.ndim, units.axis)
    squared = np.square(values - _with_channels(reference)).mean(axis=others)
    sizes, count = np.bincount(units.unit)[units.unit], len(np.unique(units.unit))
    spread = _spread(values, units.axis)
    relative = np.sqrt(squared * units.weights * sizes * count)
    return ChannelErrors(
        absolute=np.sqrt(squared),
        relative=np.where(np.isfinite(relative), relative, np.inf),
        constant=(units.spread > 0) & (spread < _CONSTANT * units.spread),
    )


def _with_channels(values: NDArray[Any]) -> FloatArray:
    """In double precision, (n, 1) where an image has a single value."""
    wide = np.asarray(values, dtype=np.float64)
    return wide[:, None] if wide.ndim == 1 else wide


def _channel_axis(values: FloatArray) -> int:
    if values.ndim < 3 or (values.ndim == 4 and not _may_end_in_channels(values.shape)):
        return 1
    first, last = (int(_groups(_spread(values, axis)).max(initial=0)) for axis in (1, values.ndim - 1))
    return values.ndim - 1 if last > first else 1


def _may_end_in_channels(shape: tuple[int, ...]) -> bool:
    """Whether (n, a, b, c) looks like a map of a x b: a square, or clearly more of one than b x c.

    Columns of a map spread apart, too, since some show nothing, but are no channels.
    """
    _, rows, columns, last = shape
    if rows == columns:
        return last != columns
    long, other = (max(sides) / min(sides) for sides in ((rows, columns), (columns, last)))
    return last < min(rows, columns) and _LONGER * long < other


def _spread(values: FloatArray, axis: int) -> FloatArray:
    """Standard deviation over images (c,), root mean square over positions; 0 where it is but rounding.

    At each position by itself: boxes differ between positions by where these are, whatever the image shows.
    Of a single image, the deviation over positions.
    """
    others = _others(values.ndim, axis)
    if len(values) > 1:
        spread = np.sqrt(values.var(axis=0, ddof=1, keepdims=True).mean(axis=others))
    else:
        spread = values.std(axis=others)
    size = np.abs(values).mean(axis=others)
    return np.where(spread <= _ROUNDING * size, 0.0, spread)


def _others(dims: int, axis: int) -> tuple[int, ...]:
    return tuple(d for d in range(dims) if d != axis)


def _groups(spread: FloatArray) -> IndexArray:
    """Number of the unit (c,) of every channel, by gaps between sorted spreads; constant ones go with the
    least."""
    unit = np.zeros(len(spread), dtype=np.int64)
    alive = np.flatnonzero(spread > 0)
    if alive.size:
        order = alive[np.argsort(spread[alive], kind="stable")]
        ordered = spread[order]
        unit[order] = np.concatenate(([0], np.cumsum(ordered[1:] > _GAP * ordered[:-1])))
    return unit
