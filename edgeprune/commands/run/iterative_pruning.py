"""Rank for deep cuts in rounds: prune and recover a part, then rank the remaining channels again.

Removal costs are estimated around coalitions of the whole network, and the more of it is removed, the less
accurate they are, since recovery changes the weights. So beyond ``MOST_AT_ONCE`` of the MACs the costs of
the remaining channels come from the recovered network of a milder cut. Only the ranking is made in rounds:
the resulting plan is pruned from the original and recovered in one step.
"""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import torch

from edgeprune.artifacts.arrays import FloatArray, IndexArray
from edgeprune.artifacts.choices import DEFAULT_CRITERION
from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, player_origins
from edgeprune.artifacts.model import CapturedModel
from edgeprune.artifacts.pruning import Ranking, RecoveryReport
from edgeprune.capture.capture import capture
from edgeprune.commands.run.effort import ranking_work
from edgeprune.commands.run.given_rankings import GivenRanking, differences, fitted, read_given
from edgeprune.commands.run.kept_stages import kept_network, kept_ranking
from edgeprune.commands.run.scoring import note_if_not_spread, ranked_by, scoring_context, within_time_by
from edgeprune.commands.run.shared.cached_ranking import cached_ranking
from edgeprune.commands.run.state import Prepared, Run, Variant, split_for_recovery
from edgeprune.commands.run.time_limits import another_round_fits, within_time
from edgeprune.coupling.coupling import couple
from edgeprune.errors import CaptureError, NothingToPruneError
from edgeprune.games.masked_game import MaskedGame
from edgeprune.games.spread_game import spread
from edgeprune.importance.base import Criterion, ScoringContext
from edgeprune.importance.journals import Journals, ranking_checkpoints
from edgeprune.importance.ranking import (
    cost_passes,
    options_for,
    rank,
    removal_costs,
    rising,
    total_passes,
)
from edgeprune.importance.registry import criterion
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.selection import select
from edgeprune.system import progress

MOST_AT_ONCE = 0.3
"""Share of the MACs up to which one round is made; two did not pay at 25% (``docs/decisions``, 7)."""
ROUND_STEP = 0.15
"""Share of the MACs that a round takes."""


class RoundsRanker:
    """Rankings of the whole network by the share of its MACs to remove, each computed once."""

    def __init__(self, run: Run, prepared: Prepared, journals: Journals | None = None) -> None:
        self._run = run
        self._prepared = prepared
        self._journals = journals
        self._known: dict[float, Ranking] = {}
        self._notes: dict[float, list[str]] = {}
        self._given = read_given(run.options)
        asked = run.options.criterion or DEFAULT_CRITERION
        other = self._given is None and asked != DEFAULT_CRITERION
        self._other = criterion(asked) if other else None
        self._fitted: Ranking | None = None
        self._deepest = 0.0

    def at(self, ratio: float) -> Ranking:
        """The ranking for a cut of ``ratio`` of the MACs; the given one, if any.

        Raises:
            UsageError: the given ranking does not fit.
        """
        if self._given is not None:
            return self._taken(self._given, ratio)
        self._deepest = max(self._deepest, ratio)
        ranking = self._ranking_at(ratio)
        if self._other is not None:
            note_if_not_spread(self._run, self._other)
        # A ranking has the notes of those that it continues from, whichever was made when.
        self._run.notes[:] = dict.fromkeys(self._run.notes)
        return ranking

    def _ranking_at(self, ratio: float) -> Ranking:
        before = len(self._run.notes)
        if ratio in self._known:
            self._run.notes.extend(self._notes[ratio])
        else:
            with torch.no_grad():
                self._known[ratio] = kept_ranking(
                    self._run, self._journals, ratio, self._prepared.coupling.num_players,
                    lambda: cached_ranking(self._run, self._prepared, ratio, lambda: self._ranked(ratio)),
                )  # fmt: skip
            self._notes[ratio] = self._run.notes[before:]
            gc.collect()  # graphs hold reference cycles, and those of a game covariances of all channels
        return self._known[ratio]

    def _rounds_from(self, ratio: float) -> int:
        """Number of rankings left for the deepest requested cut, including that of ``ratio``."""
        return 1 + round((self._deepest - ratio) / ROUND_STEP)

    def _taken(self, given: GivenRanking, ratio: float) -> Ranking:
        """The given ranking, checked once; its shortcomings for this cut are noted."""
        if self._fitted is None:
            self._fitted = fitted(given, self._run, self._prepared)
        in_rounds = ratio > MOST_AT_ONCE and self._run.options.rounds
        for sentence in differences(given, self._prepared, ratio, in_rounds=in_rounds):
            if sentence not in self._run.notes:
                self._run.note(sentence)
        return self._fitted

    def _ranked(self, ratio: float) -> Ranking:
        if ratio <= MOST_AT_ONCE or not self._run.options.rounds:
            return self._whole(ratio)
        before = self._ranking_at(round(ratio - ROUND_STEP, 9))
        if not another_round_fits(self._run):
            self._run.note(
                f"--max-time: channels are ranked in one round fewer for a cut of {ratio:.0%}, since half of "
                "the time has gone by"
            )
            return before
        try:
            return self._continued(before, round(ratio - ROUND_STEP, 9), ratio)
        except (CaptureError, NothingToPruneError) as error:
            self._run.note(f"channels are ranked in one round fewer for a cut of {ratio:.0%}: {error}")
            return before

    def _whole(self, ratio: float) -> Ranking:
        """The ranking in one round."""
        coupling = self._prepared.coupling
        if (chosen := self._other) is not None:
            with self._run.stage("rank"):
                context = replace(
                    scoring_context(self._run, self._prepared, ratio=ratio),
                    journals=self._journals,
                    work=ranking_work(self._run),
                    executor=self._run.executor,
                )
                return self._by(chosen, context, ratio, stream=1)
        with self._run.stage("rank"):
            game = scoring_context(self._run, self._prepared, ratio=ratio).recovery_game
            settings = options_for(coupling, ratio, work=ranking_work(self._run))
            settings = within_time(
                self._run,
                self._journals,
                f"hybrid-{ratio:g}",
                game,
                settings,
                rounds=self._rounds_from(ratio),
            )
            with (
                progress.task("ranking channels by Shapley values", total_passes(game, settings)) as advance,
                spread(game, self._run.executor) as spread_game,
            ):
                return rank(
                    spread_game,
                    coupling.groups,
                    rng=np.random.default_rng([self._run.options.seed, 1]),
                    options=settings,
                    advance=advance,
                    checkpoints=ranking_checkpoints(self._journals, f"hybrid-{ratio:g}", settings),
                )

    def _by(self, chosen: Criterion, context: ScoringContext, ratio: float, *, stream: int) -> Ranking:
        """The ranking by another criterion, for a cut of ``ratio``."""
        left = self._rounds_from(ratio)
        context = within_time_by(self._run, chosen, context, criteria_left=left)
        ranking = ranked_by(chosen, context, rng=np.random.default_rng([self._run.options.seed, stream]))
        self._run.notes.extend(f"{chosen.name}: {note}" for note in ranking.notes)
        return replace(ranking, loss=ranking.loss or context.game.loss_description)

    def _continued(self, before: Ranking, gone: float, ratio: float) -> Ranking:
        """Ranking for a cut of ``ratio``: the channels left after a cut of ``gone`` are ranked again."""
        whole = self._prepared.coupling
        removed = select(before.removal_costs, whole, ratio=gone).removed
        recovered = self._recovered(removed, gone)
        with self._run.stage("rank what is left"):
            rest = Variant(captured=recovered, coupling=couple(recovered, self._run.options.coupling))
            coupling = rest.coupling
            left = 1 - (1 - ratio) * whole.total_macs() / coupling.total_macs()
            context = scoring_context(self._run, self._prepared, rest, ratio=left)
            stream = 2 + len(before.rounds)
            if (chosen := self._other) is not None:
                # Without a journal: its games of the same name belong to another network.
                context = replace(context, work=ranking_work(self._run), executor=self._run.executor)
                anew = self._by(chosen, context, ratio, stream=stream)
                costs, evaluations = anew.removal_costs, anew.evaluations
            else:
                costs, evaluations = self._costs_of_what_is_left(
                    context.recovery_game, coupling, ratio, left, removed, stream
                )
        return replace(
            before,
            removal_costs=_in_turn(
                before.removal_costs, costs, player_origins(whole, coupling, removed), removed, whole
            ),
            evaluations=before.evaluations + evaluations,
            rounds=(*before.rounds, gone),
        )

    def _costs_of_what_is_left(
        self,
        game: MaskedGame,
        coupling: CouplingGraph,
        ratio: float,
        left: float,
        removed: tuple[int, ...],
        stream: int,
    ) -> tuple[FloatArray, int]:
        """Default removal costs for a cut of ``left`` of the remaining network, and the passes made."""
        settings = options_for(coupling, left, work=ranking_work(self._run))
        settings = within_time(
            self._run, self._journals, f"hybrid-{ratio:g}-round", game, settings,
            rounds=self._rounds_from(ratio), values=False,
        )  # fmt: skip
        kept = ranking_checkpoints(self._journals, f"hybrid-{ratio:g}-round", (settings, removed))
        with (
            progress.task("ranking what is left", cost_passes(settings)) as advance,
            spread(game, self._run.executor) as spread_game,
        ):
            costs = removal_costs(
                spread_game,
                coupling.groups,
                rng=np.random.default_rng([self._run.options.seed, stream]),
                options=settings,
                advance=advance,
                checkpoint=kept("costs"),
            )
        return costs, cost_passes(settings)

    def _recovered(self, removed: tuple[int, ...], gone: float) -> CapturedModel:
        """The recovered network without ``removed``, captured again since its shapes changed.

        Raises:
            CaptureError: the capture failed.
        """
        whole = self._prepared.captured
        with self._run.stage("recover for another round"):
            bare = prune(whole, self._prepared.coupling, removed)
            layers = len(self._prepared.coupling.layers)
            with progress.task(f"recovering {1 - gone:.0%} of the MACs", layers) as advance:
                recovered, _ = kept_network(
                    self._run, self._journals, f"recovered-{gone:g}", bare, removed, RecoveryReport,
                    lambda: reconstruct(
                        whole.graph_module,
                        bare,
                        self._prepared.coupling,
                        removed,
                        split_for_recovery(self._run, self._prepared),
                        stored_as=self._prepared.stored_as,
                        generator=torch.Generator().manual_seed(self._run.options.seed),
                        advance=advance,
                        device=self._prepared.device,
                    ),
                )  # fmt: skip
            return capture(recovered, whole.input_shapes)


def _in_turn(
    before: FloatArray,
    costs: FloatArray,
    origins: IndexArray,
    removed: tuple[int, ...],
    whole: CouplingGraph,
) -> FloatArray:
    """Costs of all players: in each group those ``removed`` before are lowest, then others by new costs."""
    merged, left = before.copy(), ~whole.removed_mask(removed)
    known = origins != NO_PLAYER
    merged[origins[known]] = costs[known]
    for group in whole.groups:
        players = np.array(group.players)
        order = players[np.lexsort((merged[players], left[players]))]
        merged[order] = rising(merged[order])
    return merged
