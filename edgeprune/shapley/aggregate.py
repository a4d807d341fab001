"""From per-image marginals to one value per player, with its standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.checkpoint import State
from edgeprune.shapley.game import FloatArray


class Moments:
    """Running power sums of marginals, one set per player; nothing is stored per image.

    Sums are taken about each player's first sample, so that little spread about a large mean, or none at
    all, does not drown in rounding.
    """

    def __init__(self, num_players: int) -> None:
        self._sums = np.zeros((4, num_players))
        self._origin = np.zeros(num_players)
        self.count = 0

    def add(self, marginals: FloatArray) -> None:
        """Add samples (b, n)."""
        if self.count == 0 and len(marginals):
            self._origin = marginals[0].astype(np.float64)
        centred = marginals - self._origin
        power = np.ones_like(centred)
        for order in range(4):
            power = power * centred
            self._sums[order] += power.sum(axis=0)
        self.count += len(marginals)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that was gathered, for :meth:`restore`."""
        return {"sums": self._sums, "origin": self._origin, "count": np.array(self.count)}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self._sums, self._origin = state["sums"].copy(), state["origin"].copy()
        self.count = int(state["count"])

    def aggregate(self, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
        """Value and standard error (n,) each; errors by the delta method, samples taken as independent."""
        m1, m2, m3, m4 = self._sums / self.count
        mean = self._origin + m1
        variance = np.maximum(m2 - m1**2, 0.0)
        third = m3 - 3 * m1 * m2 + 2 * m1**3
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        of_variance = np.maximum(fourth - variance**2, 0.0)
        if kind is Aggregate.MEAN:
            return mean, np.sqrt(variance / self.count)
        if kind is Aggregate.RMS:
            rms = np.hypot(np.sqrt(variance), mean)
            of_square = np.maximum(of_variance + 4 * mean * third + 4 * mean**2 * variance, 0.0)
            return rms, np.sqrt(of_square / self.count) / _or_one(2 * rms)
        std = np.sqrt(variance)
        together = variance + of_variance / _or_one(variance) + 2 * third / _or_one(std)
        return mean + 2 * std, np.sqrt(np.maximum(together, 0.0) / self.count)


def _or_one(divisor: FloatArray) -> FloatArray:
    """The divisor, 1 where it is 0: what it divides is 0 there, too."""
    return np.where(divisor > 0.0, divisor, 1.0)


def aggregate(per_image: FloatArray, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
    """Value and standard error (n,) of per-image values (n, k)."""
    moments = Moments(per_image.shape[0])
    moments.add(per_image.T)
    return moments.aggregate(kind)
