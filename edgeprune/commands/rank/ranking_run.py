"""Rank a network by several criteria and evaluate each by the loss that its removals cause."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.choices import DEFAULT_CRITERION, RankedPlayers
from edgeprune.artifacts.coupling import CoupledGroup, CouplingGraph
from edgeprune.artifacts.pruning import Ranking
from edgeprune.artifacts.quality import RemovalCurves, RemovedShare, SizeCurve
from edgeprune.commands.compress.delivery import input_hashes
from edgeprune.commands.rank.ranked_blocks import rank_blocks
from edgeprune.commands.rank.ranked_layers import channel_numbers, groups_of_layers
from edgeprune.commands.rank.recovered_cuts import check_reachable, recovered_networks
from edgeprune.commands.rank.removal_curves import (
    cost_per_mac,
    macs_of_one,
    removal_curves,
    removal_orders,
    scope_of_network,
    size_curves,
)
from edgeprune.commands.run import checks, stages
from edgeprune.commands.run.effort import ranking_work, with_effort
from edgeprune.commands.run.given_rankings import inputs_of
from edgeprune.commands.run.report_builder import calibration_section, model_section, package_versions
from edgeprune.commands.run.resume import check_journal, kept_values
from edgeprune.commands.run.scoring import (
    note_if_not_spread,
    original_outputs,
    ranked_by,
    scoring_context,
    within_time_by,
)
from edgeprune.commands.run.shared.cached_ranking import cached_ranking
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.commands.run.time_limits import note_if_exceeded
from edgeprune.errors import UsageError
from edgeprune.games.channel_statistics import MAX_CHANNELS
from edgeprune.importance.base import Criterion, ScoringContext
from edgeprune.importance.journals import Journals
from edgeprune.importance.registry import criterion
from edgeprune.options.bounds import check_bounds
from edgeprune.options.project_file import check_players, check_recover_at
from edgeprune.options.runs import RankOptions
from edgeprune.reporting.ranking.facts import (
    RANKING_SCHEMA_VERSION,
    CriterionScores,
    GroupScores,
    RankedGroup,
    RankingReport,
    RankSettings,
)
from edgeprune.reporting.ranking.files import write_ranking
from edgeprune.storage import outputs

_PACKAGES = ("edgeprune", "torch", "numpy")


def find_criteria(choices: RankOptions) -> tuple[Criterion, ...]:
    """The requested criteria, without duplicates.

    Raises:
        UsageError: a name is unknown, none was given, ``max_evaluations`` is below 1, a share is invalid,
            or layers, criteria or shares were given although blocks are ranked.
    """
    check_recover_at(choices.recover_at, choices.players)
    check_bounds(choices)
    if choices.players is RankedPlayers.BLOCKS:
        named = () if choices.criteria == (DEFAULT_CRITERION,) else choices.criteria
        check_players(choices.players, named, choices.layers)
        return ()
    if not choices.criteria:
        raise UsageError("no criterion was given; accepted is at least one name, such as 'hybrid'")
    return tuple(criterion(name) for name in dict.fromkeys(choices.criteria))


def rank_network(run: Run, choices: RankOptions) -> RankingReport:
    """Rank, evaluate and, if the options name an output folder, write it atomically."""
    criteria = find_criteria(choices)
    check_journal(run.options.folder, resume=choices.resume, reads=checks.read_by(run.options))
    prepared = with_effort(run, stages.prepare(run), trains=False)
    with kept_values(run, prepared) as journals:
        if choices.players is RankedPlayers.BLOCKS:
            report = _blocks_report(run, prepared, choices, journals)
        else:
            report = _channels_report(run, prepared, choices, criteria, journals)
        if run.options.folder is not None:
            _write(run, prepared, report, run.options.folder)
    return report


def _blocks_report(
    run: Run, prepared: Prepared, choices: RankOptions, journals: Journals | None
) -> RankingReport:
    blocks, loss = rank_blocks(
        run,
        prepared,
        max_evaluations=choices.max_evaluations,
        memory_limit_bytes=choices.memory_limit_bytes,
        journals=journals,
    )
    nothing = RemovalCurves(
        quality_kind=blocks.quality_kind,
        axis=RemovedShare.MACS,
        images=blocks.held_out_images,
        filters=0,
        reconstructing_points=0,
        mask_points=0,
        reconstructed=(),
        masked=(),
    )
    ratio = run.options.ratio if run.options.ratio is not None else stages.DEFAULT_RATIO
    return RankingReport(
        schema_version=RANKING_SCHEMA_VERSION,
        model=model_section(prepared),
        calibration=calibration_section(prepared),
        settings=_settings(run, (), choices, ratio),
        inputs=inputs_of(prepared),
        loss=loss,
        macs=prepared.coupling.total_macs(),
        players=len(blocks.blocks),
        groups=(),
        criteria=(),
        coalition_sizes=(),
        removal=nothing,
        versions=_versions(),
        notes=tuple(dict.fromkeys(run.notes)),
        durations_s={time.stage: time.duration_s for time in run.times_of_all_sessions},
        blocks=blocks,
    )


def _channels_report(
    run: Run,
    prepared: Prepared,
    choices: RankOptions,
    criteria: Sequence[Criterion],
    journals: Journals | None,
) -> RankingReport:
    groups = groups_of_layers(prepared.coupling, choices.layers)
    check_reachable(choices.recover_at, prepared.coupling, groups)
    ratio = run.options.ratio if run.options.ratio is not None else stages.DEFAULT_RATIO
    with run.stage("context"):
        context = replace(
            scoring_context(
                run,
                prepared,
                ratio=ratio,
                max_evaluations=choices.max_evaluations,
                groups=tuple(g.name for g in groups) if choices.layers else None,
                memory_limit_bytes=choices.memory_limit_bytes,
            ),
            journals=journals,
            work=ranking_work(run),
            executor=run.executor,
        )
    scores = [
        _ranked_by(run, prepared, each, context, groups, len(criteria) - done)
        for done, each in enumerate(criteria)
    ]
    sizes = _sizes(run, context, groups, separate=bool(choices.layers))
    removal = _removal(run, prepared, context, groups, scores, choices.recover_at)
    note_if_exceeded(run)
    return RankingReport(
        schema_version=RANKING_SCHEMA_VERSION,
        model=model_section(prepared),
        calibration=calibration_section(prepared),
        settings=_settings(run, criteria, choices, ratio),
        inputs=inputs_of(prepared),
        loss=context.game.loss_description,
        macs=prepared.coupling.total_macs(),
        players=prepared.coupling.num_players,
        groups=tuple(_ranked(prepared.coupling, g) for g in groups),
        criteria=tuple(
            _scores_of(c, s, prepared.coupling, groups) for c, s in zip(criteria, scores, strict=True)
        ),
        coalition_sizes=sizes,
        removal=removal,
        versions=_versions(),
        notes=tuple(dict.fromkeys(run.notes)),
        durations_s={time.stage: time.duration_s for time in run.times_of_all_sessions},
    )


def _ranked_by(
    run: Run,
    prepared: Prepared,
    criterion: Criterion,
    context: ScoringContext,
    groups: Sequence[CoupledGroup],
    criteria_left: int,
) -> Ranking:
    note_if_not_spread(run, criterion)
    context = within_time_by(run, criterion, context, criteria_left=criteria_left)
    # The random state of ``compress``, so that both give the same ranking.
    rng = np.random.default_rng([run.options.seed, 1])
    everyone = [p for g in groups for p in g.players]
    further = {
        "asked of rank": f"{context.groups}",
        "most evaluations": f"{context.max_evaluations}",
        "memory of layers": f"{context.memory_limit_bytes}",
    }
    with run.stage(f"rank by {criterion.name}"):
        return cached_ranking(
            run, prepared, context.ratio,
            lambda: ranked_by(criterion, context, rng=rng, asked=everyone),
            criterion.name, further,
        )  # fmt: skip


def _sizes(
    run: Run, context: ScoringContext, groups: Sequence[CoupledGroup], *, separate: bool
) -> tuple[SizeCurve, ...]:
    """One curve for the whole network, or one per group if layers were requested."""
    scopes = [scope_of_network(groups)]
    if separate:
        scopes = [(g.name, (g.name,), list(g.players)) for g in groups]
    with run.stage("coalition sizes"):
        return size_curves(context, scopes, seed=run.options.seed)


def _removal(
    run: Run,
    prepared: Prepared,
    context: ScoringContext,
    groups: Sequence[CoupledGroup],
    scores: Sequence[Ranking],
    recover_at: Sequence[float],
) -> RemovalCurves:
    """Curves on held-out images, with the recovered networks that were asked for."""
    held = prepared.calibration.held_out
    reconstructing, places = context.recovery_game.mask_points
    if reconstructing < places:
        run.note(
            f"{places - reconstructing} of {places} mask points mask absent channels in the reconstructed "
            f"curves, too: they are wider than {MAX_CHANNELS:,} channels, or something else than a "
            "convolution or linear layer reads them"
        )
    with run.stage("removal curves"):
        reference = original_outputs(prepared.running, held)
        named = removal_orders(prepared.coupling, groups, scores)
        curves, judge = removal_curves(context, groups, named, held, reference)
    recovered = recovered_networks(run, prepared, judge, named, curves.filters, recover_at)
    return replace(curves, recovered=recovered)


def _ranked(coupling: CouplingGraph, group: CoupledGroup) -> RankedGroup:
    return RankedGroup(
        name=group.name,
        layers=group.layers,
        consumers=group.consumers,
        channels=channel_numbers(coupling, group),
        macs_of_channel=macs_of_one(coupling, group),
    )


def _scores_of(
    criterion: Criterion, scores: Ranking, coupling: CouplingGraph, groups: Sequence[CoupledGroup]
) -> CriterionScores:
    everyone = np.array(sorted(p for g in groups for p in g.players), dtype=np.int64)
    prices = cost_per_mac(scores.removal_costs, coupling, groups)
    network = dict(zip(everyone.tolist(), _ranks(prices[everyone]), strict=True))
    return CriterionScores(
        name=scores.criterion,
        summary=criterion.summary,
        choice=scores.choice,
        evaluations=scores.evaluations,
        images=scores.images,
        notes=scores.notes,
        groups=tuple(_group_scores(g, scores, network) for g in groups),
    )


def _group_scores(group: CoupledGroup, scores: Ranking, network: dict[int, int]) -> GroupScores:
    players = list(group.players)
    errors = scores.standard_errors[players]
    return GroupScores(
        group=group.name,
        values=tuple(scores.values[players].tolist()),
        standard_errors=None if np.isnan(errors).all() else tuple(errors.tolist()),
        removal_costs=tuple(scores.removal_costs[players].tolist()),
        ranks_in_group=_ranks(scores.removal_costs[players]),
        ranks_in_network=tuple(network[p] for p in players),
    )


def _ranks(costs: NDArray[np.float64]) -> tuple[int, ...]:
    """Ranks from 1 for the highest cost; of equal costs the later player, removed later, ranks first."""
    ranks = np.empty(len(costs), dtype=np.int64)
    ranks[np.argsort(costs, kind="stable")[::-1]] = np.arange(1, len(costs) + 1)
    return tuple(ranks.tolist())


def _settings(run: Run, criteria: Sequence[Criterion], choices: RankOptions, ratio: float) -> RankSettings:
    options = run.options
    return RankSettings(
        criteria=tuple(c.name for c in criteria),
        layers=choices.layers,
        ratio=ratio,
        max_evaluations=choices.max_evaluations,
        seed=options.seed,
        attention_unit=options.coupling.attention.value,
        prune_normalized=options.coupling.prune_normalized,
        players=choices.players.value,
        recover_at=choices.recover_at,
    )


def _versions() -> dict[str, str]:
    versions = package_versions()
    return {**{name: versions[name] for name in _PACKAGES}, "python": platform.python_version()}


def _write(run: Run, prepared: Prepared, report: RankingReport, output: Path) -> None:
    with run.stage("write"), outputs.staged_output(output, overwrite=run.options.overwrite) as folder:
        write_ranking(report, folder)
        outputs.write_manifest(
            folder,
            inputs=input_hashes(prepared),
            seed=run.options.seed,
            command=run.options.command,
            versions=package_versions(),
        )
