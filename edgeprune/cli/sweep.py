"""``edgeprune sweep``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, command, joined
from edgeprune.errors import BudgetError, SweepError
from edgeprune.options.quantities import parse_bytes
from edgeprune.options.sweep.sweeps import SweepOptions
from edgeprune.showing import for_people

if TYPE_CHECKING:
    from edgeprune.reporting.sweep.facts import SweepReport

Spec = Annotated[
    str, typer.Argument(metavar="SWEEP.toml", help="Models, targets, budgets and precisions: docs/sweep.md.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Memory of all cells together, such as 12GB. Default: four fifths of this machine's.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Folder to write. Default: NAME-sweep in the current folder.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class WhatArguments:
    """The file, the folder, and the memory."""

    spec: Spec
    memory_limit: MemoryLimit = None
    output: Output = None
    overwrite: opt.Overwrite = False


@dataclass(frozen=True, kw_only=True)
class SweepArguments(SpokenArguments, WhatArguments):
    """All arguments of ``sweep``."""


@command(SweepArguments, SweepOptions)
def sweep(session: Session, given: SweepArguments) -> None:
    """Compress models for targets within budgets and in precisions: every combination, side by side."""
    options = _options(session, given)

    from edgeprune.api import sweeping

    quiet_libraries(session)
    report = sweeping.sweep_file(options)
    from edgeprune.reporting.sweep.words import render_sweep

    session.say_written(options.output)
    if given.as_json:
        show_json(report)
    else:
        show(render_sweep(for_people(report)))
    if report.failed:
        raise SweepError(
            f"{len(report.failed)} of {len(report.cells)} cells failed, the first of them "
            f"{report.failed[0].name}: {report.failed[0].failure}; {_what_now(report, options.output)}"
        )
    if report.unmeasured:
        lacking = report.unmeasured
        raise SweepError(
            f"{len(lacking)} of {len(report.on_devices)} measurements on devices failed, the first of them "
            f"{lacking[0].cell} on {lacking[0].device}: {lacking[0].failure}; all cells are in "
            f"{options.output}, and the same command with --resume --overwrite measures these again"
        )


def _what_now(report: SweepReport, output: str | Path | None) -> str:
    """What was written, and what makes the failed cells succeed."""
    written = "their reasons are in" if len(report.failed) == len(report.cells) else "the others are in"
    asked_too_much = all(cell.exit_status == BudgetError.exit_status for cell in report.failed)
    change = "with other budgets " if asked_too_much else ""
    return f"{written} {output}, and the same command {change}with --resume --overwrite tries these again"


def _options(session: Session, given: SweepArguments) -> SweepOptions:
    memory_limit = given.memory_limit
    limit = None if memory_limit is None else parse_bytes(memory_limit, option="--memory-limit")
    folder = given.output or Path(f"{Path(given.spec).stem}-sweep")
    _check_early(given.spec, folder, given.overwrite)
    return joined(
        SweepOptions,
        given,
        given.spec,
        memory_limit_bytes=limit,
        output=folder,
        command=session.command_line,
    )


def _check_early(spec: str, folder: Path, overwrite: bool) -> None:
    """Reject early what would otherwise fail after the libraries are loaded."""
    from edgeprune.options.sweep.sweep_file import read_sweep
    from edgeprune.storage.outputs import check_destination
    from edgeprune.targets import load_target

    for target in read_sweep(spec).targets:
        load_target(target)
    check_destination(folder, overwrite=overwrite, reads={"sweep file": spec})
