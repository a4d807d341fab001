"""Sweeps side by side: each cell of the later ones beside the cell of this name in the first."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.commands.check.swept import Swept, read_sweeps
from edgeprune.commands.compare.comparing import compare_models
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.gate.outcomes import CellComparison, Comparison
from edgeprune.options.gate import CompareOptions

_ABSENT = "has no such cell"


def compare_sweeps(options: CompareOptions, threads: int) -> Comparison:
    """Differences of all cells against those of the first sweep; cells that one of the two lacks are said.

    Raises:
        UsageError: fewer than two sweeps, something else among them, or as for single models.
        ProfileError: an ONNX file cannot be run.
    """
    first, *later = read_sweeps(options.models)
    if not later:
        raise UsageError("one sweep was given; accepted are two or more, or folders of single cells")
    cells = [
        _compared(name, first, sweep, options, threads)
        for sweep in later
        for name in dict.fromkeys((*first.cells, *sweep.cells))
    ]
    notes = [note for cell in cells if cell.comparison is not None for note in cell.comparison.notes]
    return Comparison(models=(), differences=(), notes=tuple(dict.fromkeys(notes)), cells=tuple(cells))


def _compared(cell: str, first: Swept, sweep: Swept, options: CompareOptions, threads: int) -> CellComparison:
    plain = CellComparison(sweep=sweep.name, name=cell, comparison=None)
    reasons = [f"{each.name}: {_why(each, cell)}" for each in (first, sweep) if cell not in each.done]
    if reasons:
        return replace(plain, missing="; ".join(reasons))
    try:
        both = replace(options, models=(first.done[cell], sweep.done[cell]))
        return replace(plain, comparison=compare_models(both, threads))
    except EdgepruneError as error:
        raise type(error)(f"cell {cell}: {error}") from error


def _why(sweep: Swept, name: str) -> str:
    return f"it failed there: {sweep.failed[name]}" if name in sweep.failed else _ABSENT
