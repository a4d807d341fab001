"""Norms of the filters that produce a channel."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.artifacts.pruning import Ranking
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import PER_GROUP, make_ranking, over_positions, relative_to_group
from edgeprune.importance.layer_weights import producers

_CHOICE = "over the filters of all layers that make the channel, biases and norms left out"


@dataclass(frozen=True, kw_only=True)
class L1:
    """Sum of |w| of a channel's filter: Li et al., Pruning Filters for Efficient ConvNets (ICLR 2017).

    Coupled channels: summed over the layers that produce them, the group norm of Fang et al. (DepGraph, CVPR
    2023) taken over producers, as Li et al. do. Costs are the sums, made relative to
    their group (``relative_to_group``), since layers differ in scale.
    """

    name: str = "l1"
    summary: str = "sum of the absolute weights of the channel's filters (Li et al. 2017)"

    def passes(self, context: ScoringContext) -> int:
        """None: only weights are read."""
        return 0

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by weights; needs no image."""
        started = time.perf_counter()
        values = filter_sums(context, power=1)
        return make_ranking(
            self.name,
            values,
            started,
            removal_costs=relative_to_group(values, context.coupling),
            choice=f"sum of |w| {_CHOICE}; {PER_GROUP}",
        )


@dataclass(frozen=True, kw_only=True)
class L2:
    """Root of the sum of w^2 of a channel's filter, as in He et al., Soft Filter Pruning (IJCAI 2018).

    Coupled channels: squares add over the layers that produce them (group L2 norm, Fang et al., DepGraph,
    CVPR 2023). Costs are the squares, made relative to their group (``relative_to_group``).
    """

    name: str = "l2"
    summary: str = "root of the sum of the squared weights of the channel's filters (He et al. 2018)"

    def passes(self, context: ScoringContext) -> int:
        """None: only weights are read."""
        return 0

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by weights; needs no image."""
        started = time.perf_counter()
        squares = filter_sums(context, power=2)
        return make_ranking(
            self.name,
            np.sqrt(squares),
            started,
            removal_costs=relative_to_group(squares, context.coupling),
            choice=f"L2 norm {_CHOICE}; costs are squares; {PER_GROUP}",
        )


def filter_sums(context: ScoringContext, *, power: int) -> FloatArray:
    """Sum of |w|^power (num_players,) over the filters of every player."""
    count = context.coupling.num_players
    total = np.zeros(count)
    for layer, filters in producers(context.captured, context.coupling):
        sums = filters.abs().pow(power).sum(1).numpy()
        total += over_positions(sums, layer.out_players, count)
    return total
