"""``edgeprune inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.session import begin, quiet_libraries, show, show_json
from edgeprune.config import parse_input_shape
from edgeprune.errors import UsageError

GraphFile = Annotated[
    Path | None,
    typer.Option(
        "--graph",
        metavar="FILE",
        help="Draw which channels leave together, which stay and why: an .svg, or an .html with tables to "
        "explore in a browser.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        metavar="",
        help="Replace a drawing that edgeprune made before.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


def inspect(
    context: typer.Context,
    model: opt.Model,
    arch: opt.Arch = None,
    weights: opt.Weights = None,
    trust_pickle: opt.TrustPickle = False,
    input_shape: opt.InputShape = None,
    calibration: opt.Calibration = None,
    graph: GraphFile = None,
    overwrite: Overwrite = False,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Show layers, channels, coupled groups, MACs, parameters, and what cannot be pruned and why."""
    session = begin(context, verbose, quiet)
    if overwrite and graph is None:
        raise UsageError(
            "--overwrite was given without --graph FILE, which it is about; give both or neither"
        )
    config = settings.project_config(model, session)
    shape = parse_input_shape(input_shape) if input_shape else config.input_shape

    from edgeprune import api

    quiet_libraries(session)
    result = api.inspect(
        model,
        architecture=arch or config.arch,
        weights=weights,
        trust_pickle=trust_pickle,
        input_shape=shape,
        calibration=settings.calibration_for_shape(calibration, shape, model, config),
        graph=graph,
        overwrite=overwrite,
    )
    if as_json:
        show_json(result)
    else:
        show(result.render())
