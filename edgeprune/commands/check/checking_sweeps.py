"""The gate for a sweep: every cell against the limits and the cell of the same name in an earlier sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeprune.commands.check.checking import check_asked, check_model
from edgeprune.commands.check.swept import Swept, read_sweeps
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.gate.outcomes import CellGate, GateResult
from edgeprune.options.gate import CheckOptions
from edgeprune.reporting.formatting import count_words


def check_sweep(options: CheckOptions, threads: int) -> GateResult:
    """Hold every cell of the sweep ``options.model`` against the limits; the worst decides.

    A cell that failed, or that the baseline has and the sweep does not, fails. One that is new is held
    against the budget alone.

    Raises:
        UsageError: the baseline is no sweep, no cell can be checked, or as for a single model.
        ProfileError: an ONNX file cannot be run.
    """
    check_asked(options)
    given = (options.model, *(() if options.baseline is None else (options.baseline,)))
    sweep, *earlier = read_sweeps(given)
    base = earlier[0] if earlier else None
    cells = [_missing(name, f"the cell failed: {reason}") for name, reason in sweep.failed.items()]
    fresh: list[str] = []
    for name in sweep.done:
        is_new = base is not None and name not in base.done
        fresh += [name] if is_new else []
        if not is_new or options.budget is not None:
            cells.append(_checked(name, sweep, base, options, threads))
    if base is not None:
        gone = [name for name in base.done if name not in sweep.cells]
        cells += [_missing(name, "the baseline has the cell, and this sweep does not") for name in gone]
    if not cells:
        raise UsageError(
            f"no cell of {sweep.name!r} can be checked: the baseline has none of them; give --budget"
        )
    return GateResult(
        subject=sweep.name,
        baseline=None if base is None else base.name,
        checks=(),
        on_inconclusive=options.inconclusive,
        notes=(*_about_new(fresh, options), *_together(cells)),
        cells=tuple(cells),
    )


def _missing(cell: str, reason: str) -> CellGate:
    return CellGate(name=cell, result=None, missing=reason)


def _checked(cell: str, sweep: Swept, base: Swept | None, options: CheckOptions, threads: int) -> CellGate:
    before = None if base is None else base.done.get(cell)
    try:
        found = check_model(replace(options, model=sweep.done[cell], baseline=before), threads)
    except EdgepruneError as error:
        raise type(error)(f"cell {cell}: {error}") from error
    return CellGate(name=cell, result=found)


def _about_new(names: Sequence[str], options: CheckOptions) -> tuple[str, ...]:
    if not names:
        return ()
    how = "checked against the budget and their originals" if options.budget is not None else "not checked"
    return (f"Cells that the baseline does not have were {how}: {', '.join(names)}.",)


def _together(cells: Sequence[CellGate]) -> tuple[str, ...]:
    """Notes of the cells, each once, with how many say it."""
    said: dict[str, int] = {}
    for cell in cells:
        for note in () if cell.result is None else cell.result.notes:
            said[note] = said.get(note, 0) + 1
    return tuple(f"{note} ({count_words(times, 'cell')})" for note, times in said.items())
