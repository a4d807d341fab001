"""Share of a channel's activations that are not zero."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.fx import op_name
from edgeprune.games.channel_activity import IMAGES_AT_ONCE, channel_activations
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import (
    PER_GROUP,
    affordable_images,
    fewer_images_note,
    make_ranking,
    named,
    over_positions,
    relative_to_group,
)

_RECTIFIERS = frozenset(("relu", "relu_", "hardtanh", "hardtanh_", "relu6", "hardswish", "hardswish_"))
"""Activation functions that are exactly zero on a whole range, as captured graphs name them."""


@dataclass(frozen=True, kw_only=True)
class Apoz:
    """Share of activations that are not zero: 1 - APoZ of Hu et al., Network Trimming (2016).

    Taken after each rectifier that the channel passes, before any pooling, the mean over these places. Costs
    are relative to their group (``relative_to_group``): Hu et al. compare within a layer, and how sparse a
    layer is depends on its activation function. Groups without a rectifier or any zero get equal scores, with
    a note.
    """

    name: str = "apoz"
    summary: str = "share of activations that are not zero (APoZ, Hu et al. 2016)"

    def passes(self, context: ScoringContext) -> int:
        """One pass over the images."""
        return math.ceil(affordable_images(context, at_once=IMAGES_AT_ONCE) / IMAGES_AT_ONCE)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by one pass over the images.

        Raises:
            UsageError: no channel is ever exactly zero, as without ReLU.
        """
        started = time.perf_counter()
        coupling = context.coupling
        count = coupling.num_players
        images = affordable_images(context, at_once=IMAGES_AT_ONCE)
        places = _rectified(context)
        activations = channel_activations(
            context.running,
            coupling,
            context.images.images[:images],
            places=places,
            advance=advance,
        )
        zeros, positions = np.zeros(count), np.zeros(count)
        for place in places:
            players = coupling.node_players[place]
            zeros += over_positions(activations[place].zero_share.numpy(), players, count)
            positions += over_positions(np.ones(players.size), players, count)
        values = 1.0 - zeros / np.maximum(positions, 1.0)
        dense = [g.name for g in coupling.groups if (zeros[list(g.players)] == 0.0).all()]
        if count and len(dense) == len(coupling.groups):
            raise UsageError(
                "the criterion apoz needs activations that are exactly zero, as after ReLU, and no prunable "
                "channel of this model has any; take another, such as activation-weight or hybrid"
            )
        notes = [*fewer_images_note(context, images)]
        if dense:
            notes.append(
                f"{len(dense)} groups are never zero after a rectifier ({named(dense)}): their channels are "
                "all equal by this criterion"
            )
        return make_ranking(
            self.name,
            values,
            started,
            removal_costs=relative_to_group(values, coupling),
            evaluations=math.ceil(images / IMAGES_AT_ONCE),
            images=images,
            choice="share of activations that are not zero, after every rectifier that the channel passes; "
            f"{PER_GROUP}",
            notes=tuple(notes),
        )


def _rectified(context: ScoringContext) -> list[tuple[str, int]]:
    """(Node, dimension) of every rectifier's output that carries players."""
    nodes = {n.name for n in context.captured.graph_module.graph.nodes if op_name(n) in _RECTIFIERS}
    return [place for place in context.coupling.node_players if place[0] in nodes]
