"""The scoring context and the protocol of every criterion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from edgeprune.accelerator import CPU, moved
from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import GAME_MEMORY_BYTES
from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.artifacts.pruning import Ranking
from edgeprune.executors.units import Executor
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.journals import Journals


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """The read-only input of a criterion.

    ``game`` masks absent players with zeros, ``recovery_game`` replaces them by their best linear estimate
    from the present ones; both are over ``images``. ``ratio`` is the share of MACs to remove, on which laws
    of coalition sizes depend. ``work`` scales the usual number of passes of ``hybrid``; ``max_evaluations``
    limits the batch passes, ``None`` leaves them to the criterion. ``groups`` names the requested coupled
    groups, ``None`` all: criteria that measure groups one by one may score the others NaN.
    ``memory_limit_bytes`` bounds the activations of games of single layers; their coalition values are
    stored in ``journals``, if given. Batches run on ``executor``, if given. ``captured`` is in the
    processor's memory; both games run on ``device``.
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
    device: torch.device = CPU
    executor: Executor | None = None

    @cached_property
    def running(self) -> CapturedModel:
        """``captured`` on ``device``, to be run over images."""
        return replace(self.captured, graph_module=moved(self.captured.graph_module, self.device))


class Criterion(Protocol):
    """Scores the importance of every player."""

    @property
    def name(self) -> str:
        """The name that users give, in lower case with hyphens."""
        ...

    @property
    def summary(self) -> str:
        """What it measures, in one line, with its source."""
        ...

    def passes(self, context: ScoringContext) -> int:
        """Batch passes that ``score`` will make, for progress displays; 0 where it only reads weights."""
        ...

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score every player; the same ``rng`` state gives the same scores.

        Raises:
            UsageError: ``max_evaluations`` is too few; says how many are needed.
        """
        ...
