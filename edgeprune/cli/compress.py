"""``edgeprune compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from edgeprune import limits
from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.choices import AttentionUnit, Effort
from edgeprune.artifacts.quantization import Precision
from edgeprune.cli import options as opt
from edgeprune.cli import settings
from edgeprune.cli.process.session import begin, quiet_libraries, show, show_json
from edgeprune.options.project_file import PreprocessingOptions, check_ratio, parse_input_shape, read_ratio
from edgeprune.options.quantities import parse_budget, parse_duration, parse_finetune
from edgeprune.showing import for_people


class Common(TypedDict):
    """What a run and a dry run both need."""

    calibration: str
    target: str
    ratio: float | None
    architecture: str | None
    weights: str | None
    trust_pickle: bool
    input_shape: tuple[int, ...] | None
    preprocessing: Preprocessing | None
    width_quantum: int | None
    max_images: int | None
    held_out_fraction: float
    seed: int
    threads: int | None
    attention_unit: AttentionUnit
    prune_normalized: bool
    ranking: Path | None
    criterion: str | None
    effort: Effort
    max_time_s: float | None


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
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        parser=limits.BATCH_SIZE.reader("--batch-size"),
        help="Fix the batch size of the ONNX file. Default: dynamic.",
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
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", metavar="", help="Load, rank and plan, but write nothing.", rich_help_panel=opt.RUN_PANEL
    ),
]


def compress(
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
    target: opt.Target = None,
    ratio: Ratio = None,
    max_latency: opt.MaxLatency = None,
    max_size: opt.MaxSize = None,
    max_memory: opt.MaxMemory = None,
    max_drop: opt.MaxDrop = None,
    finetune: Finetuning = None,
    recipe: Recipe = None,
    drop_blocks: DropBlocks = True,
    rounds: Rounds = True,
    ranking: GivenRanking = None,
    criterion: GivenCriterion = None,
    effort: opt.EffortOption = Effort.NORMAL,
    max_time: opt.MaxTime = None,
    precision: Bits = Precision.FP32,
    width_quantum: WidthQuantum = None,
    attention_unit: opt.AttentionPlayers = AttentionUnit.HEAD_DIMENSIONS,
    prune_normalized: opt.PruneNormalized = False,
    batch_size: BatchSize = None,
    output: Output = None,
    overwrite: opt.Overwrite = False,
    resume: Resume = False,
    dry_run: DryRun = False,
    seed: opt.Seed = None,
    threads: opt.Threads = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> None:
    """Prune a trained model, recover it without training, export it to ONNX and report."""
    session = begin(context, verbose, quiet)
    config = settings.project_config(model, session)
    share = check_ratio(ratio) if ratio is not None else config.ratio
    shape = parse_input_shape(input_shape) if input_shape is not None else config.input_shape
    budget = parse_budget(max_latency, max_size, max_memory, max_drop)
    training = None if finetune is None else parse_finetune(finetune, option="--finetune")
    limit_s = None if max_time is None else parse_duration(max_time, option="--max-time")
    device = settings.first_given(target, config.target or "host")
    folder = output or settings.default_output(model)
    _check_early(device, None if dry_run else folder, overwrite, {"model": model, "card": card})
    data = settings.choose_calibration(calibration, model, config, session)
    asked = PreprocessingOptions(card=card, resize=resize, crop=crop, channel_order=channel_order)
    preprocessing = settings.choose_preprocessing(data, asked, mean, std, config)

    from edgeprune import api

    quiet_libraries(session)
    common: Common = {
        "calibration": data,
        "target": device,
        "ratio": share,
        "architecture": settings.first_given(arch, config.arch),
        "weights": weights,
        "trust_pickle": trust_pickle,
        "input_shape": shape,
        "preprocessing": preprocessing,
        "width_quantum": width_quantum,
        "max_images": max_images,
        "held_out_fraction": held_out,
        "seed": seed if seed is not None else config.seed or 0,
        "threads": threads or config.threads,
        "attention_unit": attention_unit,
        "prune_normalized": prune_normalized,
        "ranking": ranking,
        "criterion": criterion,
        "effort": effort,
        "max_time_s": limit_s,
    }
    if dry_run:
        plan = api.compress_dry_run(
            model,
            **common,
            budget=budget,
            finetune=training,
            recipe=recipe,
            precision=precision,
            batch_size=batch_size,
        )
        return show_json(plan) if as_json else show(for_people(plan).render())
    report = api.compress(
        model,
        **common,
        budget=budget,
        finetune=training,
        recipe=recipe,
        drop_blocks=drop_blocks,
        rounds=rounds,
        precision=precision,
        output=folder,
        batch_size=batch_size,
        overwrite=overwrite,
        resume=resume,
        command=session.command_line,
    )
    from edgeprune.reporting import render_terminal

    session.say(f"written to {folder}")
    return show_json(report) if as_json else show(render_terminal(for_people(report)))


def _check_early(
    target: str, folder: Path | None, overwrite: bool, reads: dict[str, str | Path | None]
) -> None:
    """Refuse in a blink what would otherwise fail after the libraries are loaded."""
    from edgeprune.storage.outputs import check_destination
    from edgeprune.targets import load_target

    load_target(target)
    if folder is not None:
        check_destination(folder, overwrite=overwrite, reads=reads)
