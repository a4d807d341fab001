"""``edgeprune profile``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import SpokenArguments, TimeoutArguments, command
from edgeprune.cli.shared.device_options import DeviceArguments
from edgeprune.options.project_file import parse_input_shape
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
Result = Annotated[
    Path | None,
    typer.Option(
        "--result",
        metavar="RESULT.json",
        help="Times of this file that run.sh of a bundle wrote on a device, in place of a measurement.",
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


@dataclass(frozen=True, kw_only=True)
class FileArguments:
    """The file, its target and baseline, and how to measure."""

    model: OnnxModel
    input_shape: opt.ImageSize = None
    target: opt.Target = None
    baseline: Baseline = None
    result: Result = None
    batch_size: BatchSize = 1
    threads: opt.Threads = None


@dataclass(frozen=True, kw_only=True)
class ProfileArguments(SpokenArguments, TimeoutArguments, DeviceArguments, FileArguments):
    """All arguments of ``profile``."""


@command(ProfileArguments)
def profile(session: Session, given: ProfileArguments) -> None:
    """Measure an ONNX file on this host or on a device, or predict its latency on a target."""
    timeout_s = given.timeout_s
    from edgeprune.targets import load_target

    target = "host" if given.target is None else given.target
    load_target(target)
    device = given.device_for(given.target)
    from edgeprune import api

    quiet_libraries(session)
    result = api.profile(
        given.model,
        input_shape=None if given.input_shape is None else parse_input_shape(given.input_shape),
        target=target,
        device=device,
        result=given.result,
        baseline=given.baseline,
        threads=given.threads,
        batch_size=given.batch_size,
        timeout_s=timeout_s,
    )
    if given.as_json:
        show_json(result)
    else:
        show(for_people(result).render())
