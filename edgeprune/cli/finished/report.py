"""``edgeprune report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process.session import begin, show_json
from edgeprune.cli.shared import options as opt

Compressed = Annotated[Path, typer.Argument(metavar="FOLDER", help="What compress wrote.")]


def report(
    context: typer.Context,
    folder: Compressed,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Write report.html of an output folder anew from its report.json, without pictures."""
    session = begin(context, verbose, quiet)
    from edgeprune.commands.report.page_file import rebuild_page

    page = rebuild_page(folder)
    session.say_written(page)
    if as_json:
        show_json({"path": str(page)})
