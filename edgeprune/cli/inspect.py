"""``edgeprune inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.artifacts.choices import AttentionUnit
from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.errors import UsageError
from edgeprune.options.project_file import parse_input_shapes
from edgeprune.showing import for_people

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
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="CxHxW",
        help="Channels, height and width of one image, such as 3x224x224. A model with several inputs takes "
        "it once for each of them. Default: from the model or the calibration set.",
        rich_help_panel=opt.MODEL_PANEL,
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
    input_shape: InputShapes = None,
    calibration: opt.Calibration = None,
    attention_unit: opt.AttentionPlayers = AttentionUnit.HEAD_DIMENSIONS,
    prune_normalized: opt.PruneNormalized = False,
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
    shape = parse_input_shapes(input_shape) if input_shape is not None else config.input_shape

    from edgeprune import api

    quiet_libraries(session)
    result = api.inspect(
        model,
        architecture=settings.first_given(arch, config.arch),
        weights=weights,
        trust_pickle=trust_pickle,
        input_shape=shape,
        calibration=settings.calibration_for_shape(calibration, shape, model, config),
        attention_unit=attention_unit,
        prune_normalized=prune_normalized,
        graph=graph,
        overwrite=overwrite,
    )
    if as_json:
        show_json(result)
    else:
        show(for_people(result).render())
