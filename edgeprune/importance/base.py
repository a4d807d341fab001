"""What every criterion is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import GAME_MEMORY_BYTES
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.artifacts.pruning import Ranking
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.journals import Journals


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """All that a criterion may look at; it changes none of it.

    ``game`` masks absent players with zeros, ``recovery_game`` replaces them by their best linear estimate
    from the present ones; both are over ``images``. ``ratio`` is the share of MACs that is to go, which
    laws of coalition sizes follow. ``work`` says how many times the usual passes ``hybrid`` is to make;
    ``max_evaluations`` limits the batch passes, ``None`` leaves them to the criterion. ``groups`` names the
    coupled groups asked for, ``None`` all: criteria that measure groups one by one may leave the others out,
    with NaN. ``memory_limit_bytes`` bounds the activations of games of single layers; their coalition values
    are kept in ``journals`` where there are any.
    """

    captured: CapturedModel
    coupling: CouplingGraph
    images: ImageBatch
    game: MaskedGame
    recovery_game: MaskedGame
    ratio: float
    work: float = 1.0
    max_evaluations: int | None = None
    groups: tuple[str, ...] | None = None
    memory_limit_bytes: int = GAME_MEMORY_BYTES
    journals: Journals | None = None


class Criterion(Protocol):
    """Says how much every player matters."""

    @property
    def name(self) -> str:
        """The name by which users ask for it, in lower case with hyphens."""
        ...

    @property
    def summary(self) -> str:
        """What it measures, in one line, with its source."""
        ...

    def passes(self, context: ScoringContext) -> int:
        """Batch passes that ``score`` will make, for progress displays; 0 where it only looks at weights."""
        ...

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score every player; the same ``rng`` state gives the same scores.

        Raises:
            UsageError: ``max_evaluations`` is too few; says how many are needed.
        """
        ...
