"""``edgeprune verify``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.options.project_file import PreprocessingOptions
from edgeprune.options.quantities import parse_duration
from edgeprune.showing import for_people

First = Annotated[
    str, typer.Argument(metavar="A", help="The reference: an .onnx file, or a model as compress takes it.")
]
Second = Annotated[str, typer.Argument(metavar="B", help="What is compared with it.")]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        metavar="SHARE",
        parser=limits.TOLERANCE.reader("--tolerance"),
        help="Largest error of an output, over the largest output, that passes.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Images = Annotated[
    int,
    typer.Option(
        "--max-images",
        metavar="N",
        parser=replace(limits.IMAGES, least=2).reader("--max-images"),
        help="Compare on at most so many images.",
        rich_help_panel=opt.DATA_PANEL,
    ),
]


def verify(
    context: typer.Context,
    first: First,
    second: Second,
    arch: opt.Arch = None,
    weights: opt.Weights = None,
    trust_pickle: opt.TrustPickle = False,
    calibration: opt.Calibration = None,
    card: opt.Card = None,
    resize: opt.Resize = None,
    crop: opt.Crop = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channel_order: opt.Order = None,
    max_images: Images = 64,
    tolerance: Tolerance = 1e-3,
    seed: opt.Seed = None,
    threads: opt.Threads = None,
    timeout: opt.Timeout = opt.RUN_TIMEOUT,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Compare two models, torch or ONNX: outputs, and where inside they part; status 8 where they differ."""
    session = begin(context, verbose, quiet)
    timeout_s = parse_duration(timeout, option="--timeout")
    config = settings.project_config(first, session)
    data = settings.choose_calibration(calibration, first, config, session)
    asked = PreprocessingOptions(card=card, resize=resize, crop=crop, channel_order=channel_order)
    preprocessing = settings.choose_preprocessing(data, asked, mean, std, config)

    from edgeprune import api
    from edgeprune.commands.verify.verifying import require

    quiet_libraries(session)
    found = api.verify(
        first,
        second,
        calibration=data,
        preprocessing=preprocessing,
        architecture=settings.first_given(arch, config.arch),
        weights=weights,
        trust_pickle=trust_pickle,
        max_images=max_images,
        tolerance=tolerance,
        timeout_s=timeout_s,
        threads=threads or config.threads,
        seed=seed if seed is not None else config.seed or 0,
    )
    if as_json:
        show_json(found)
    else:
        show(for_people(found).render())
    require(found)
