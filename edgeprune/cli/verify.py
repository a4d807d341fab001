"""``edgeprune verify``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.artifacts.choices import HOST
from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import (
    DataArguments,
    MachineArguments,
    SpokenArguments,
    TimeoutArguments,
    command,
)
from edgeprune.showing import for_people

First = Annotated[
    str, typer.Argument(metavar="A", help="The reference: an .onnx file, or a model as compress takes it.")
]
Second = Annotated[
    str | None,
    typer.Argument(
        metavar="[B]", help="What is compared with it; left out with --emulate.", show_default=False
    ),
]
Emulate = Annotated[
    bool,
    typer.Option(
        "--emulate",
        metavar="",
        help="Compare the .onnx file A here with itself on an emulated core of --target: the same results on "
        "its instruction set? Needs qemu-user; fetches 60 MB once.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
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


@dataclass(frozen=True, kw_only=True)
class PairArguments:
    """The two models, and how state_dicts among them are read."""

    first: First
    second: Second = None
    arch: opt.Arch = None
    arch_kwargs: opt.ArchKwargs = None
    weights: opt.Weights = None
    weights_key: opt.WeightsKey = None
    trust_pickle: opt.TrustPickle = False


@dataclass(frozen=True, kw_only=True)
class GoalArguments:
    """Number of images, and tolerance."""

    max_images: Images = 64
    tolerance: Tolerance = 1e-3
    target: opt.Target = None
    emulate: Emulate = False


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(
    SpokenArguments, TimeoutArguments, MachineArguments, GoalArguments, DataArguments, PairArguments
):
    """All arguments of ``verify``."""


@command(VerifyArguments)
def verify(session: Session, given: VerifyArguments) -> None:
    """Compare two models, torch or ONNX: outputs, and where inside they part; status 8 where they differ."""
    timeout_s = given.timeout_s
    config = settings.project_config(given.first, session)
    data = settings.choose_calibration(given.calibration, given.first, config, session)
    preprocessing = given.preprocessing(data, config)

    from edgeprune import api
    from edgeprune.commands.verify.verifying import require

    quiet_libraries(session)
    result = api.verify(
        given.first,
        given.second,
        calibration=data,
        labels=given.labels_or(config),
        preprocessing=preprocessing,
        arch=settings.first_given(given.arch, config.arch),
        arch_kwargs=given.arch_kwargs,
        weights=given.weights,
        weights_key=given.weights_key,
        trust_pickle=given.trust_pickle,
        max_images=given.max_images,
        tolerance=given.tolerance,
        target=given.target or HOST,
        emulate=given.emulate,
        timeout_s=timeout_s,
        threads=given.threads_or(config),
        seed=given.seed_or(config),
    )
    if given.as_json:
        show_json(result)
    else:
        show(for_people(result).render())
    require(result)
