"""From per-image marginals to one value per player, with its standard error."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.game import FloatArray

_TINY = 1e-300


class Moments:
    """Running power sums of marginals, one set per player; nothing is stored per image."""

    def __init__(self, num_players: int) -> None:
        self._sums = np.zeros((4, num_players))
        self.count = 0

    def add(self, marginals: FloatArray) -> None:
        """Add samples (b, n)."""
        power = np.ones_like(marginals)
        for order in range(4):
            power = power * marginals
            self._sums[order] += power.sum(axis=0)
        self.count += len(marginals)

    def aggregate(self, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
        """Value and standard error (n,) each; errors by the delta method, samples taken as independent."""
        m1, m2, m3, m4 = self._sums / self.count
        variance = np.maximum(m2 - m1**2, 0.0)
        if kind is Aggregate.MEAN:
            return m1, np.sqrt(variance / self.count)
        if kind is Aggregate.RMS:
            rms = np.sqrt(m2)
            spread = np.maximum(m4 - m2**2, 0.0)
            return rms, np.sqrt(spread / self.count) / (2 * np.maximum(rms, _TINY))
        std = np.sqrt(variance)
        central3 = m3 - 3 * m1 * m2 + 2 * m1**3
        central4 = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        safe = np.maximum(std, _TINY)
        of_std = np.maximum(central4 - variance**2, 0.0) / (4 * safe**2)
        together = variance + 4 * of_std + 2 * central3 / safe
        return m1 + 2 * std, np.sqrt(np.maximum(together, 0.0) / self.count)


def aggregate(per_image: FloatArray, kind: Aggregate) -> tuple[FloatArray, FloatArray]:
    """Value and standard error (n,) of per-image values (n, k)."""
    moments = Moments(per_image.shape[0])
    moments.add(per_image.T)
    return moments.aggregate(kind)
