"""Power that a channel contributes to its consumers' outputs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.artifacts.coupling import MaskPoint
from edgeprune.artifacts.pruning import Ranking
from edgeprune.games.channel_activity import IMAGES_AT_ONCE, channel_activations
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import (
    affordable_images,
    fewer_images_note,
    make_ranking,
    named,
    over_positions,
)
from edgeprune.importance.layer_weights import reading_power
from edgeprune.pruning.masking import mask_sources


@dataclass(frozen=True, kw_only=True)
class ActivationWeight:
    """Root mean square of the channel times the norm of the weights that read it.

    Wanda's |W_ij| ||X_j||_2 (Sun et al., ICLR 2024), squared and summed over the outputs i and kernel
    positions of every consumer: the power that the channel alone adds to its consumers' outputs. Squares
    add over consumers and positions; costs are the squares. A consumer without weights counts with weight 1.
    """

    name: str = "activation-weight"
    summary: str = (
        "rms activation times the norm of the weights that read the channel (cf. Wanda, Sun et al. 2024)"
    )

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images."""
        return math.ceil(affordable_images(context, at_once=IMAGES_AT_ONCE) / IMAGES_AT_ONCE)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by one pass over the images."""
        started = time.perf_counter()
        images = affordable_images(context, at_once=IMAGES_AT_ONCE)
        activations = channel_activations(
            context.running, context.coupling, context.images.images[:images], advance=advance
        )
        squares = {key: value.mean_square for key, value in activations.items()}
        costs, notes = read_power(context, squares)
        return make_ranking(
            self.name,
            np.sqrt(costs),
            started,
            removal_costs=costs,
            evaluations=math.ceil(images / IMAGES_AT_ONCE),
            images=images,
            choice="mean square of the channel where it enters a consumer, times the squared norm of the "
            "weights that read it, added over consumers; values are roots",
            notes=(*fewer_images_note(context, images), *notes),
        )


def read_power(
    context: ScoringContext, squares: dict[tuple[str, int], Tensor]
) -> tuple[FloatArray, tuple[str, ...]]:
    """Power (num_players,) that players add to their consumers, from that of every source's channels (C,).

    The notes name consumers without weights.
    """
    count = context.coupling.num_players
    costs = np.zeros(count)
    weightless: list[str] = []
    for source, dim, points in mask_sources(context.coupling):
        total, without = _reading(context, points)
        weightless += without
        costs += over_positions((total * squares[source, dim]).numpy(), points[0].players, count)
    if not weightless:
        return costs, ()
    return costs, (
        f"{len(weightless)} places where channels enter have no weights of their own ({named(weightless)}); "
        "there, a channel counts with weight 1",
    )


def _reading(context: ScoringContext, points: list[MaskPoint]) -> tuple[Tensor, list[str]]:
    """Squared norm (C,) of all weights that read a source, and the consumers without weights."""
    total = torch.zeros(points[0].players.size, dtype=torch.float64)
    without = []
    for point in points:
        power = reading_power(context.captured, context.coupling, point)
        if power is None:
            without.append(point.consumer)
        total += 1.0 if power is None else power
    return total, without
