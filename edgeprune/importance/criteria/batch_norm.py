"""Scales of batch norms."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.arrays import Advance, FloatArray
from edgeprune.artifacts.pruning import Ranking
from edgeprune.attributes import get_attribute
from edgeprune.errors import UsageError
from edgeprune.fx import op_name
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import make_ranking, named, over_positions
from edgeprune.importance.criteria.magnitude import filter_sums

_OPS = frozenset(
    ("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm")
)


@dataclass(frozen=True, kw_only=True)
class BatchNormScale:
    """|gamma| of the channel's batch norms: Liu et al., Network Slimming (ICCV 2017).

    Coupled channels: summed over their batch norms. The paper has one threshold for all layers, so values are
    the costs. Groups without batch norm get squared filter norms, scaled to the others' mean, with a note.
    """

    name: str = "bn-scale"
    summary: str = "absolute scale of the channel's batch norms (Liu et al. 2017)"

    def passes(self, context: ScoringContext) -> int:
        """None: only weights are read."""
        return 0

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score by weights; needs no image.

        Raises:
            UsageError: no player has a batch norm with a scale.
        """
        started = time.perf_counter()
        values, held = _scales(context)
        if context.coupling.num_players and not held.any():
            raise UsageError(
                "the criterion bn-scale needs batch norms with scales, and no prunable channel of this model "
                "has one; take another, such as l2 or hybrid"
            )
        lacking = [g for g in context.coupling.groups if not held[list(g.players)].all()]
        if lacking:
            mean = float(values[held].mean())
            squares = filter_sums(context, power=2)
            for group in lacking:
                players = list(group.players)
                own = squares[players].mean()
                values[players] = mean * squares[players] / own if own > 0.0 else 0.0
        return make_ranking(
            self.name,
            values,
            started,
            choice="sum of |scale| over the channel's batch norms, compared over all layers as they are",
            notes=_notes([g.name for g in lacking]),
        )


def _notes(lacking: list[str]) -> tuple[str, ...]:
    if not lacking:
        return ()
    return (
        f"{len(lacking)} groups have no batch norm with a scale ({named(lacking)}); there, squared filter "
        "norms were taken instead, scaled to the mean scale of the other groups",
    )


def _scales(context: ScoringContext) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Sum of |scale| (num_players,) and whether a player has a scale."""
    coupling = context.coupling
    values = np.zeros(coupling.num_players)
    counts = np.zeros(coupling.num_players)
    seen: set[str] = set()
    for node in context.captured.graph_module.graph.nodes:
        if node.op != "call_function" or op_name(node) not in _OPS or len(node.args) < 2:
            continue
        scale = node.args[1]
        if not isinstance(scale, Node) or scale.op != "get_attr" or str(scale.target) in seen:
            continue
        path = str(scale.target)
        seen.add(path)
        players = coupling.parameter_players.get((path, 0))
        if players is None:
            continue
        weight = get_attribute(context.captured.graph_module, path)
        assert isinstance(weight, Tensor)
        magnitudes = weight.detach().double().abs().numpy()
        values += over_positions(magnitudes, players, coupling.num_players)
        counts += over_positions(np.ones(players.size), players, coupling.num_players)
    return values, counts > 0
