"""Next aim of a budget search, and the share of a budget that a candidate uses."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate, Constraint
from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.reporting.formatting import format_bytes

_NEARLY_USED = 0.97
_SAME = 1.005
_ROUNDING_POINTS = 1e-9


class Aims:
    """Interval search for the aim: no plan reaches too low an aim, too high an aim exceeds the budget."""

    def __init__(self) -> None:
        self.next = 1.0
        self._floor, self._low, self._high = 0.0, 0.0, math.inf

    def unreachable(self) -> bool:
        """Record that no plan reaches the last aim; return whether a higher one is left to try."""
        self._floor = max(self._floor, self.next)
        if math.isinf(self._high):
            self.next *= 1.5
            return True
        self.next = math.sqrt(self._floor * self._high)
        return not self._settled(self._floor)

    def found(self, used: float) -> bool:
        """Record the budget share used at the last aim; return whether the search has converged."""
        if used <= 1.0:
            self._low = max(self._low, self.next)
        else:
            self._high = min(self._high, self.next)
        least = max(self._floor, self._low)
        if _NEARLY_USED <= used <= 1.0 or self._settled(least):
            return True
        # The aim that would just use the budget if costs were proportional, kept within the bounds.
        wanted = self.next * 0.985 / used
        inside = least * 1.002 < wanted < self._high * 0.998
        self.next = (
            wanted if inside or math.isinf(self._high) else math.sqrt(max(least, 0.5 * wanted) * self._high)
        )
        return False

    def _settled(self, least: float) -> bool:
        return least > 0.0 and self._high / least < _SAME


def latency_share(budget: Budget, original: Candidate | None) -> float | None:
    """The latency limit as a share of the original's latency, taken as 1 ms while that is unknown."""
    shares = [] if budget.max_latency_share is None else [budget.max_latency_share]
    if budget.max_latency_ms is not None:
        shares.append(budget.max_latency_ms / (original.latency_ms if original is not None else 1.0))
    return min(shares, default=None)


def slower_again(search: BudgetSection, again: LatencyRatio) -> str | None:
    """A sentence if the chosen candidate, measured again, significantly exceeds the latency limit."""
    share = latency_share(search.budget, search.original)
    if share is None or again.low <= share:
        return None
    searched_share = next(c.latency_share for c in search.candidates if c.name == search.chosen)
    return (
        f"measured again for the report, the model takes {again.ratio:.1%} "
        f"[{again.low:.1%}, {again.high:.1%}] of the original's CPU time, more than the {share:.1%} "
        f"asked for, where the search measured {searched_share:.1%}: other work disturbed one of the two; "
        "repeat it on an idle machine, or ask for less"
    )


def _uses(figures: Candidate, original: Candidate, budget: Budget) -> dict[Constraint, float]:
    """Share of every cost limit that a candidate uses."""
    uses = {}
    if (share := latency_share(budget, original)) is not None:
        uses[Constraint.LATENCY] = figures.latency_share / share
    if budget.max_size_bytes is not None:
        uses[Constraint.SIZE] = figures.size_bytes / budget.max_size_bytes
    if budget.max_memory_bytes is not None and figures.memory_bytes is not None:
        uses[Constraint.MEMORY] = figures.memory_bytes / budget.max_memory_bytes
    return uses


def budget_used(figures: Candidate, original: Candidate, budget: Budget) -> float:
    """Largest used share of any cost limit; 0 without cost limits."""
    return max(_uses(figures, original, budget).values(), default=0.0)


def binding_limit(figures: Candidate, original: Candidate, budget: Budget) -> str | None:
    """Name of the most used cost limit; that of the drop without cost limits."""
    uses = _uses(figures, original, budget)
    if not uses:
        return Constraint.DROP.value
    return max(uses, key=lambda c: uses[c]).value


def exceeded_limits(figures: Candidate, budget: Budget) -> tuple[str, ...]:
    """Names of the limits that a candidate exceeds."""
    reference = replace(figures, latency_ms=figures.latency_ms / max(figures.latency_share, 1e-12))
    exceeded = [c.value for c, use in _uses(figures, reference, budget).items() if use > 1.0]
    limit, drop = budget.max_drop_points, figures.drop_points
    if limit is not None and drop is not None and drop > limit + _ROUNDING_POINTS:
        exceeded.append(Constraint.DROP.value)
    return tuple(exceeded)


def in_words(figures: Candidate) -> str:
    """Costs of a candidate as text."""
    memory = "" if figures.memory_bytes is None else f", {format_bytes(figures.memory_bytes)} of memory"
    return (
        f"{figures.latency_ms:.3g} ms ({figures.latency_share:.0%} of the original, "
        f"{figures.latency_provenance.value}), {format_bytes(figures.size_bytes)}{memory}"
    )
