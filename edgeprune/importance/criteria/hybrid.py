"""Ours: Shapley values of a game that knows about recovery, at coalitions like those that survive."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.artifacts.scores import Scores
from edgeprune.errors import UsageError
from edgeprune.importance.base import Advance, Evidence
from edgeprune.importance.journals import ranking_checkpoints
from edgeprune.importance.ranking import RankingOptions, cost_passes, options_for, rank, total_passes


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """The default criterion; ``options`` replaces what follows from the network and the ratio."""

    options: RankingOptions | None = None
    name: str = "hybrid"
    summary: str = (
        "Shapley values by gradients of the multilinear extension (Owen 1972), absent channels replaced by "
        "their best linear estimate, coalition sizes after the ratio; exact in small groups"
    )

    def passes(self, evidence: Evidence) -> int:
        """Batch passes of the gradient estimate."""
        return total_passes(evidence.recovery_game, self._settings(evidence))

    def score(self, evidence: Evidence, *, rng: np.random.Generator, advance: Advance) -> Scores:
        """Value every player; deterministic for a given ``rng``.

        Raises:
            UsageError: ``max_evaluations`` does not allow one pass over all images.
        """
        settings = self._settings(evidence)

        ranking = rank(
            evidence.recovery_game, evidence.coupling.groups,
            rng=rng, options=settings, advance=advance,
            checkpoints=ranking_checkpoints(evidence.journals, self.name, settings),
        )  # fmt: skip
        exact = sum(m.value == "exact" for m in ranking.group_methods.values())
        return Scores(
            criterion=self.name,
            values=ranking.values,
            removal_costs=ranking.removal_costs,
            standard_errors=ranking.standard_errors,
            evaluations=ranking.evaluations,
            images=ranking.images,
            duration_s=ranking.duration_s,
            choice=(
                f"removal costs from second moments of {settings.cost_samples} projected gradients; values: "
                f"gradients of the multilinear extension, {settings.aggregate.value} over images, inclusion "
                f"probabilities {settings.q_low:.2f} to {settings.q_high:.2f}, loss: {ranking.loss}; "
                f"exact values in {exact} of {len(ranking.group_methods)} groups"
            ),
        )

    def _settings(self, evidence: Evidence) -> RankingOptions:
        if self.options is not None:
            return self.options
        settings = options_for(evidence.coupling, evidence.ratio, work=evidence.work)
        if evidence.max_evaluations is None:
            return settings
        # A limit counts batches, so they are as large as they get.
        settings = replace(settings, batch=RankingOptions.batch)
        images = evidence.recovery_game.num_images
        one_round = -(-images // settings.batch)
        if evidence.max_evaluations <= one_round:
            raise UsageError(
                f"max_evaluations={evidence.max_evaluations} is too few for {images} images: one round of "
                f"gradients and one pass for the removal costs need {one_round + 1}"
            )
        for_costs = min(cost_passes(settings), evidence.max_evaluations - one_round)
        rounds = (evidence.max_evaluations - for_costs) // one_round
        return replace(
            settings,
            samples=min(settings.samples, rounds * images),
            cost_samples=min(settings.cost_samples, for_costs * settings.batch),
            exact_players=0,
        )
