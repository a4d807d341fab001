"""What a report says about a budget: the limits in one line, the candidates in one table."""

from __future__ import annotations

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate
from edgeprune.reporting.formatting import MISSING, format_bytes, format_ms, format_share, significant


def budget_line(section: BudgetSection) -> str:
    """The limits, the one that binds, and how many models were tried."""
    tried = len(section.candidates)
    binds = "" if section.binding is None else f"; {section.binding} binds"
    return f"{limits_in_words(section.budget)}{binds}; best of {tried} candidate{'s' if tried != 1 else ''}"


def limits_in_words(budget: Budget) -> str:
    """Every limit that was given."""
    found = []
    if budget.max_latency_ms is not None:
        found.append(f"latency at most {significant(budget.max_latency_ms)} ms")
    if budget.max_latency_share is not None:
        found.append(f"latency at most {format_share(budget.max_latency_share)} of the original's")
    if budget.max_size_bytes is not None:
        found.append(f"size at most {format_bytes(budget.max_size_bytes)}")
    if budget.max_memory_bytes is not None:
        found.append(f"memory at most {format_bytes(budget.max_memory_bytes)}")
    if budget.max_drop_points is not None:
        points = "point" if budget.max_drop_points == 1 else "points"
        found.append(f"at most {budget.max_drop_points:g} {points} lost")
    return ", ".join(found)


CANDIDATE_COLUMNS = (
    "model",
    "MACs",
    "latency",
    "of original",
    "ONNX file",
    "memory",
    "points lost",
    "verdict",
)


def candidate_rows(section: BudgetSection) -> tuple[tuple[str, ...], ...]:
    """The original and every candidate, in the order in which they were tried."""
    return tuple(_row(c, section) for c in (section.original, *section.candidates))


def candidates_remark(section: BudgetSection) -> str:
    """Where the figures come from."""
    return (
        f"Points lost are of {section.drop_of} on held-out images, and known for candidates whose costs held "
        "the budget."
    )


def _row(candidate: Candidate, section: BudgetSection) -> tuple[str, ...]:
    verdict = "exceeds " + " and ".join(candidate.exceeded) if candidate.exceeded else "within the budget"
    if candidate.name == section.chosen:
        verdict = "chosen"
    elif candidate.name == section.original.name:
        verdict = ""
    return (
        candidate.name,
        format_share(candidate.macs_share),
        format_ms(candidate.latency_ms, candidate.latency_provenance),
        format_share(candidate.latency_share),
        format_bytes(candidate.size_bytes),
        MISSING if candidate.memory_bytes is None else format_bytes(candidate.memory_bytes),
        MISSING if candidate.drop_points is None else f"{candidate.drop_points:.2f}",
        verdict,
    )
