"""Leave-one-out: the loss of the network without one player, by measured coalition values."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.pruning import Aggregate, Ranking
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import affordable_images, fewer_images_note, make_ranking
from edgeprune.shapley.aggregate import aggregate

_COALITIONS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """v(N) - v(N without i), the mean over images: the oracle of Molchanov et al. (ICLR 2017), with its sign.

    Costs are the values (loss units); errors are those of the paired difference on common images.
    """

    name: str = "leave-one-out"
    summary: str = "loss that the network gains without the channel, measured (Molchanov et al. 2017, oracle)"

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images for every player, and one for the full network."""
        coalitions = context.coupling.num_players + 1
        at_once = context.game.images_at_once
        images = affordable_images(context, at_once=at_once, rounds=coalitions)
        return coalitions * math.ceil(images / at_once)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by num_players + 1 coalition values.

        Raises:
            UsageError: ``max_evaluations`` is below num_players + 1.
        """
        started = time.perf_counter()
        count = context.coupling.num_players
        images = affordable_images(context, at_once=context.game.images_at_once, rounds=count + 1)
        game = context.game.on_images(images)
        before = game.evaluations
        whole = game.values(np.ones((1, count), dtype=bool))
        advance(game.evaluations - before)
        values, errors = np.zeros(count), np.zeros(count)
        for start in range(0, count, _COALITIONS_AT_ONCE):
            players = np.arange(start, min(start + _COALITIONS_AT_ONCE, count))
            coalitions = np.ones((len(players), count), dtype=bool)
            coalitions[np.arange(len(players)), players] = False
            done = game.evaluations
            lost = whole - game.values(coalitions)
            advance(game.evaluations - done)
            values[players], errors[players] = aggregate(lost, Aggregate.MEAN)
        return make_ranking(
            self.name,
            values,
            started,
            standard_errors=errors,
            evaluations=game.evaluations - before,
            images=images,
            choice="value of the whole network less that without the player, mean over images; costs may be "
            f"negative; loss: {game.loss_description}",
            notes=fewer_images_note(context, images),
        )
