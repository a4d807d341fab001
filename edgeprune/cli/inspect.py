"""``edgeprune inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import ModelArguments, SpokenArguments, command, joined
from edgeprune.errors import UsageError
from edgeprune.options.project_file import parse_input_shapes
from edgeprune.options.runs import InspectOptions
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


@dataclass(frozen=True, kw_only=True)
class ShapeArguments(ModelArguments):
    """The network and the shapes of its inputs."""

    input_shape: InputShapes = None
    calibration: opt.Calibration = None


@dataclass(frozen=True, kw_only=True)
class DrawingArguments:
    """Output file of the drawing."""

    graph: GraphFile = None
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class InspectArguments(SpokenArguments, DrawingArguments, ShapeArguments):
    """All arguments of ``inspect``."""


@command(InspectArguments, InspectOptions)
def inspect(session: Session, given: InspectArguments) -> None:
    """Show layers, channels, coupled groups, MACs, parameters, and what cannot be pruned and why."""
    if given.overwrite and given.graph is None:
        raise UsageError(
            "--overwrite was given without --graph FILE, which it is about; give both or neither"
        )
    config = settings.project_config(given.model, session)
    shape = parse_input_shapes(given.input_shape) if given.input_shape is not None else config.input_shape

    options = joined(
        InspectOptions,
        given,
        given.model,
        arch=settings.first_given(given.arch, config.arch),
        input_shape=shape,
        calibration=settings.calibration_for_shape(given.calibration, shape, given.model, config),
    )

    from edgeprune.api import inspection

    quiet_libraries(session)
    result = inspection.inspect_network(options)
    if given.as_json:
        show_json(result)
    else:
        show(for_people(result).render())
