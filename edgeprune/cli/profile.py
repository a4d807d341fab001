"""``edgeprune profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.cli import options as opt
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.options.quantities import parse_duration
from edgeprune.showing import for_people

OnnxModel = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file to profile.")]
Baseline = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="OTHER.onnx",
        help="Compare with this ONNX file by interleaved pairs of runs.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        metavar="N",
        parser=limits.BATCH_SIZE.reader("--batch-size"),
        help="Images in a batch.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]


def profile(
    context: typer.Context,
    model: OnnxModel,
    target: opt.Target = None,
    baseline: Baseline = None,
    batch_size: BatchSize = 1,
    threads: opt.Threads = None,
    timeout: opt.Timeout = opt.RUN_TIMEOUT,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Measure an ONNX file on this host, and predict its latency on a target."""
    session = begin(context, verbose, quiet)
    timeout_s = parse_duration(timeout, option="--timeout")
    from edgeprune.targets import load_target

    device = "host" if target is None else target
    load_target(device)
    from edgeprune import api

    quiet_libraries(session)
    result = api.profile(
        model,
        target=device,
        baseline=baseline,
        threads=threads,
        batch_size=batch_size,
        timeout_s=timeout_s,
    )
    if as_json:
        show_json(result)
    else:
        show(for_people(result).render())
