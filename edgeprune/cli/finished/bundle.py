"""``edgeprune bundle``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, command

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="OUT_OR_MODEL.onnx...",
        help="ONNX files, or output folders of compress; all are compared with the first.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="BENCH.tar.gz", help="The bundle to write.", rich_help_panel=opt.RUN_PANEL
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        parser=limits.BATCH_SIZE.reader("--batch-size"),
        help="Images in a batch. Default: that of the file, or 1.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Replace the output file.", rich_help_panel=opt.RUN_PANEL),
]


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The files, and how they are to be measured."""

    models: Models
    output: Output
    batch_size: BatchSize = None
    threads: opt.Threads = None
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class BundleArguments(SpokenArguments, FileArguments):
    """All arguments of ``bundle``."""


@command(BundleArguments)
def bundle(session: Session, given: BundleArguments) -> None:
    """Pack ONNX files with a measuring script, for a device without a network."""
    import torch

    from edgeprune import api
    from edgeprune.reporting.formatting import count_words

    quiet_libraries(session)
    names = api.bundle(
        given.models,
        output=given.output,
        threads=given.threads,
        batch_size=given.batch_size,
        overwrite=given.overwrite,
    )
    session.say_written(given.output, what="the bundle")
    if given.as_json:
        show_json({"models": names})
    else:
        count = given.threads or torch.get_num_threads()
        show(
            f"copy it to the device, unpack it, run 'sh run.sh' there; models: {', '.join(names)}, each with "
            f"{count_words(count, 'thread')}"
        )
