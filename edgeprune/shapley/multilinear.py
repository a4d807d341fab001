"""Shapley values of all players at once from gradients of the multilinear extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.aggregate import Moments
from edgeprune.shapley.game import DifferentiableGame, FloatArray


@dataclass(frozen=True, kw_only=True)
class MultilinearEstimate:
    """Values and standard errors (n,), and the forward-backward passes spent (of one batch each)."""

    values: FloatArray
    standard_errors: FloatArray
    evaluations: int


def multilinear(
    game: DifferentiableGame,
    *,
    passes: int,
    q_low: float,
    q_high: float = 1.0,
    aggregate: Aggregate,
    batch: int,
    rng: np.random.Generator,
    advance: Callable[[int], None] = lambda _units: None,
) -> MultilinearEstimate:
    """phi_i = E over q of dF/dm_i at coalitions drawn with inclusion probability q (Owen 1972).

    Every image of every pass has its own coalition, q uniform in [``q_low``, 1]; 0 gives the Shapley law,
    more keeps coalitions near the size that survives pruning. One backward pass serves all players.
    """
    moments = Moments(game.num_players)
    evaluations = 0
    for _ in range(passes):
        order = rng.permutation(game.num_images)
        for start in range(0, game.num_images, batch):
            images = order[start : start + batch]
            rows = 1 if game.shared_coalition else len(images)
            q = rng.uniform(q_low, q_high, size=(rows, 1))
            drawn = (rng.random((rows, game.num_players)) < q).astype(np.float64)
            memberships = np.broadcast_to(drawn, (len(images), game.num_players))
            moments.add(game.marginals(memberships, images))
            evaluations += 1
            advance(1)
    values, errors = moments.aggregate(aggregate)
    return MultilinearEstimate(values=values, standard_errors=errors, evaluations=evaluations)
