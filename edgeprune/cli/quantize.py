"""``edgeprune quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.artifacts.quantization import Precision, RangeMethod
from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.options.project_file import PreprocessingOptions
from edgeprune.options.quantities import parse_duration, parse_points
from edgeprune.showing import for_people

OnnxModel = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The 32-bit ONNX file to quantize.")]
Bits = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="int8|auto|fp16",
        help="int8; auto for what is fastest of 8 and 32 bits piece by piece, measured here; fp16 for "
        "weights "
        "that are stored in 16 bits.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Ranges = Annotated[
    RangeMethod,
    typer.Option(
        "--ranges",
        metavar="|".join(m.value for m in RangeMethod),
        help="Which part of the values seen an 8-bit scale covers: all of it, all but 0.01% at either end, "
        "or what costs least squared error.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float",
        metavar="NODE",
        help="Name of a node that stays in 32 bits; may be given several times.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE.onnx",
        help="Default: MODEL-PRECISION.onnx in the current folder.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Replace the output file.", rich_help_panel=opt.RUN_PANEL),
]


def quantize(
    context: typer.Context,
    model: OnnxModel,
    calibration: opt.Calibration = None,
    card: opt.Card = None,
    resize: opt.Resize = None,
    crop: opt.Crop = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channel_order: opt.Order = None,
    max_images: opt.MaxImages = None,
    held_out: opt.HeldOut = 0.25,
    target: opt.Target = None,
    precision: Bits = Precision.INT8,
    ranges: Ranges = RangeMethod.MSE,
    keep_float: KeepFloat = None,
    max_drop: opt.MaxDrop = None,
    output: OutputFile = None,
    overwrite: Overwrite = False,
    seed: opt.Seed = None,
    threads: opt.Threads = None,
    timeout: opt.Timeout = opt.RUN_TIMEOUT,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Write an ONNX file in 8 or 16 bits, and judge it on images that are kept back."""
    session = begin(context, verbose, quiet)
    timeout_s = parse_duration(timeout, option="--timeout")
    config = settings.project_config(str(model), session)
    limit = None if max_drop is None else parse_points(max_drop, option="--max-drop")
    device = settings.first_given(target, config.target or "host")
    from edgeprune.targets import load_target

    load_target(device)
    data = settings.choose_calibration(calibration, str(model), config, session)
    asked = PreprocessingOptions(card=card, resize=resize, crop=crop, channel_order=channel_order)
    preprocessing = settings.choose_preprocessing(data, asked, mean, std, config)
    written = output or Path(f"{model.stem}-{precision.value}.onnx")

    from edgeprune import api

    quiet_libraries(session)
    result = api.quantize(
        model,
        calibration=data,
        output=written,
        precision=precision,
        target=device,
        method=ranges,
        preprocessing=preprocessing,
        max_images=max_images,
        held_out_fraction=held_out,
        max_drop_points=limit,
        kept_float=tuple(keep_float or ()),
        timeout_s=timeout_s,
        threads=threads or config.threads,
        seed=seed if seed is not None else config.seed or 0,
        overwrite=overwrite,
    )
    session.say(f"written to {written}")
    return show_json(result) if as_json else show(for_people(result).render())
