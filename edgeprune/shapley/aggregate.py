"""From per-image marginals to one value per player, with its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.checkpoint import State


class Moments:
    """Running power sums of marginals, one set per player; nothing is stored per image.

    Sums are taken about each player's first sample, so that a small or zero variance about a large mean is
    not lost to rounding.
    """

    def __init__(self, num_players: int) -> None:
        self._sums = np.zeros((4, num_players))
        self._weights = np.zeros((2, num_players))
        self._origin = np.zeros(num_players)
        self._empty = True

    def add(self, marginals: FloatArray, weights: FloatArray | None = None) -> None:
        """Add samples (b, n), each counted ``weights`` (b, n) times, once without."""
        weights = np.ones_like(marginals) if weights is None else weights
        if self._empty and len(marginals):
            self._origin = marginals[0].astype(np.float64)
            self._empty = False
        centred = marginals - self._origin
        power = weights
        for order in range(4):
            power = power * centred
            self._sums[order] += power.sum(axis=0)
        self._weights += weights.sum(axis=0), np.square(weights).sum(axis=0)

    def state(self) -> dict[str, NDArray[Any]]:
        """All accumulated sums, for :meth:`restore`."""
        return {"sums": self._sums, "weights": self._weights, "origin": self._origin}

    def restore(self, state: State) -> None:
        """Continue from a result of :meth:`state`."""
        self._sums, self._origin = state["sums"].copy(), state["origin"].copy()
        self._weights = state["weights"].copy()
        self._empty = not self._weights.any()

    def aggregate(self, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
        """Value and standard error (n,) each; errors by the delta method, samples taken as independent.

        Samples of unequal weights count with their effective sample size (Kish 1965).
        """
        m1, m2, m3, m4 = self._sums / self._weights[0]
        count = np.square(self._weights[0]) / self._weights[1]
        mean = self._origin + m1
        variance = np.maximum(m2 - m1**2, 0.0)
        third = m3 - 3 * m1 * m2 + 2 * m1**3
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        of_variance = np.maximum(fourth - variance**2, 0.0)
        if kind is Aggregate.MEAN:
            return mean, np.sqrt(variance / count)
        if kind is Aggregate.RMS:
            rms = np.hypot(np.sqrt(variance), mean)
            of_square = np.maximum(of_variance + 4 * mean * third + 4 * mean**2 * variance, 0.0)
            return rms, np.sqrt(of_square / count) / _or_one(2 * rms)
        std = np.sqrt(variance)
        together = variance + of_variance / _or_one(variance) + 2 * third / _or_one(std)
        return mean + 2 * std, np.sqrt(np.maximum(together, 0.0) / count)


def _or_one(divisor: FloatArray) -> FloatArray:
    """The divisor, 1 where it is 0: the dividend is 0 there, too."""
    return np.where(divisor > 0.0, divisor, 1.0)


def aggregate(per_image: FloatArray, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
    """Value and standard error (n,) of per-image values (n, k)."""
    moments = Moments(per_image.shape[0])
    moments.add(per_image.T)
    return moments.aggregate(kind)
