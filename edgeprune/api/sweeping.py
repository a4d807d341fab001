"""Many compressions as one: ``sweep``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from edgeprune.api.networks import compress_with_uses
from edgeprune.artifacts.report import RunReport
from edgeprune.caching.store import Origin, Use
from edgeprune.commands.run.resume import journal_folder
from edgeprune.commands.sweep.figures import figures_of
from edgeprune.commands.sweep.sweeping import run_sweep
from edgeprune.errors import UsageError
from edgeprune.executors.units import Work
from edgeprune.options.bounds import check_bounds
from edgeprune.options.runs import CompressOptions
from edgeprune.options.signatures import called_with
from edgeprune.options.sweep.sweeps import SweepOptions
from edgeprune.reporting.json_report import read_json
from edgeprune.reporting.sweep.facts import CellResult, StageUse, SweepReport
from edgeprune.storage.outputs import read_manifest

_REPORT_NAME = "report.json"
_NO_USES: tuple[Use, ...] = ()


@called_with(SweepOptions)
def sweep(options: SweepOptions) -> SweepReport:
    """Compress models for targets within budgets and in precisions: every combination is a cell.

    Each cell is a :func:`compress` in a process of its own; they share what is the same through the cache.
    One that fails does not stop others; it is among ``failed`` of the result, and ``resume`` tries it again.

    Args:
        spec: the sweep file; see ``docs/sweep.md``.
        output: folder to write; it appears whole or not at all, once every cell has ended.
        only: a pattern that names of cells have to fit, such as ``*_rpi4_*``; all cells where ``None``.
        max_parallel: most cells at once; what cores and memory allow where ``None``.
        memory_limit_bytes: memory of all cells together; four fifths of this machine's where ``None``.
        executor: processes of this machine, or a cluster of Ray.
        ray_address: of a cluster that runs; one on this machine, for the sweep, where ``None``.
        cache: folder of the results that cells share; that of the user where ``None``.
        resume: go on with a sweep that was stopped, or of which cells failed.

    Raises:
        UsageError: the sweep file has a key or a value that is not accepted; names it.
        OutputError: ``output`` exists already, or cannot be written.
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return sweep_file(options)


def sweep_file(options: SweepOptions) -> SweepReport:
    """:func:`sweep` with its options in one."""
    check_bounds(options)
    return run_sweep(replace(options, command=options.command or "edgeprune.sweep (Python API)"), run_cell)


def run_cell(work: Work) -> CellResult:
    """One compression by the options that are its payload.

    An output that is there, which appears whole or not at all, is taken as it is; a journal beside it is gone
    on with.
    """
    options: CompressOptions = work.payload
    began_s = time.monotonic()
    assert options.folder is not None
    report, uses = _finished(options.folder), _NO_USES
    if report is None:
        begun = journal_folder(options.folder).exists()
        report, uses = compress_with_uses(replace(options, resume=begun, overwrite=True))
    return CellResult(
        figures=figures_of(report), uses=tuple(map(_use, uses)), duration_s=time.monotonic() - began_s
    )


def _finished(folder: Path) -> RunReport | None:
    if read_manifest(folder) is None:
        return None
    try:
        return read_json(folder / _REPORT_NAME)
    except UsageError:
        return None


def _use(use: Use) -> StageUse:
    return StageUse(
        stage=use.stage.value,
        digest=use.digest,
        computed=use.origin is Origin.COMPUTED,
        duration_s=use.duration_s,
        damaged=use.damaged,
    )
