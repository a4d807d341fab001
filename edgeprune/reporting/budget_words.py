"""Report text of a budget: limits in one line, candidates in one table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgeprune.artifacts.budget import Budget, BudgetSection, Candidate
from edgeprune.reporting.formatting import MISSING, format_bytes, format_ms, format_share, significant
from edgeprune.reporting.tables import TerminalTable


def budget_line(section: BudgetSection) -> str:
    """Limits, the binding one, and the number of models tried."""
    tried = len(section.candidates)
    binds = "" if section.binding is None else f"; {section.binding} binds"
    return f"{limits_in_words(section.budget)}{binds}; best of {tried} candidate{'s' if tried != 1 else ''}"


def limits_in_words(budget: Budget) -> str:
    """All given limits."""
    limits = []
    if budget.max_latency_ms is not None:
        limits.append(f"latency at most {significant(budget.max_latency_ms)} ms")
    if budget.max_latency_share is not None:
        limits.append(f"latency at most {format_share(budget.max_latency_share)} of the original's")
    if budget.max_size_bytes is not None:
        limits.append(f"size at most {format_bytes(budget.max_size_bytes)}")
    if budget.max_memory_bytes is not None:
        limits.append(f"memory at most {format_bytes(budget.max_memory_bytes)}")
    if budget.max_drop_points is not None:
        points = "point" if budget.max_drop_points == 1 else "points"
        limits.append(f"at most {budget.max_drop_points:g} {points} lost")
    return ", ".join(limits)


def candidate_columns(section: BudgetSection) -> tuple[str, ...]:
    """Column titles of ``candidate_rows``; memory only if it was measured."""
    memory = ("memory",) if _has_memory(section) else ()
    costs = ("MACs", "latency", "latency share", "ONNX file", *memory)
    return ("model", *costs, "points lost", "on the front", "verdict")


def _has_memory(section: BudgetSection) -> bool:
    return any(c.memory_bytes is not None for c in (section.original, *section.candidates))


def candidate_rows(section: BudgetSection) -> tuple[tuple[str, ...], ...]:
    """The original and every candidate, in the order in which they were tried."""
    return tuple(_row(c, section) for c in (section.original, *section.candidates))


def candidates_remark(section: BudgetSection) -> str:
    """Remark on where the figures come from."""
    return (
        f"Points lost are of {section.drop_of} on held-out images. On the front: no other model has less "
        "latency, size and loss at once."
    )


def _memory(candidate: Candidate) -> str:
    return MISSING if candidate.memory_bytes is None else format_bytes(candidate.memory_bytes)


def on_front(candidate: Candidate, section: BudgetSection) -> bool:
    """Whether the candidate is Pareto-optimal in latency, size and loss."""
    own = _aims(candidate)
    others = [_aims(c) for c in (section.original, *section.candidates) if c.name != candidate.name]
    return not any(all(o <= w for o, w in zip(other, own, strict=True)) and other != own for other in others)


def _aims(candidate: Candidate) -> tuple[float, float, float]:
    return candidate.latency_share, candidate.size_bytes, candidate.drop_points or 0.0


def render_section(section: BudgetSection) -> RenderableType:
    """The search as a table for the terminal."""
    table = TerminalTable(*candidate_columns(section), title=budget_line(section), title_justify="left")
    for row in candidate_rows(section):
        table.add_row(*(Text(cell) for cell in row))
    return Group(table, Text(candidates_remark(section)))


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
        *((_memory(candidate),) if _has_memory(section) else ()),
        MISSING if candidate.drop_points is None else f"{candidate.drop_points:.2f}",
        "yes" if on_front(candidate, section) else "",
        verdict,
    )
