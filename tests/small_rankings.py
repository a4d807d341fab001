"""A small network to be ranked, and rankings of it with few samples."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.codec import to_jsonable
from edgeprune.artifacts.pruning import Ranking
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network, original_outputs
from edgeprune.coupling.coupling import couple
from edgeprune.games.masked_game import MaskedGame
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.ranking import RankingOptions, rank

OPTIONS = RankingOptions(samples=72, cost_samples=80, batch=8, exact_players=2)


def small_context(network: Any, gradient_bytes: int | None = None) -> ScoringContext:
    """A small network and the games on it; few bytes for gradients bring batches in parts."""
    torch.manual_seed(0)
    module = network().eval()
    captured = capture(module, ((3, 16, 16),))
    images = ImageBatch(images=torch.randn(24, 3, 16, 16), labels=None)
    context = context_of_network(
        captured, couple(captured), images, original_outputs(captured, images), ratio=0.5
    )
    if gradient_bytes is not None:
        for game in (context.game, context.recovery_game):
            vars(game)["_gradient_bytes"] = gradient_bytes
    return context


def ranked(context: ScoringContext, game: Any, checkpoints: Any = None) -> Ranking:
    """The ranking of a game on it."""
    more = {} if checkpoints is None else {"checkpoints": checkpoints}
    return rank(game, context.coupling.groups, rng=np.random.default_rng(3), options=OPTIONS, **more)


def same_ranking(one: Ranking, two: Ranking) -> bool:
    """Whether two are equal in every bit, times apart."""
    a, b = ({**to_jsonable(each), "duration_s": 0} for each in (one, two))
    return bool(a == b)


class SlowGame:
    """What workers of a ranking share; each batch leaves a file in a folder, and takes a while."""

    def __init__(self, game: MaskedGame, folder: Path) -> None:
        self._game, self._folder = game, folder

    def ready(self) -> MaskedGame:
        """The game, some time later."""
        torch.set_num_threads(1)
        (self._folder / os.urandom(8).hex()).touch()
        time.sleep(0.5)
        return self._game
