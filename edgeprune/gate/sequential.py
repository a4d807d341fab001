"""Whether a ratio is beyond a limit, decided from rounds of measurements with stated error rates.

A round is one value from sessions of its own. Rounds are the independent unit: pairs of one round share a
session, which on a busy machine can stay at twice the CPU time. Only the sides of the limit on which the
rounds fall are counted, so that neither the spread of the rounds nor their tails need a model: the median
ratio is at most the limit if, whatever came before, a round is above it with a chance of at most one half.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass, field

from edgeprune.gate.outcomes import Decision

FALSE_FAILURE = 0.01
"""Largest chance to ever fail a ratio that is within the limit."""
MISSED = 0.05
"""Largest chance to ever pass a ratio that is beyond the limit."""


def evidence(hits: int, rounds: int) -> float:
    """E-value against "a round is a hit with a chance of at most 1/2" after ``hits`` in ``rounds``.

    The likelihood ratio of a chance p to 1/2, averaged over p uniform on (1/2, 1); in closed form
    ``sum(C(n + 1, j) for j <= k) / ((n + 1) C(n, k))``. It is a nonnegative supermartingale that begins at 1
    if the hypothesis is true, so that it ever reaches 1/alpha with a chance of at most alpha, however often
    it is looked at (Ville's inequality; Ramdas et al. 2023, "Game-theoretic statistics and safe
    anytime-valid inference").

    Raises:
        ValueError: ``hits`` is not between 0 and ``rounds``.
    """
    if not 0 <= hits <= rounds:
        raise ValueError(f"{hits} hits of {rounds} rounds")
    below = sum(math.comb(rounds + 1, place) for place in range(hits + 1))
    return below / ((rounds + 1) * math.comb(rounds, hits))


@functools.cache
def hits_to_reject(rounds: int, alpha: float) -> int | None:
    """Fewest hits in so many rounds whose e-value is at least ``1 / alpha``; ``None`` if all are too few."""
    term = below = 1  # C(rounds + 1, hits) and their sum
    ways = 1  # C(rounds, hits)
    for hits in range(rounds + 1):
        if below >= (rounds + 1) * ways / alpha and 2 * hits > rounds:
            return hits
        term = term * (rounds + 1 - hits) // (hits + 1)
        below += term
        ways = ways * (rounds - hits) // (hits + 1)
    return None


@dataclass
class SequentialRatio:
    """Rounds so far in order of size, with ends of the median ratio that hold at every number at once.

    ``low`` is below the median ratio with a confidence of 1 - ``FALSE_FAILURE``, ``high`` above it with
    1 - ``MISSED``: thresholds that the e-value rejects are those beyond an order statistic of the rounds.
    """

    limit: float
    ratios: list[float] = field(default_factory=list)
    low: float = 0.0
    high: float = math.inf

    def add(self, ratio: float) -> Decision:
        """Take one more round; the decision so far.

        Raises:
            ValueError: ``ratio`` is not positive and finite.
        """
        if not (math.isfinite(ratio) and ratio > 0):
            raise ValueError(f"a ratio of {ratio}")
        bisect.insort(self.ratios, ratio)
        ordered, count = self.ratios, len(self.ratios)
        if (needed := hits_to_reject(count, FALSE_FAILURE)) is not None:
            self.low = max(self.low, ordered[count - needed])
        if (needed := hits_to_reject(count, MISSED)) is not None:
            self.high = min(self.high, ordered[needed - 1])
        return self.decision

    @property
    def decision(self) -> Decision:
        """Failed where the limit is below ``low``, passed where it is above ``high``."""
        if self.low > self.limit:
            return Decision.FAILED
        return Decision.PASSED if self.high < self.limit else Decision.INCONCLUSIVE
