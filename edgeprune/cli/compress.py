"""``edgeprune compress``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import (
    BudgetArguments,
    MachineArguments,
    NetworkArguments,
    SpokenArguments,
    TimeArguments,
    command,
    joined,
)
from edgeprune.cli.shared.device_options import DeviceArguments
from edgeprune.options.project_file import check_ratio, read_ratio
from edgeprune.options.quantities import parse_finetune
from edgeprune.options.runs import CompressOptions
from edgeprune.showing import for_people

Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        metavar="SHARE",
        parser=read_ratio,
        help="Share of the MACs to cut, between 0 and 1. Without it and without a limit below: the fastest "
        "model that loses at most one point, or the original; 0.25 where no point can be told.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Finetuning = Annotated[
    str | None,
    typer.Option(
        "--finetune",
        metavar="STEPS|TIME",
        help="After recovery, learn from the original on the calibration images, without labels: so many "
        "steps (500), or for a time (60s, 2min).",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Folder to write. Default: MODEL-edgeprune in the current folder.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar="", help="Load, rank and plan, but write nothing.", rich_help_panel=opt.RUN_PANEL
    ),
]


@dataclass(frozen=True, kw_only=True)
class GoalArguments(BudgetArguments):
    """Goal of the compression."""

    finetune: Finetuning = None


@dataclass(frozen=True, kw_only=True)
class TargetArguments:
    """Target device, and share of the MACs to cut."""

    target: opt.Target = None
    ratio: Ratio = None


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Output folder, and whether to write it."""

    output: Output = None
    overwrite: opt.Overwrite = False
    dry_run: DryRun = False


@dataclass(frozen=True, kw_only=True)
class CompressArguments(
    SpokenArguments,
    MachineArguments,
    TimeArguments,
    OutputArguments,
    GoalArguments,
    DeviceArguments,
    TargetArguments,
    NetworkArguments,
):
    """All arguments of ``compress``."""


@command(CompressArguments, CompressOptions)
def compress(session: Session, given: CompressArguments) -> None:
    """Prune a trained model, recover it without training, export it to ONNX and report."""
    options = _options(session, given)

    from edgeprune.api import networks

    quiet_libraries(session)
    if given.dry_run:
        plan = networks.plan_network(options)
        return show_json(plan) if given.as_json else show(for_people(plan).render())
    report = networks.compress_network(options)
    from edgeprune.reporting import render_brief, render_terminal

    session.say_written(options.output)
    if given.as_json:
        return show_json(report)
    shown = for_people(report)
    return show(render_terminal(shown) if session.verbosity else render_brief(shown, str(options.output)))


def _options(session: Session, given: CompressArguments) -> CompressOptions:
    """Join command line, project file and defaults; errors in any of them are raised at once."""
    model = given.model
    config = settings.project_config(model, session)
    share = check_ratio(given.ratio) if given.ratio is not None else config.ratio
    training = None if given.finetune is None else parse_finetune(given.finetune, option="--finetune")
    device = settings.first_given(given.target, config.target or "host")
    folder = given.output or settings.default_output(model)
    written = None if given.dry_run else folder
    _check_early(device, written, given.overwrite, {"model": model, "card": given.card})
    return joined(
        CompressOptions,
        given,
        model,
        **given.settled(session, config),
        target=device,
        device=given.device_for(settings.first_given(given.target, config.target)),
        ratio=share,
        finetune=training,
        output=folder,
        seed=given.seed_or(config),
        threads=given.threads_or(config),
        command=session.command_line,
    )


def _check_early(
    target: str, folder: Path | None, overwrite: bool, reads: dict[str, str | Path | None]
) -> None:
    """Reject early what would otherwise fail after the libraries are loaded."""
    from edgeprune.storage.outputs import check_destination
    from edgeprune.targets import load_target

    load_target(target)
    if folder is not None:
        check_destination(folder, overwrite=overwrite, reads=reads)
