"""``edgeprune inspect``."""

from __future__ import annotations

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.session import begin, quiet_libraries, show, show_json
from edgeprune.config import parse_input_shape


def inspect(
    context: typer.Context,
    model: opt.Model,
    arch: opt.Arch = None,
    weights: opt.Weights = None,
    trust_pickle: opt.TrustPickle = False,
    input_shape: opt.InputShape = None,
    calibration: opt.Calibration = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Show layers, channels, coupled groups, MACs, parameters, and what cannot be pruned and why."""
    session = begin(context, verbose, quiet)
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
    )
    if as_json:
        show_json(result)
    else:
        show(result.render())
