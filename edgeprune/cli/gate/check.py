"""``edgeprune check``: the gate, whose exit status a pipeline obeys."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli.process.session import Session, check_page, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, TimeoutArguments, command, joined
from edgeprune.errors import EdgepruneError, OutputError, UsageError
from edgeprune.options.gate import EXAMPLE, CheckOptions
from edgeprune.options.project_file import parse_input_shape
from edgeprune.options.quantities import parse_duration
from edgeprune.showing import for_people

if TYPE_CHECKING:
    from edgeprune.gate.outcomes import GateResult

_BUDGET_NAME = "budget.toml"
_GITHUB = "GITHUB_ACTIONS"

Checked = Annotated[
    str | None,
    typer.Argument(
        metavar="OUT",
        help="What is checked: an output folder, that of a sweep too, a report.json or an .onnx file.",
    ),
]
Init = Annotated[
    bool,
    typer.Option(
        "--init",
        help=f"Write an example of all limits to {_BUDGET_NAME} (or the file of --budget) and end.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
TimeLimit = Annotated[
    str,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="Longest time to measure latency until its limit is decided.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option(
        "--junit", metavar="FILE", help="Also write it as JUnit XML.", rich_help_panel=opt.RUN_PANEL
    ),
]
Annotations = Annotated[
    bool,
    typer.Option(
        "--annotations",
        help=f"Print workflow commands of GitHub on stderr; the default where {_GITHUB} is true.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Summary = Annotated[
    Path | None,
    typer.Option(
        "--summary",
        metavar="FILE",
        help="Also write it as Markdown of at most 1 MB, as for a job summary.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Comment = Annotated[
    Path | None,
    typer.Option(
        "--comment",
        metavar="FILE",
        help="Also write it as Markdown of at most 64 kB with a hidden mark, as for a comment.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class GateArguments:
    """The model, its limits, and where the result goes."""

    checked: Checked = None
    init: Init = False
    time_limit: TimeLimit = "60s"
    junit: Junit = None
    annotations: Annotations = False
    summary: Summary = None
    comment: Comment = None
    input_shape: opt.ImageSize = None
    threads: opt.Threads = None


@dataclass(frozen=True, kw_only=True)
class CheckArguments(SpokenArguments, TimeoutArguments, GateArguments):
    """All arguments of ``check``."""


@command(CheckArguments, CheckOptions)
def check(session: Session, given: CheckArguments) -> None:
    """Hold a model against limits and a baseline: status 0 pass, 1 fail, 2 error, 3 inconclusive."""
    try:
        longest_s = parse_duration(given.time_limit, option="--time-limit")
        size = None if given.input_shape is None else parse_input_shape(given.input_shape)
        options = joined(CheckOptions, given, given.checked, time_limit_s=longest_s, input_shape=size, seed=0)
        if given.init:
            return _write_example(options.budget_file or Path(_BUDGET_NAME), session)
        result = _checked(session, given, options)
        _write(result, given)
        if given.as_json:
            show_json({"decision": result.decision, "exit_status": result.exit_status, "result": result})
        else:
            from edgeprune.reporting.gate.layouts import gate_terminal

            show(gate_terminal(for_people(result)))
    except EdgepruneError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(str(error)) from error  # 1 and 3 are outcomes here: every error is 2
    raise typer.Exit(result.exit_status)


def _write_example(path: Path, session: Session) -> None:
    from edgeprune.storage.files import atomic_write_bytes

    if path.exists():
        raise OutputError(f"{str(path)!r} is there already, and stays; name another file with --budget")
    atomic_write_bytes(path, EXAMPLE.encode(), overwrite=False)
    session.say_written(path)


def _checked(session: Session, given: CheckArguments, options: CheckOptions) -> GateResult:
    if given.checked is None:
        raise UsageError("no model was given; name an output folder, a report.json or an .onnx file")
    from edgeprune.api import gate

    quiet_libraries(session)
    for path in (given.junit, given.summary, given.comment):
        check_page(path)
    return gate.check_file(options)


def _write(result: GateResult, given: CheckArguments) -> None:
    """The files that were asked for, and annotations."""
    from edgeprune.reporting.gate import ci, layouts
    from edgeprune.storage.files import atomic_write_text

    if given.junit is not None:
        atomic_write_text(given.junit, ci.gate_junit(result))
    if given.summary is not None:
        text = layouts.within(layouts.gate_markdown(result), layouts.SUMMARY_BYTES)
        atomic_write_text(given.summary, text)
    if given.comment is not None:
        atomic_write_text(given.comment, layouts.gate_comment(result))
    if given.annotations or os.environ.get(_GITHUB) == "true":
        for line in ci.gate_annotations(result):
            sys.stderr.write(f"{line}\n")
