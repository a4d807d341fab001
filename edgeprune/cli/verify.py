"""``edgeprune verify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

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
    joined,
)
from edgeprune.options.runs import VerifyOptions
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


@dataclass(frozen=True, kw_only=True)
class PairArguments:
    """The two models, and how state_dicts among them are read."""

    first: First
    second: Second = None
    arch: opt.Arch = None


@dataclass(frozen=True, kw_only=True)
class GoalArguments:
    """Device whose processor is emulated."""

    target: opt.Target = None


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(
    SpokenArguments, TimeoutArguments, MachineArguments, GoalArguments, DataArguments, PairArguments
):
    """All arguments of ``verify``."""


@command(VerifyArguments, VerifyOptions)
def verify(session: Session, given: VerifyArguments) -> None:
    """Compare two models, torch or ONNX: outputs, and where inside they part; status 8 where they differ."""
    config = settings.project_config(given.first, session)
    data = settings.choose_calibration(given.calibration, given.first, config, session)
    options = joined(
        VerifyOptions,
        given,
        given.first,
        given.second,
        calibration=data,
        labels=given.labels_or(config),
        preprocessing=given.preprocessing(data, config),
        arch=settings.first_given(given.arch, config.arch),
        target=given.target or HOST,
        threads=given.threads_or(config),
        seed=given.seed_or(config),
    )

    from edgeprune.api import files
    from edgeprune.commands.verify.verifying import require

    quiet_libraries(session)
    result = files.verify_pair(options)
    if given.as_json:
        show_json(result)
    else:
        show(for_people(result).render())
    require(result)
