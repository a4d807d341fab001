"""Aggregates over images of each image's own value, from sampled units shared by all images."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.arrays import BoolArray, FloatArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.estimate import from_units
from edgeprune.shapley.game import CountedGame

_GROUPS = 32


class ImageUnits:
    """Collects units, which are marginal contributions (n, c) of every player, of the mean or by image.

    A unit is an independent draw of an estimator: an order, a pair of orders, a coalition. With the mean
    as aggregate, units are of the mean game (c = 1).

    With another one, the estimand is the aggregate over images x of the exact values phi_i(x), of which
    unit u gives a noisy estimate phi_iu(x). Squares are therefore taken over products of *different* units,
    E[phi_iu phi_iw] = phi_i**2, so that sampling noise is not counted as variance over images: the mean
    square over images, and the square of the mean, are unbiased; the root is slightly biased, and is 0
    where its square is negative. Units are assigned to at most 32 groups in turn, which limits memory to
    32 n k numbers. Standard errors are jackknife errors over groups, so sampling errors of units for the
    given images. With fewer than two units there are no products of different ones: the value is that of
    the noisy estimate, biased upward, and its error infinite; with two the error is infinite.
    """

    def __init__(self, kind: Aggregate, units: int) -> None:
        self._kind = kind
        self._groups = units if kind is Aggregate.MEAN else min(units, _GROUPS)
        self._sums: list[FloatArray] = []
        self._counts = np.zeros(self._groups)
        self._added = 0

    def add(self, unit: FloatArray) -> None:
        """Add one unit (n, c)."""
        group = self._added % self._groups
        if self._added < self._groups:
            self._sums.append(unit.astype(np.float64))
        else:
            self._sums[group] = self._sums[group] + unit
        self._counts[group] += 1
        self._added += 1

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Value and standard error (n,) each."""
        sums, counts = np.stack(self._sums), self._counts
        if self._kind is Aggregate.MEAN:
            return from_units(sums.mean(axis=2))
        total, squares = sums.sum(axis=0), np.square(sums).sum(axis=0)
        mean_total = sums.mean(axis=2).sum(axis=0)
        mean_squares = np.square(sums.mean(axis=2)).sum(axis=0)
        weight = counts.sum()
        if len(counts) < 2:
            value = _aggregate(
                self._kind, mean_total / weight, np.square(total / weight), np.square(mean_total / weight)
            )
            return value, np.full(len(value), np.inf)

        def without(group: int | None) -> FloatArray:
            """The aggregate from all groups, or from all but one."""
            own = np.zeros_like(total) if group is None else sums[group]
            count = 0.0 if group is None else counts[group]
            pairs = (weight - count) ** 2 - (np.square(counts).sum() - count**2)
            products = np.square(total - own) - (squares - np.square(own))
            own_mean = own.mean(axis=1)
            mean_products = np.square(mean_total - own_mean) - (mean_squares - np.square(own_mean))
            mean = (mean_total - own_mean) / (weight - count)
            return _aggregate(self._kind, mean, products / pairs, mean_products / pairs)

        value = without(None)
        if len(counts) < 3:
            return value, np.full(len(value), np.inf)
        left_out = np.stack([without(group) for group in range(len(counts))])
        scatter = np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
        return value, np.sqrt(scatter * (len(counts) - 1) / len(counts))


def _aggregate(
    kind: Aggregate, mean: FloatArray, squares: FloatArray, squared_mean: FloatArray
) -> FloatArray:
    """Aggregate of the mean (n,), squares by image (n, k) and square of the mean (n,), all without noise."""
    mean_square = squares.mean(axis=1)
    if kind is Aggregate.RMS:
        return np.asarray(np.sqrt(np.maximum(mean_square, 0.0)))
    return np.asarray(mean + 2.0 * np.sqrt(np.maximum(mean_square - squared_mean, 0.0)))


def values_for(counted: CountedGame, coalitions: BoolArray, kind: Aggregate) -> FloatArray:
    """Values of coalitions (m, n) that an aggregate needs: their means (m, 1), or all values (m, k)."""
    return counted.means(coalitions)[:, None] if kind is Aggregate.MEAN else counted.values(coalitions)
