"""The ``edgeprune pick`` command of every candidate of a search, and its plan."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

from edgeprune.artifacts.budget import BudgetSection, Candidate
from edgeprune.artifacts.pruning import GroupPlan
from edgeprune.reporting.formatting import format_bytes, format_ms, format_share
from edgeprune.reporting.table import Table
from edgeprune.reporting.web.facts import CandidatePlan


def candidate_plans(
    section: BudgetSection, plans: Mapping[str, tuple[GroupPlan, ...]], folder: str
) -> tuple[CandidatePlan, ...]:
    """Plan and command of every candidate, in the order in which they were tried."""
    return tuple(_plan(each, section, plans.get(each.name), folder) for each in section.candidates)


def pick_limits(candidate: Candidate, section: BudgetSection) -> tuple[str, ...]:
    """Limits within which ``edgeprune pick`` takes this candidate; empty where it takes another one.

    It takes what loses least of those within the limits, and of these the fastest.
    """
    share = math.ceil(1000 * candidate.latency_share) / 1000
    within = [c for c in section.candidates if _fits(c, share, candidate.size_bytes)]
    best = max(within, key=lambda c: (-(c.drop_points or 0.0), -c.latency_share), default=None)
    if best is None or best.name != candidate.name:
        return ()
    return ("--max-latency", f"{100 * share:.1f}%", "--max-size", f"{candidate.size_bytes}B")


def _fits(candidate: Candidate, share: float, size_bytes: int) -> bool:
    return candidate.latency_share <= share and candidate.size_bytes <= size_bytes


def _plan(
    candidate: Candidate, section: BudgetSection, plan: tuple[GroupPlan, ...] | None, folder: str
) -> CandidatePlan:
    limits = pick_limits(candidate, section)
    place = shlex.quote(folder)
    name = candidate.name.replace(" ", "-")
    command = f"edgeprune pick {place} {' '.join(limits)} -o {shlex.quote(f'{folder}-{name}')}"
    lost = (
        "loss not measured" if candidate.drop_points is None else f"{candidate.drop_points:.2f} points lost"
    )
    blocks = f"; without {', '.join(candidate.dropped)}" if candidate.dropped else ""
    return CandidatePlan(
        name=candidate.name,
        words=(
            f"{format_share(candidate.macs_share)} of the MACs, "
            f"{format_ms(candidate.latency_ms, candidate.latency_provenance)}, "
            f"{format_bytes(candidate.size_bytes)}, {lost}, stored in {candidate.precision.value}{blocks}"
        ),
        command=command if limits else "",
        why="No limits pick it: another candidate within the same latency and size loses less, or no more.",
        table=None if plan is None else _table(plan),
    )


def _table(plan: tuple[GroupPlan, ...]) -> Table:
    return Table(
        title="Plan",
        columns=("group", "channels", "kept"),
        rows=tuple((each.group, str(each.players), str(each.kept)) for each in plan),
        code_columns=frozenset({0}),
        numeric_columns=frozenset({1, 2}),
    )
