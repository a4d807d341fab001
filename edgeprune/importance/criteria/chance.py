"""Random scores: what any criterion has to beat."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.pruning import Ranking
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import make_ranking


@dataclass(frozen=True, kw_only=True)
class Random:
    """Uniform in [0, 1), drawn from the given generator."""

    name: str = "random"
    summary: str = "uniformly random scores: what any criterion has to beat"

    def passes(self, context: ScoringContext) -> int:
        """None: no data is read."""
        return 0

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Draw every player's score."""
        started = time.perf_counter()
        values = rng.random(context.coupling.num_players)
        return make_ranking(self.name, values, started, choice="uniform in [0, 1) for every player")
