"""Distance of a filter from the others of its layer."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.pruning import Ranking
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import PER_GROUP, make_ranking, over_positions, relative_to_group
from edgeprune.importance.layer_weights import producers


@dataclass(frozen=True, kw_only=True)
class Fpgm:
    """Sum over the layer's filters of ||F_i - F_j||_2: He et al., FPGM (CVPR 2019).

    The filter nearest the geometric median can be expressed by the others and is removed first. Coupled
    channels: summed over the layers that produce them. Costs are relative to their group
    (``relative_to_group``), since distances grow with width and scale.
    """

    name: str = "fpgm"
    summary: str = "sum of distances to the other filters of the layer (He et al. 2019)"

    def passes(self, context: ScoringContext) -> int:
        """None: only weights are read."""
        return 0

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by weights; needs no image."""
        started = time.perf_counter()
        coupling = context.coupling
        values = np.zeros(coupling.num_players)
        for layer, filters in producers(context.captured, coupling):
            # The matrix product behind the fast variant loses small distances to rounding.
            distances = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
            values += over_positions(distances.numpy(), layer.out_players, coupling.num_players)
        return make_ranking(
            self.name,
            values,
            started,
            removal_costs=relative_to_group(values, coupling),
            choice="sum of Euclidean distances to all filters of the layer, added over the layers that make "
            f"the channel; {PER_GROUP}",
        )
