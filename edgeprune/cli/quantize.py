"""``edgeprune quantize``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.artifacts.quantization import Precision, RangeMethod
from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, check_page, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import (
    DataArguments,
    MachineArguments,
    SpokenArguments,
    TimeoutArguments,
    command,
    joined,
)
from edgeprune.cli.shared.device_options import DeviceArguments
from edgeprune.options.project_file import parse_input_shape
from edgeprune.options.quantities import parse_points
from edgeprune.options.runs import QuantizeOptions
from edgeprune.showing import for_people

OnnxModel = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The 32-bit ONNX file to quantize.")]
Bits = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="int8|auto|fp16",
        help="int8; auto for what is fastest of 8 and 32 bits piece by piece, measured here, within "
        "--max-drop (else one point), with all weights stored in 8; fp16 for weights stored in 16 bits.",
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


@dataclass(frozen=True, kw_only=True)
class GoalArguments:
    """Format, and maximum loss."""

    target: opt.Target = None
    precision: Bits = Precision.INT8
    ranges: Ranges = RangeMethod.MSE
    keep_float: KeepFloat = None
    max_drop: opt.MaxDrop = None


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Output file."""

    output: OutputFile = None
    overwrite: Overwrite = False
    html: opt.Html = None


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The file to quantize."""

    model: OnnxModel
    input_shape: opt.ImageSize = None


@dataclass(frozen=True, kw_only=True)
class QuantizeArguments(
    SpokenArguments,
    TimeoutArguments,
    MachineArguments,
    OutputArguments,
    DeviceArguments,
    GoalArguments,
    DataArguments,
    FileArguments,
):
    """All arguments of ``quantize``."""


@command(QuantizeArguments, QuantizeOptions)
def quantize(session: Session, given: QuantizeArguments) -> None:
    """Write an ONNX file in 8 or 16 bits, and judge it on images that are kept back."""
    config = settings.project_config(str(given.model), session)
    limit = None if given.max_drop is None else parse_points(given.max_drop, option="--max-drop")
    device = settings.first_given(given.target, config.target or "host")
    from edgeprune.targets import load_target

    load_target(device)
    data = settings.choose_calibration(given.calibration, str(given.model), config, session)
    options = joined(
        QuantizeOptions,
        given,
        given.model,
        calibration=data,
        labels=given.labels_or(config),
        preprocessing=given.preprocessing(data, config),
        input_shape=None if given.input_shape is None else parse_input_shape(given.input_shape),
        output=given.output or Path(f"{given.model.stem}-{given.precision.value}.onnx"),
        target=device,
        device=given.device_for(settings.first_given(given.target, config.target)),
        method=given.ranges,
        max_drop_points=limit,
        kept_float=tuple(given.keep_float or ()),
        threads=given.threads_or(config),
        seed=given.seed_or(config),
    )
    from edgeprune.api import files

    quiet_libraries(session)
    check_page(given.html)
    result = files.quantize_onnx(options)
    session.say_written(options.output)
    if given.html is not None:
        from edgeprune.results.pages import quantization_page

        session.write_page(given.html, quantization_page(result))
    return show_json(result) if given.as_json else show(for_people(result).render())
