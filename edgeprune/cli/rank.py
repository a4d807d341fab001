"""``edgeprune rank``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune import limits
from edgeprune.artifacts.choices import AttentionUnit, Effort, RankedPlayers
from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.importance.registry import DEFAULT
from edgeprune.options.project_file import (
    PreprocessingOptions,
    check_players,
    check_ratio,
    check_recover_at,
    parse_input_shape,
    read_ratio,
    read_share,
)
from edgeprune.options.quantities import parse_bytes, parse_duration
from edgeprune.showing import for_people

Criteria = Annotated[
    list[str] | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="What to rank by; give it several times to compare side by side. Default: hybrid. Also "
        "layer-shapley, l1, l2, bn-scale, fpgm, apoz, taylor, leave-one-out, activation-weight, random and "
        "more (docs/ranking.md), or your own: path/to/file.py:NAME.",
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
MaxEvaluations = Annotated[
    int | None,
    typer.Option(
        "--max-evaluations",
        metavar="N",
        parser=limits.EVALUATIONS.reader("--max-evaluations"),
        help="Most batch passes that each criterion may make. Default: what it takes for a good estimate.",
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
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        metavar="",
        help="Go on with the coalition values that a stopped run left in OUTPUT.journal.",
        rich_help_panel=opt.RUN_PANEL,
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


def rank(
    context: typer.Context,
    model: opt.Model,
    arch: opt.Arch = None,
    weights: opt.Weights = None,
    trust_pickle: opt.TrustPickle = False,
    input_shape: opt.InputShape = None,
    calibration: opt.Calibration = None,
    card: opt.Card = None,
    resize: opt.Resize = None,
    crop: opt.Crop = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channel_order: opt.Order = None,
    max_images: opt.MaxImages = None,
    held_out: opt.HeldOut = 0.25,
    criterion: Criteria = None,
    layer: Layers = None,
    ratio: Ratio = None,
    max_evaluations: MaxEvaluations = None,
    effort: opt.EffortOption = Effort.NORMAL,
    max_time: opt.MaxTime = None,
    players: Players = RankedPlayers.CHANNELS,
    memory_limit: MemoryLimit = None,
    recover_at: RecoverAt = None,
    resume: Resume = False,
    attention_unit: opt.AttentionPlayers = AttentionUnit.HEAD_DIMENSIONS,
    prune_normalized: opt.PruneNormalized = False,
    output: Output = None,
    overwrite: opt.Overwrite = False,
    seed: opt.Seed = None,
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Value every channel by one or several criteria, and plot what is lost while filters go."""
    session = begin(context, verbose, quiet)
    config = settings.project_config(model, session)
    share = check_ratio(ratio) if ratio is not None else config.ratio
    limit = None if memory_limit is None else parse_bytes(memory_limit, option="--memory-limit")
    shape = parse_input_shape(input_shape) if input_shape is not None else config.input_shape
    check_players(players, criterion or (), layer or ())
    check_recover_at(recover_at or (), players)
    folder = output or settings.default_output(model, kind="ranking")
    criteria = tuple(criterion or ())
    _check_early(criteria, folder, overwrite, {"model": model, "card": card})
    data = settings.choose_calibration(calibration, model, config, session)
    asked = PreprocessingOptions(card=card, resize=resize, crop=crop, channel_order=channel_order)
    preprocessing = settings.choose_preprocessing(data, asked, mean, std, config)

    from edgeprune import api

    quiet_libraries(session)
    report = api.rank(
        model,
        calibration=data,
        criteria=criteria or (DEFAULT,),
        layers=tuple(layer or ()),
        ratio=share,
        max_evaluations=max_evaluations,
        effort=effort,
        max_time_s=None if max_time is None else parse_duration(max_time, option="--max-time"),
        players=players,
        memory_limit_bytes=limit,
        recover_at=tuple(recover_at or ()),
        resume=resume,
        output=folder,
        architecture=settings.first_given(arch, config.arch),
        weights=weights,
        trust_pickle=trust_pickle,
        input_shape=shape,
        preprocessing=preprocessing,
        max_images=max_images,
        held_out_fraction=held_out,
        attention_unit=attention_unit,
        prune_normalized=prune_normalized,
        seed=seed if seed is not None else config.seed or 0,
        threads=threads or config.threads,
        overwrite=overwrite,
        command=session.command_line,
    )
    from edgeprune.reporting.ranking.words import render_ranking

    session.say(f"written to {folder}")
    return show_json(report) if as_json else show(render_ranking(for_people(report)))


def _check_early(
    criteria: tuple[str, ...], folder: Path, overwrite: bool, reads: dict[str, str | Path | None]
) -> None:
    """Refuse in a blink what would otherwise fail after the libraries are loaded."""
    from edgeprune.importance.registry import criterion, criterion_names
    from edgeprune.storage.outputs import check_destination

    for name in criteria:
        if name not in criterion_names():
            criterion(name)
    check_destination(folder, overwrite=overwrite, reads=reads)
