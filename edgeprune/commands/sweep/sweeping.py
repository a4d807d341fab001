"""A sweep from its file to its folder: cells as journaled units of work, then what they say together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.artifacts.choices import ExecutorKind
from edgeprune.caching.locks import claimed
from edgeprune.caching.store import Store
from edgeprune.commands.run.checks import check_options, read_by
from edgeprune.commands.run.report_builder import package_versions
from edgeprune.commands.run.resume import check_journal, journal_folder
from edgeprune.commands.sweep.cells import Cell, cells_of, in_turn, only
from edgeprune.commands.sweep.earlier import finished_cells, link_folder, take_earlier
from edgeprune.commands.sweep.figures import best_cells, budget_words, shared_stages, with_fronts
from edgeprune.commands.sweep.fleet import check_devices, measured
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.executors.chosen import check_address, executor_of
from edgeprune.executors.journal import UnitJournal, run_journaled
from edgeprune.executors.units import Executor, Outcome, Unit, Work
from edgeprune.importance.journals import Journals
from edgeprune.options.sweep.sweep_file import SweepPlan, read_sweep
from edgeprune.options.sweep.sweeps import SweepOptions
from edgeprune.profiling.measurer import RunSettings
from edgeprune.reporting.formatting import count_words
from edgeprune.reporting.sweep.facts import (
    SWEEP_SCHEMA_VERSION,
    CellOnDevice,
    CellReport,
    CellResult,
    CellState,
    SweepReport,
)
from edgeprune.reporting.sweep.files import write_sweep
from edgeprune.reporting.sweep.progress import watching
from edgeprune.storage import outputs
from edgeprune.storage.files import sha256_file
from edgeprune.system.host import machine_description

_log = logging.getLogger("edgeprune.commands")

CELLS = "cells"
_UNITS, _WORK, _MEASURED = "units", "work", "measured"
_KEY_DIGITS = 16

RunCell = Callable[[Work], CellResult]
"""Compresses by the options that are its payload, into their output folder, which may be there already."""


def run_sweep(options: SweepOptions, run_cell: RunCell) -> SweepReport:
    """Run all cells, and write the folder of the sweep; cells that fail are in the report.

    Raises:
        UsageError: the file, an option or a journal that is there is not accepted.
        OutputError: the output exists already or cannot be written.
        KeyboardInterrupt: that of the user, with what is kept.
    """
    if options.folder is None:
        raise UsageError("no output folder was given; accepted is output=, the folder to write")
    plan = read_sweep(options.spec)
    cells = _asked(options, cells_of(plan, options.command))
    _check(options, plan, cells)
    check_devices(plan.devices)
    store = Store(None if options.cache is None else Path(options.cache).absolute())
    store.check()
    journals = Journals(journal_folder(options.folder.absolute()), {"journal of": "edgeprune sweep"})
    journals.place(_UNITS, "finished cells").mkdir(exist_ok=True)
    with claimed(journals.folder) as is_ours:
        if not is_ours:
            raise UsageError(
                f"another process works on the sweep in {str(journals.folder)!r}; wait until it has "
                "ended, or name another output with -o"
            )
        return _swept(options, plan, cells, journals, _units(in_turn(cells), journals, store, run_cell))


def _asked(options: SweepOptions, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The cells that ``only`` names, and with ``resume`` those that the output has already, which stay."""
    named = only(cells, options.only)
    there = finished_cells(options.folder) if options.resume and options.folder is not None else {}
    return tuple(cell for cell in cells if cell in named or cell.key in there)


def _swept(
    options: SweepOptions, plan: SweepPlan, cells: Sequence[Cell], journals: Journals, units: Sequence[Unit]
) -> SweepReport:
    began_s = time.monotonic()
    assert options.folder is not None
    try:
        with watching(len(units)) as watcher:
            journal = UnitJournal(journals.folder / _UNITS, CellResult)
            if options.resume:
                take_earlier(options.folder.absolute(), units, journal)
            outcomes = run_journaled(_executor(options, plan), units, journal, None, watcher)
        report = _report(options, plan, cells, outcomes)
        report = replace(report, on_devices=_on_devices(plan, cells, report, journals))
        report = replace(report, duration_s=time.monotonic() - began_s)
        report = _write(report, plan, cells, journals.folder, options)
    except BaseException as error:
        kept = _kept(journals)
        if isinstance(error, KeyboardInterrupt) and kept:
            raise KeyboardInterrupt(f"{kept}; run the same command with --resume to go on") from error
        if kept:
            _log.warning("%s; --resume goes on from there", kept)
        raise
    if not report.failed and not report.unmeasured:
        journals.remove()
    return report


def _check(options: SweepOptions, plan: SweepPlan, cells: Sequence[Cell]) -> None:
    """Check everything that can be known before work starts."""
    check_address(options.executor, options.ray_address)
    if options.executor is ExecutorKind.RAY and any(cell.measures for cell in cells):
        raise UsageError(
            "--executor ray was given, and the sweep has the target host, whose times are measured where a "
            "cell happens to run; accepted there are other targets, or --executor local"
        )
    _check_cells(cells)
    read = {"sweep file": plan.source, **{k: v for cell in cells for k, v in read_by(cell.options).items()}}
    assert options.folder is not None
    there = options.resume and bool(finished_cells(options.folder))
    check_journal(options.folder, resume=options.resume, reads=read, finished=there)
    outputs.check_destination(options.folder, overwrite=options.overwrite, reads=read)


def _check_cells(cells: Sequence[Cell]) -> None:
    """Raise where no cell can work; one that cannot beside others that can will say so in its place."""
    refused: list[EdgepruneError] = []
    for cell in cells:
        try:
            check_options(cell.options)
        except EdgepruneError as error:
            refused.append(error)
    if len(refused) == len(cells):
        raise refused[0]


def _executor(options: SweepOptions, plan: SweepPlan) -> Executor:
    return executor_of(
        options.executor,
        options.ray_address,
        options.max_parallel,
        memory_bytes=options.memory_limit_bytes,
        threads=plan.settings.threads,
    )


def _units(cells: Sequence[Cell], journals: Journals, store: Store, run_cell: RunCell) -> tuple[Unit, ...]:
    journals.place(_WORK, "cells").mkdir(exist_ok=True)
    return tuple(
        Unit(
            name=cell.name,
            key=cell.key,
            function=run_cell,
            payload=replace(cell.options, output=_work_folder(journals.folder, cell), cache=store.folder),
            seed=cell.options.seed,
            cores=cell.options.threads or 1,
            alone=cell.measures,
        )
        for cell in cells
    )


def _report(
    options: SweepOptions, plan: SweepPlan, cells: Sequence[Cell], outcomes: Sequence[Outcome]
) -> SweepReport:
    by_name = {outcome.unit.name: outcome for outcome in outcomes}
    reports = with_fronts([_cell_report(cell, by_name[cell.name]) for cell in cells])
    results = [o.result for o in outcomes if o.failure is None]
    return SweepReport(
        schema_version=SWEEP_SCHEMA_VERSION,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        source=str(options.spec),
        source_sha256=sha256_file(plan.source),
        command=options.command,
        cells=reports,
        best=best_cells(reports),
        shared=shared_stages([use for result in results for use in result.uses]),
        seed=plan.settings.seed,
        threads=plan.settings.threads,
        executor=options.executor.value,
        max_parallel=options.max_parallel,
        duration_s=0.0,
        machine=machine_description(),
        versions=package_versions(),
        notes=_notes(options, plan, outcomes),
    )


def _notes(options: SweepOptions, plan: SweepPlan, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    notes = [f"Budgets: {'; '.join(map(budget_words, plan.budgets))}."]
    if options.only is not None:
        notes.append(f"Only cells that {options.only} names were run (--only).")
    if before := sum(outcome.attempts == 0 for outcome in outcomes):
        notes.append(f"{count_words(before, 'cell')} of an earlier session; the duration is of the last one.")
    return tuple(notes)


def _on_devices(
    plan: SweepPlan, cells: Sequence[Cell], report: SweepReport, journals: Journals
) -> tuple[CellOnDevice, ...]:
    done = {cell.name for cell in report.cells if cell.state is CellState.DONE}
    delivered = [(cell, _work_folder(journals.folder, cell)) for cell in cells if cell.name in done]
    records = journals.place(_MEASURED, "measurements on devices")
    records.mkdir(exist_ok=True)
    how = RunSettings(threads=plan.settings.threads or 1, seed=plan.settings.seed)
    return measured(plan.devices, delivered, records, how)


def _work_folder(journal: Path, cell: Cell) -> Path:
    """Where the process of a cell writes."""
    return journal / _WORK / cell.key[:_KEY_DIGITS]


def _cell_report(cell: Cell, outcome: Outcome) -> CellReport:
    failure, result = outcome.failure, outcome.result
    told = CellReport(
        name=cell.name,
        key=cell.key,
        model=cell.model,
        target=cell.target,
        budget=cell.budget,
        precision=cell.precision,
        state=CellState.DONE if failure is None else CellState.FAILED,
        attempts=outcome.attempts,
        duration_s=outcome.duration_s if result is None else result.duration_s,
    )
    if failure is not None:
        if failure.traceback:
            _log.info("%s: %s", cell.name, failure.traceback)
        return replace(told, failure=failure.sentence, exit_status=failure.exit_status)
    return replace(told, figures=result.figures, folder=f"{CELLS}/{cell.name}")


def _write(
    report: SweepReport, plan: SweepPlan, cells: Sequence[Cell], journal: Path, options: SweepOptions
) -> SweepReport:
    """The folder of the sweep, whole or not at all; what the journal has stays there meanwhile."""
    assert options.folder is not None
    done = {cell.name for cell in report.cells if cell.state is CellState.DONE}
    with outputs.staged_output(options.folder, options.overwrite) as staging:
        for cell in cells:
            if cell.name in done:
                link_folder(_work_folder(journal, cell), staging / CELLS / cell.name)
        written = write_sweep(report, staging)
        inputs: dict[str, Any] = {str(plan.source): report.source_sha256}
        outputs.write_manifest(
            staging, inputs=inputs | {}, seed=report.seed, command=report.command, versions=report.versions
        )  # fmt: skip
    return written


def _kept(journals: Journals) -> str:
    """What a sweep that was stopped leaves in its journal; where that is nothing, the journal goes."""
    finished = len(list((journals.folder / _UNITS).glob("*.json")))
    if not finished and not list((journals.folder / _WORK).glob("*")):
        journals.remove()
        return ""
    return f"{count_words(finished, 'finished cell')} kept in {journals.folder}"
