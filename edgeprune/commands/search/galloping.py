"""Galloping search for the deepest acceptable cut: double it while candidates hold, then bisect."""

from __future__ import annotations

from collections.abc import Callable

FIRST_CUT = 0.15
"""Share of the latency to take first: most networks lose a point well before half of their latency, and
deep cuts are ranked in rounds, each of which costs a ranking and a recovery."""
LEAST_CUT = 0.01
"""A smaller share is not worth a candidate, nor is a smaller difference to one that is known."""


class Gallop:
    """Cuts to try between 0 and ``most``: doubled while they hold, then bisected.

    If none held, the least worthwhile cut comes last: most networks have channels that nothing depends on.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._good, self._bad = 0.0, most
        self._failed = False
        self.next = min(FIRST_CUT, most / 2)

    @property
    def settled(self) -> bool:
        """Whether the remaining interval is too small for another candidate."""
        if self._failed and self._good == 0.0 and self.next == LEAST_CUT:
            return self._bad <= LEAST_CUT
        return min(self.next - self._good, self._bad - self.next) < LEAST_CUT

    def found(self, holds: bool) -> None:
        """Record whether the cut ``next`` held."""
        if holds:
            self._good = self.next
        else:
            self._bad, self._failed = self.next, True
        halfway = (self._good + self._bad) / 2
        if self._good == 0.0 and halfway - LEAST_CUT < LEAST_CUT / 4:
            halfway = LEAST_CUT
        self.next = halfway if self._failed else min(2 * self._good, halfway)


def gallop(most: float, attempt: Callable[[float], bool | None], go_on: Callable[[], bool]) -> None:
    """Try cuts while ``go_on`` returns true.

    ``attempt`` returns whether the network with that cut holds; ``None`` (no such network) counts as false.
    """
    cuts = Gallop(most)
    while not cuts.settled and go_on():
        cuts.found(bool(attempt(cuts.next)))
