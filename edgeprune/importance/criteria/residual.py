"""The part of a channel that the others cannot predict."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.arrays import Advance, IndexArray
from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.artifacts.pruning import Ranking
from edgeprune.games.channel_activity import IMAGES_AT_ONCE, channel_activations
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import affordable_images, fewer_images_note, make_ranking, named
from edgeprune.importance.criteria.activation_weight import read_power
from edgeprune.pruning.masking import mask_sources

RIDGE = 1e-3
"""Share of the mean variance that is added to every channel's, as in the game that knows about recovery."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionResidual:
    """Variance of the channel given all others at the same place, times the squared weights that read it.

    The variance is 1 / diag(K), K the inverse of the (ridged) covariance: the leave-one-out residual of
    linear regression. Times the consumers' squared weights it is the output error that remains after
    reconstruction, the saliency of Optimal Brain Surgeon (Hassibi and Stork 1993, w^2 / 2 [H^-1]_qq) for
    whole input channels, cf. Frantar and Alistarh (2022). Positions of one player are conditioned on those of
    the others only. Squares add over consumers; costs are the squares. Where no layer could absorb a
    reconstruction, the mean square replaces the variance, with a note.
    """

    name: str = "reconstruction-residual"
    summary: str = (
        "variance that the other channels cannot express, times the weights that read it (cf. OBS, 1993)"
    )

    def passes(self, context: ScoringContext) -> int:
        """Two passes over the images: sizes and covariances."""
        images = affordable_images(context, at_once=IMAGES_AT_ONCE, rounds=2)
        return 2 * math.ceil(images / IMAGES_AT_ONCE)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by two passes over the images."""
        started = time.perf_counter()
        coupling = context.coupling
        count = affordable_images(context, at_once=IMAGES_AT_ONCE, rounds=2)
        images = context.images.images[:count]
        batches = math.ceil(count / IMAGES_AT_ONCE)
        activations = channel_activations(context.running, coupling, images, advance=advance)
        statistics = channel_statistics(context.running, coupling, images, images_at_once=IMAGES_AT_ONCE)
        advance(batches)
        squares: dict[tuple[str, int], Tensor] = {}
        alone = []
        for source, dim, points in mask_sources(coupling):
            if (source, dim) in statistics:
                squares[source, dim] = unexplained(statistics[source, dim][1].cpu(), points[0].players)
            else:
                squares[source, dim] = activations[source, dim].mean_square
                alone.append(source)
        costs, notes = read_power(context, squares)
        if alone:
            notes += (
                f"at {len(alone)} places no layer could take over what leaves ({named(alone)}); there, the "
                "mean square was taken",
            )
        return make_ranking(
            self.name,
            np.sqrt(costs),
            started,
            removal_costs=costs,
            evaluations=2 * batches,
            images=count,
            choice=f"variance given the other channels (ridge {RIDGE:g}), times the squared norm of the "
            "weights that read the channel, added over consumers; values are roots",
            notes=(*fewer_images_note(context, count), *notes),
        )


def unexplained(covariance: Tensor, players: IndexArray, *, ridge: float = RIDGE) -> Tensor:
    """Variance (C,) of every channel given the channels of all other players, by covariance (C, C)."""
    lifted = ridge * torch.diagonal(covariance).mean().clamp_min(1e-12)
    regular = covariance + lifted * torch.eye(len(covariance), dtype=covariance.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular))
    result = 1.0 / torch.diagonal(inverse)
    owners, sizes = np.unique(players, return_counts=True)
    for player in owners[(sizes > 1) & (owners != NO_PLAYER)]:
        own = torch.from_numpy(np.flatnonzero(players == player))
        result[own] = torch.diagonal(torch.linalg.inv(inverse[own][:, own]))
    return result
