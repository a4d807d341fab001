"""The default criterion: Shapley values of the recovery game at coalitions like the pruned network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.choices import DEFAULT_CRITERION
from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.games.spread_game import spread
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.journals import ranking_checkpoints
from edgeprune.importance.ranking import RankingOptions, cost_passes, options_for, rank, total_passes


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """The default criterion; ``options`` overrides those derived from the network and the ratio."""

    options: RankingOptions | None = None
    name: str = DEFAULT_CRITERION
    summary: str = (
        "Shapley values by gradients of the multilinear extension (Owen 1972), absent channels replaced by "
        "their best linear estimate, coalition sizes after the ratio; exact in small groups"
    )

    def passes(self, context: ScoringContext) -> int:
        """Batch passes of the gradient estimate."""
        return total_passes(context.recovery_game, self._settings(context))

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Value every player; deterministic for a given ``rng``.

        Raises:
            UsageError: ``max_evaluations`` does not allow one pass over all images.
        """
        settings = self._settings(context)
        with spread(context.recovery_game, context.executor) as game:
            return rank(
                game, context.coupling.groups,
                rng=rng, options=settings, advance=advance,
                checkpoints=ranking_checkpoints(context.journals, self.name, settings),
            )  # fmt: skip

    def _settings(self, context: ScoringContext) -> RankingOptions:
        if self.options is not None:
            return self.options
        settings = options_for(context.coupling, context.ratio, work=context.work)
        if context.max_evaluations is None:
            return settings
        # A limit counts batches, so they are as large as possible.
        settings = replace(settings, batch=RankingOptions.batch)
        images = context.recovery_game.num_images
        one_round = -(-images // settings.batch)
        if context.max_evaluations <= one_round:
            raise UsageError(
                f"max_evaluations={context.max_evaluations} is too few for {images} images: one round of "
                f"gradients and one pass for the removal costs need {one_round + 1}"
            )
        for_costs = min(cost_passes(settings), context.max_evaluations - one_round)
        rounds = (context.max_evaluations - for_costs) // one_round
        return replace(
            settings,
            samples=min(settings.samples, rounds * images),
            cost_samples=min(settings.cost_samples, for_costs * settings.batch),
            exact_players=0,
        )
