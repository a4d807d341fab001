"""``edgeprune rank``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.artifacts.choices import (
    DEFAULT_CRITERION,
    GAME_MEMORY_BYTES,
    RankedPlayers,
)
from edgeprune.cli.process import settings
from edgeprune.cli.process.session import Session, quiet_libraries, show, show_json
from edgeprune.cli.shared import options as opt
from edgeprune.cli.shared.arguments import (
    MachineArguments,
    NetworkArguments,
    SpokenArguments,
    TimeArguments,
    command,
    joined,
)
from edgeprune.importance.registry import BUILT_IN_NAMES
from edgeprune.options.project_file import (
    check_players,
    check_ratio,
    check_recover_at,
    read_ratio,
    read_share,
)
from edgeprune.options.quantities import parse_bytes
from edgeprune.options.runs import RankOptions
from edgeprune.showing import for_people

Criteria = Annotated[
    list[str] | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="What to rank by; give it several times to compare side by side. Default: "
        f"{DEFAULT_CRITERION}. Also {', '.join(n for n in BUILT_IN_NAMES if n != DEFAULT_CRITERION)}, "
        "those of plug-ins (docs/criteria.md), or your own: path/to/file.py:NAME.",
        autocompletion=opt.complete_criterion,
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME",
        help="Rank only the channels of this layer, everyone else present; may be given several times. "
        "Default: all layers.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        metavar="SHARE",
        parser=read_ratio,
        help="Share of the MACs that is to go, which coalition sizes follow; between 0 and 1. Default: 0.25.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Players = Annotated[
    RankedPlayers,
    typer.Option(
        "--players",
        help="What is valued: channels, or whole residual blocks (exactly, up to 14 of them).",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Memory for activations of layer-shapley and of blocks, such as 2GB or 500MiB. Default: 1GiB.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]
RecoverAt = Annotated[
    list[float] | None,
    typer.Option(
        "--recover-at",
        metavar="SHARE",
        parser=read_share,
        help="Recover the network of each criterion for real with this share of the MACs removed, and judge "
        "it; may be given several times. Takes as long as in compress, each time.",
        rich_help_panel=opt.GOAL_PANEL,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="Folder to write. Default: MODEL-ranking in the current folder.",
        rich_help_panel=opt.RUN_PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class GoalArguments:
    """What to rank, and by what."""

    criterion: Criteria = None
    layer: Layers = None
    ratio: Ratio = None
    recover_at: RecoverAt = None
    players: Players = RankedPlayers.CHANNELS


@dataclass(frozen=True, kw_only=True)
class OutputArguments:
    """Output folder, and memory limit."""

    memory_limit: MemoryLimit = None
    output: Output = None
    overwrite: opt.Overwrite = False


@dataclass(frozen=True, kw_only=True)
class RankArguments(
    SpokenArguments,
    MachineArguments,
    TimeArguments,
    OutputArguments,
    GoalArguments,
    NetworkArguments,
):
    """All arguments of ``rank``."""


@command(RankArguments, RankOptions)
def rank(session: Session, given: RankArguments) -> None:
    """Value every channel by one or several criteria, and plot what is lost while filters go."""
    options = _options(session, given)

    from edgeprune.api import networks

    quiet_libraries(session)
    report = networks.rank_channels(options)
    from edgeprune.reporting.ranking.words import render_ranking

    session.say_written(options.output)
    return show_json(report) if given.as_json else show(render_ranking(for_people(report)))


def _options(session: Session, given: RankArguments) -> RankOptions:
    """Join command line, project file and defaults; errors in any of them are raised at once."""
    model = given.model
    config = settings.project_config(model, session)
    share = check_ratio(given.ratio) if given.ratio is not None else config.ratio
    memory_limit_bytes = GAME_MEMORY_BYTES
    if given.memory_limit is not None:
        memory_limit_bytes = parse_bytes(given.memory_limit, option="--memory-limit")
    criteria, layers = tuple(given.criterion or ()), tuple(given.layer or ())
    recover_at = tuple(dict.fromkeys(given.recover_at or ()))
    check_players(given.players, criteria, layers)
    check_recover_at(recover_at, given.players)
    folder = given.output or settings.default_output(model, kind="ranking")
    _check_early(criteria, folder, given.overwrite, {"model": model, "card": given.card})
    return joined(
        RankOptions,
        given,
        model,
        **given.settled(session, config),
        criteria=criteria or (DEFAULT_CRITERION,),
        layers=layers,
        ratio=share,
        memory_limit_bytes=memory_limit_bytes,
        recover_at=recover_at,
        output=folder,
        seed=given.seed_or(config),
        threads=given.threads_or(config),
        command=session.command_line,
    )


def _check_early(
    criteria: tuple[str, ...], folder: Path, overwrite: bool, reads: dict[str, str | Path | None]
) -> None:
    """Reject early what would otherwise fail after the libraries are loaded."""
    from edgeprune.importance.registry import criterion, criterion_names
    from edgeprune.storage.outputs import check_destination

    for name in criteria:
        if name not in criterion_names():
            criterion(name)
    check_destination(folder, overwrite=overwrite, reads=reads)
