"""``edgeprune compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process.session import Session, check_page, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, TimeoutArguments, command, joined
from edgeprune.options.gate import CompareOptions
from edgeprune.options.project_file import parse_input_shape
from edgeprune.showing import for_people

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="A B...",
        help="Two or more output folders, report.json files (of any schema) or ONNX files, or two or more "
        "sweeps; differences are against A.",
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option(
        "--markdown", metavar="FILE", help="Also write it as Markdown.", rich_help_panel=opt.RUN_PANEL
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelsArguments:
    """The models, and how and where they are compared."""

    models: Models
    markdown: Markdown = None
    html: opt.Html = None
    input_shape: opt.ImageSize = None
    threads: opt.Threads = None


@dataclass(frozen=True, kw_only=True)
class CompareArguments(SpokenArguments, TimeoutArguments, ModelsArguments):
    """All arguments of ``compare``."""


@command(CompareArguments, CompareOptions)
def compare(session: Session, given: CompareArguments) -> None:
    """Put models side by side: size, work, latency, memory, quality, and their differences with intervals."""
    size = None if given.input_shape is None else parse_input_shape(given.input_shape)
    options = joined(CompareOptions, given, tuple(given.models), input_shape=size, seed=0)
    from edgeprune.api import gate
    from edgeprune.reporting.gate import layouts

    quiet_libraries(session)
    for path in (given.markdown, given.html):
        check_page(path)
    result = gate.compare_files(options)
    for path, layout in (
        (given.markdown, layouts.comparison_markdown),
        (given.html, layouts.comparison_page),
    ):
        if path is not None:
            session.write_page(path, layout(result))
    if given.as_json:
        show_json(result)
    else:
        show(layouts.comparison_terminal(for_people(result)))
