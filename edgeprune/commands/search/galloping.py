"""Galloping search for the deepest acceptable cut: double it while candidates hold, then narrow it down."""

from __future__ import annotations

from collections.abc import Callable

FIRST_CUT = 0.15
"""Share of the latency to take first: most networks lose a point well before half of their latency, and
deep cuts are ranked in rounds, each of which costs a ranking and a recovery."""
LEAST_CUT = 0.01
"""A smaller share is not worth a candidate, nor is a smaller difference to one that is known."""


_DEEPEST_STEP_DOWN = 0.2
"""A loss far beyond the limit takes the next cut down to this share of the last, no further: losses grow
more slowly than cuts where the first channels are the ones that nothing depends on."""


class Gallop:
    """Cuts to try between 0 and ``most``: doubled while they hold, then bisected.

    While none held, the next cut is the last one scaled by what it lost, at least halved: a network that
    loses five points needs no candidate at half of that cut to show that it is too deep. If none held, the
    least worthwhile cut comes last: most networks have channels that nothing depends on.
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

    def found(self, times_limit: float | None) -> None:
        """Record what the cut ``next`` lost as a multiple of the limit; ``None``: no such network."""
        holds = times_limit is not None and times_limit <= 1.0
        if holds:
            self._good = self.next
        else:
            self._bad, self._failed = self.next, True
        inner = (self._good + self._bad) / 2
        if self._good == 0.0 and times_limit is not None and not holds:
            inner = self._bad * min(0.5, max(_DEEPEST_STEP_DOWN, 1.0 / times_limit))
        if self._good == 0.0 and inner - LEAST_CUT < LEAST_CUT / 4:
            inner = LEAST_CUT
        self.next = inner if self._failed else min(2 * self._good, inner)


def gallop(most: float, attempt: Callable[[float], float | None], go_on: Callable[[], bool]) -> None:
    """Try cuts while ``go_on`` returns true.

    ``attempt`` returns what the network with that cut lost as a multiple of the limit; ``None``: there is no
    such network.
    """
    cuts = Gallop(most)
    while not cuts.settled and go_on():
        cuts.found(attempt(cuts.next))
