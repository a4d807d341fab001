"""Random scores: what any criterion has to beat."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.scores import Scores
from edgeprune.importance.base import Advance, Evidence
from edgeprune.importance.combining import make_scores


@dataclass(frozen=True, kw_only=True)
class Random:
    """Uniform in [0, 1), anew for every state of the generator."""

    name: str = "random"
    summary: str = "uniformly random scores: what any criterion has to beat"

    def passes(self, evidence: Evidence) -> int:
        """None: nothing is looked at."""
        return 0

    def score(self, evidence: Evidence, *, rng: np.random.Generator, advance: Advance) -> Scores:
        """Draw every player's score."""
        started = time.perf_counter()
        values = rng.random(evidence.coupling.num_players)
        return make_scores(self.name, values, started=started, choice="uniform in [0, 1) for every player")
