"""``edgeprune schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.artifacts.choices import JsonDocument
from edgeprune.cli.process.session import begin, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.errors import OutputError
from edgeprune.storage.files import atomic_write_bytes

Document = Annotated[
    JsonDocument,
    typer.Argument(metavar="DOCUMENT", help=f"Which file: {', '.join(d.value for d in JsonDocument)}."),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write it there. Default: print it."),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace an existing file.")]


def schema(
    context: typer.Context,
    document: Document,
    output: Output = None,
    overwrite: Overwrite = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Print the JSON Schema of report.json, ranking.json, sweep.json or manifest.json."""
    session = begin(context, verbose, quiet)
    from edgeprune.reporting.schemas import json_schema

    if output is not None and output.exists() and not overwrite:
        raise OutputError(
            f"{str(output)!r} is there already, and stays; name another file, or add --overwrite"
        )
    text = json.dumps(json_schema(document), indent=2) + "\n"
    if output is None:
        print(text, end="")
        return
    atomic_write_bytes(output, text.encode(), overwrite=overwrite)
    session.say_written(output)
    if as_json:
        show_json({"path": str(output)})
