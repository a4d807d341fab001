"""What is done with networks: ``compress``, ``pick`` and ``rank``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from edgeprune.accelerator import repeatable
from edgeprune.artifacts.budget import Budget
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import RunReport
from edgeprune.caching.store import Store, Use
from edgeprune.commands.compress import delivery
from edgeprune.commands.pick.picking import pick_candidate
from edgeprune.commands.rank.ranking_run import rank_network
from edgeprune.commands.run import checks, stages
from edgeprune.commands.run.effort import with_effort
from edgeprune.commands.run.given_rankings import read_given
from edgeprune.commands.run.report_builder import layer_rows
from edgeprune.commands.run.resume import check_journal, decisions, kept_values
from edgeprune.commands.run.state import Run
from edgeprune.commands.run.training.build import build
from edgeprune.commands.run.training.finetune import check_training
from edgeprune.commands.run.training.recipe import find_recipe
from edgeprune.commands.search.budget_preview import check_preview, preview
from edgeprune.commands.search.budget_search import BudgetSearch, search
from edgeprune.commands.search.default_goal import caution_about_judging, check_measure, with_default_goal
from edgeprune.commands.search.default_search import DefaultSearch
from edgeprune.devices.connection import connected
from edgeprune.errors import UsageError
from edgeprune.executors.chosen import executor_of
from edgeprune.options.runs import CompressOptions, RankOptions
from edgeprune.options.signatures import called_with
from edgeprune.reporting.ranking.facts import RankingReport
from edgeprune.results import DryRun, PickedCandidate, PredictedCost


@called_with(CompressOptions)
def compress(options: CompressOptions) -> RunReport:
    """Prune a trained network, recover it without training, export, verify and profile it.

    Args:
        model: file, ``torchvision:NAME`` or a module (never changed); see ``edgeprune.loading``.
        calibration: folder of images, ``.npz`` or ``package.module:function``; labels are optional.
        labels: CSV file with the header ``file,label`` of a folder of images.
        output: folder to write; it appears whole or not at all.
        target: device profile by name, alias or path; its width quantum rounds the layers' widths.
        device: where models are measured, over ssh or adb (:class:`DeviceOptions`); on this machine, or
            predicted for ``target``, where ``None``.
        ratio: share of MACs to remove, in (0, 1). Where it is ``None`` and there is no budget, the fastest
            network that loses at most one point on the held-out images is searched for, or the original is
            delivered; a quarter goes where no points can be counted.
        budget: limits on latency, size, memory and the loss of accuracy; the model that loses least within
            them is searched for, and ``ratio`` is then the least share to remove.
        task: what the network is for; quality, and the drop that ``budget`` allows, are in its unit: AP of
            detections, mean IoU, absolute error, nearest neighbours; by the outputs' shapes where ``AUTO``.
        metric: ``file.py:function`` of your own instead, ``metric(outputs, images, labels)`` with a list of
            arrays, an array, and an array or ``None``; a number or one for every image, higher is better.
        boxes: how a detector's boxes are given; told by their values where ``None``.
        finetune: steps or time of distillation after recovery; none where ``None``.
        recipe: ``file.py:function`` or ``package.module:function`` of your own that trains the recovered
            network; it is called with a module and trains it in place, or returns it (``docs/recipe.md``).
        drop_blocks: let the search of a budget leave out whole residual blocks, too, where that loses less.
        rounds: rank for deep cuts anew once a part is gone and recovered; otherwise all at once, sooner.
        ranking: folder (or ``ranking.json``) of :func:`rank` to go by instead of ranking again; it must have
            been made of this network with these images, the same seed and share of images held out.
        criterion: which one of ``ranking``; hybrid where ``None``, else its first.
        effort: passes, images, rounds and training; see ``docs/effort.md``.
        compute_device: where networks run while they are ranked, recovered and trained.
        max_time_s: what would take longer is cut, and the notes say what; stages are not cut below what they
            need, so it can be exceeded.
        precision: how the delivered file is stored; in 8 or 16 bits the 32-bit one is beside it. In 32 bits
            where ``None``, and without ``ratio`` and ``budget`` 8 bits are tried, too.
        workers: processes that share the batches of a ranking, each of ``threads`` threads; this one where
            ``None``. The result is the same. See ``docs/workers.md``.
        executor: where workers are, processes of this machine or a cluster of Ray.
        ray_address: of a cluster that runs; one on this machine, for this run, where ``None``.
        cache: folder of results that runs on the same network and images share; the result is the same as
            without. See ``docs/sweep.md``.
        width_quantum: widths are multiples of it; the target's (less in narrow layers) where ``None``.
        batch_size: fixed batch of the ONNX file; dynamic where ``None``.
        pictures: whether ``report.html`` holds small pictures of calibration images.
        max_images: at most so many calibration images are used.
        held_out: share of them that only judges the result.
        attention_unit: what leaves an attention layer: channels of all its heads in step, or whole heads.
        prune_normalized: let channels go that a layer norm takes its statistics over; it then does so over
            those that stay, and masks, ranking and recovery all reckon with that.
        seed: the same seed gives the same artefact.
        resume: go on with a run that was stopped, from the stages and candidates that it kept beside
            ``output``.

    Raises:
        BudgetError: nothing that the search reached holds the budget.
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return compress_network(options)


def compress_network(options: CompressOptions) -> RunReport:
    """:func:`compress` with its options in one."""
    return compress_with_uses(options)[0]


def compress_with_uses(options: CompressOptions) -> tuple[RunReport, tuple[Use, ...]]:
    """:func:`compress_network`, and what it asked of the cache."""
    if options.folder is None:
        raise UsageError("no output folder was given; accepted is output=, the folder to write")
    run = _start(replace(options, command=options.command or "edgeprune.compress (Python API)"))
    check_journal(options.folder, resume=options.resume, reads=checks.read_by(run.options))
    with repeatable(options.compute_device), connected(options.device) as run.device:
        report = _compress(run)
    return report, () if run.cache is None else tuple(run.cache.uses)


def _compress(run: Run) -> RunReport:
    prepared = with_effort(run, stages.prepare(run), trains=True)
    check_training(run, prepared)
    check_measure(run, prepared)
    with_default_goal(run, prepared)
    caution_about_judging(run, prepared)
    if not run.options.budget.is_empty:
        kind = DefaultSearch if run.limits_by_default else BudgetSearch
        with search(run, prepared, kind) as (planned, pruned, store):
            return delivery.deliver(run, prepared, planned, pruned, candidates=store)
    with kept_values(run, prepared, decisions(run, prepared)) as run.journals:
        planned = stages.plan(run, prepared)
        pruned = build(run, prepared, planned)
        return delivery.deliver(run, prepared, planned, pruned)


def pick(
    folder: str | Path,
    budget: Budget,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> PickedCandidate:
    """The candidate of a finished search that holds another ``budget`` and loses least, and its grade.

    Args:
        folder: what :func:`compress` wrote for a budget.
        output: folder to copy the candidate's ONNX, weights and recipe to; nothing is written where ``None``.

    Raises:
        UsageError: ``folder`` is no output of a search.
        BudgetError: no candidate holds the budget; names the nearest.
    """
    return pick_candidate(
        Path(folder),
        budget,
        output=None if output is None else Path(output),
        overwrite=overwrite,
        command=command or "edgeprune.pick (Python API)",
    )


@called_with(CompressOptions)
def compress_dry_run(options: CompressOptions) -> DryRun:
    """Rank and select as :func:`compress` would, and say what it would remove; writes nothing.

    With a ``budget``, and with neither that nor a ``ratio``, it is the first plan of the search, with its
    costs by the cost models: predicted, where a search builds and measures. Training, ``precision`` and
    ``batch_size`` are only checked: the plan is that of 32 bits.

    Raises:
        NothingToPruneError: the cost models know no plan within the budget.
        UsageError: the budget limits nothing but the drop.
    """
    return plan_network(options)


def plan_network(options: CompressOptions) -> DryRun:
    """:func:`compress_dry_run` with its options in one."""
    run = _start(replace(options, output=None))
    check_preview(run.options.budget)
    with repeatable(options.compute_device), connected(options.device) as run.device:
        return _plan(run)


def _plan(run: Run) -> DryRun:
    run.options = replace(run.options, precision=Precision.FP32)
    prepared = with_effort(run, stages.prepare(run), trains=False)
    check_training(run, prepared)
    check_measure(run, prepared)
    with_default_goal(run, prepared)
    predicted: tuple[PredictedCost, ...] = ()
    if run.options.budget.is_empty:
        plan = stages.plan(run, prepared).plan
    else:
        plan, predicted = preview(run, prepared)
    return DryRun(
        source=prepared.loaded.source,
        target=prepared.target.name,
        ratio_asked=plan.ratio_asked,
        macs_before=plan.macs_before,
        macs_after=plan.macs_after,
        width_quantum=plan.width_quantum,
        layers=layer_rows(prepared.coupling, plan.removed),
        notes=tuple(dict.fromkeys(run.notes)),
        predicted=predicted,
        by_default=run.limits_by_default,
    )


@called_with(RankOptions)
def rank(options: RankOptions) -> RankingReport:
    """Value every channel by one or several criteria, and follow what is lost while filters go.

    Args:
        criteria: names; see ``edgeprune.importance.registry.criterion_names``.
        layers: only the channels of these layers are ranked and removed, everyone else is present; all
            layers where empty.
        ratio: share of MACs that is to go, which laws of coalition sizes follow; a quarter where ``None``.
        max_evaluations: most batch passes of each criterion; its own choice where ``None``.
        effort: how many passes ``hybrid`` makes and how many images count; see ``docs/effort.md``.
        max_time_s: passes are cut to what the measured speed allows, and the notes say so.
        players: channels, or residual blocks; then neither ``criteria`` nor ``layers``.
        memory_limit_bytes: of activations of games of single layers and of blocks.
        recover_at: shares of the MACs; the network of each criterion is recovered there and judged, too.
        resume: go on with the coalition values that a stopped run left beside ``output``.
        output: folder for the files of ``docs/ranking.md``, whole or not at all; nothing is written where
            ``None``.

    The other arguments are those of :func:`compress`.

    Raises:
        UsageError: an unknown criterion or layer, or ``max_evaluations`` is too few; says what is accepted.
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return rank_channels(options)


def rank_channels(options: RankOptions) -> RankingReport:
    """:func:`rank` with its options in one."""
    options = replace(options, recover_at=tuple(dict.fromkeys(options.recover_at)))
    run = _start(replace(options.of_run(), command=options.command or "edgeprune.rank (Python API)"))
    with repeatable(options.compute_device):
        return rank_network(run, options)


def _start(options: CompressOptions) -> Run:
    checks.check_options(options)
    # Report wrong names at once, not after minutes of work.
    read_given(options)
    if options.recipe is not None:
        find_recipe(options.recipe)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    run = Run(options)
    if options.is_spread:
        run.executor = executor_of(
            options.executor, options.ray_address, options.workers, threads=run.threads
        )
    if options.cache_path is not None:
        run.cache = Store(options.cache_path)
        run.cache.check()
    return run
