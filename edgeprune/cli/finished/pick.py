"""``edgeprune pick``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process.session import begin, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.errors import UsageError
from edgeprune.options.quantities import parse_budget
from edgeprune.showing import for_people

Searched = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What compress wrote for a budget, with its candidates.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Copy the candidate's files there. Default: only say which one it is.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


def pick(
    context: typer.Context,
    folder: Searched,
    max_latency: opt.MaxLatency = None,
    max_size: opt.MaxSize = None,
    max_memory: opt.MaxMemory = None,
    max_drop: opt.MaxDrop = None,
    output: Output = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Pick another model from the candidates of a search, without searching again."""
    session = begin(context, verbose, quiet)
    budget = parse_budget(max_latency, max_size, max_memory, max_drop)
    if budget.is_empty:
        raise UsageError(
            "no limit was given; accepted are --max-latency, --max-size, --max-memory and --max-drop"
        )
    from edgeprune.artifacts.report import Grade
    from edgeprune.commands.pick.picking import pick_candidate
    from edgeprune.reporting.headline import advice_in_words

    picked = pick_candidate(folder, budget, output=output, overwrite=overwrite, command=session.command_line)
    if output is not None:
        session.say_written(output, what=picked.budget.chosen)
    if picked.usability.grade is not Grade.USABLE:
        session.say(f"warning: {picked.usability.headline}; {advice_in_words(picked.usability)}")
    if as_json:
        return show_json({"usability": picked.usability, "budget": picked.budget})
    return show(for_people(picked).render())
