"""Cells of sweeps in the gate and in the comparison: one row a cell."""

from __future__ import annotations

from edgeprune.gate.outcomes import (
    CellComparison,
    CellGate,
    Check,
    Comparison,
    Decision,
    Difference,
    GateResult,
    Metric,
)
from edgeprune.reporting.formatting import count_words
from edgeprune.reporting.gate.words import (
    METRIC_NAMES,
    change_words,
    check_name,
    check_sentence,
    decision_words,
    interval_words,
    limit_words,
    meaning_words,
    open_words,
)
from edgeprune.reporting.table import Table

_MISSING = "missing"


def cells_verdict(result: GateResult) -> str:
    """How many cells failed or stayed open, with the names of the first."""
    failed, undecided = (
        [cell.name for cell in result.cells if cell.decision is decision]
        for decision in (Decision.FAILED, Decision.INCONCLUSIVE)
    )
    every = count_words(len(result.cells), "cell")
    if failed:
        return f"FAILED: {len(failed)} of {every}: {', '.join(failed)}"
    if undecided:
        meaning = open_words(result.on_inconclusive)
        return f"INCONCLUSIVE{meaning}: {len(undecided)} of {every}: {', '.join(undecided)}"
    return f"passed: {every}"


def cell_sentences(cell: CellGate, decision: Decision) -> tuple[str, ...]:
    """A sentence for every check of this outcome, and for a cell that is missing, which has failed."""
    if cell.result is None:
        return (f"{cell.name} FAILS: {cell.missing}",) if decision is Decision.FAILED else ()
    return tuple(f"{cell.name}: {check_sentence(check)}" for check in cell.result.of(decision))


def cells_gate_table(result: GateResult) -> Table:
    """One row a cell: its decision, and what was found for every limit."""
    keys = {check.key: check for cell in result.cells for check in cell.checks}
    return Table(
        title="Cells",
        columns=("cell", "decision", *(f"{check_name(c)}, {limit_words(c)}" for c in keys.values()), "why"),
        rows=tuple(_gate_row(cell, tuple(keys)) for cell in result.cells),
        remark="Figures with their intervals; the worst decision is that of the sweep.",
        code_columns=frozenset({0}),
        narrow_columns=(0, 1, 2 + len(keys)),
    )


def _gate_row(cell: CellGate, keys: tuple[str, ...]) -> tuple[str, ...]:
    found = {check.key: _found(check) for check in cell.checks}
    worst = [check_name(check) for check in cell.checks if check.decision is not Decision.PASSED]
    decision = decision_words(cell.decision) if cell.result is not None else f"FAILED, {_MISSING}"
    why = cell.missing or ", ".join(worst)
    return (cell.name, decision, *(found.get(key, "") for key in keys), why)


def _found(check: Check) -> str:
    words = interval_words(check.found, check.unit)
    return words if check.decision is Decision.PASSED else f"{words}: {decision_words(check.decision)}"


def cells_comparison_table(comparison: Comparison) -> Table:
    """One row a cell of every later sweep: what it differs by from the first's."""
    known = {d.metric for cell in comparison.cells for d in _differences(cell)}
    metrics = [metric for metric in Metric if metric in known]
    many = len({cell.sweep for cell in comparison.cells}) > 1
    return Table(
        title="Cells against those of the first sweep",
        columns=(*(("sweep",) if many else ()), "cell", *(METRIC_NAMES[m] for m in metrics), "missing"),
        rows=tuple(_comparison_row(cell, metrics, many) for cell in comparison.cells),
        remark="Ratios are over the first sweep's; points are gained (+) or lost (-). Intervals are 95%.",
        code_columns=frozenset({int(many)}),
    )


def _differences(cell: CellComparison) -> tuple[Difference, ...]:
    return () if cell.comparison is None else cell.comparison.differences[0]


def _comparison_row(cell: CellComparison, metrics: list[Metric], many: bool) -> tuple[str, ...]:
    found = {d.metric: f"{change_words(d)}, {meaning_words(d)}" for d in _differences(cell)}
    named = (cell.sweep, cell.name) if many else (cell.name,)
    return (*named, *(found.get(metric, "") for metric in metrics), cell.missing)
