"""``edgeprune compress``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.artifacts.quantization import Precision
from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import (
    BudgetArguments,
    EffortArguments,
    MachineArguments,
    NetworkArguments,
    PlayerArguments,
    SpokenArguments,
    TaskArguments,
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
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE.py:FUNCTION",
        help="After recovery, train with your own function: it is called with the pruned network, of your "
        "own class where that allows it, and trains it in place.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
DropBlocks = Annotated[
    bool,
    typer.Option(
        "--drop-blocks/--keep-blocks",
        help="With a limit on costs: also try the network without some residual blocks, or keep them all.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Rounds = Annotated[
    bool,
    typer.Option(
        "--rounds/--one-round",
        help="Beyond 30% of the MACs: rank channels anew once a part is gone and recovered, or all at once, "
        "which is sooner and worse.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
GivenRanking = Annotated[
    Path | None,
    typer.Option(
        "--ranking",
        metavar="FOLDER",
        help="Go by what 'edgeprune rank' wrote for this model and these images instead of ranking again.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
GivenCriterion = Annotated[
    str | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="Rank by this criterion ('edgeprune rank' compares them), or by your own, path/to/file.py:NAME; "
        "with --ranking, go by this one of it. Default: hybrid, else the first one there.",
        autocompletion=opt.complete_criterion,
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Bits = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="|".join(p.value for p in Precision),
        help="How the delivered file is stored; in 8 or 16 bits the 32-bit file is kept beside it.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
WidthQuantum = Annotated[
    int | None,
    typer.Option(
        "--width-quantum",
        metavar="N",
        parser=limits.WIDTH_QUANTUM.reader("--width-quantum"),
        help="Round layer widths to multiples of this. Default: the target's.",
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
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        metavar="",
        help="Go on with a run that was stopped, from what it kept in OUTPUT.journal.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures/--no-pictures",
        help="Put small pictures of calibration images into report.html, or keep them out of it.",
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
class GoalArguments(PlayerArguments, TaskArguments, BudgetArguments):
    """Goal of the compression."""

    finetune: Finetuning = None
    recipe: Recipe = None
    drop_blocks: DropBlocks = True
    rounds: Rounds = True
    ranking: GivenRanking = None
    criterion: GivenCriterion = None
    precision: Bits = Precision.FP32
    width_quantum: WidthQuantum = None
    batch_size: opt.FixedBatch = None


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
    resume: Resume = False
    pictures: Pictures = True
    dry_run: DryRun = False


@dataclass(frozen=True, kw_only=True)
class CompressArguments(
    SpokenArguments,
    MachineArguments,
    EffortArguments,
    OutputArguments,
    GoalArguments,
    DeviceArguments,
    TargetArguments,
    NetworkArguments,
):
    """All arguments of ``compress``."""


@command(CompressArguments)
def compress(session: Session, given: CompressArguments) -> None:
    """Prune a trained model, recover it without training, export it to ONNX and report."""
    options = _options(session, given)

    from edgeprune.api import networks

    quiet_libraries(session)
    if given.dry_run:
        plan = networks.plan_network(options)
        return show_json(plan) if given.as_json else show(for_people(plan).render())
    report = networks.compress_network(options)
    from edgeprune.reporting import render_terminal

    session.say_written(options.output)
    return show_json(report) if given.as_json else show(render_terminal(for_people(report)))


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
