"""Shapley values of every group's own game, with all other groups complete."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup
from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.games.layer_game import narrowed
from edgeprune.games.linear_suffix import nonlinear_nodes
from edgeprune.games.suffix import cut_at_masks
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import fewer_images_note, make_ranking, named
from edgeprune.importance.player_values import MOST_EXACT, least_evaluations
from edgeprune.importance.valued_groups import GroupTask, valued_groups
from edgeprune.parity import run_torch
from edgeprune.pruning.masking import mask_module

_EVALUATIONS_PER_PLAYER = 10
_EXACT_BY_DEFAULT = 8
_EXACT_WHERE_LINEAR = 12

_WORK_MACS = 1.6e13
_FEWEST_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class LayerShapley:
    """Shapley values of a group's players in the game among them, all others present.

    Each group's values sum to v(N) - v(N without the group), the loss of all its players together, and
    are those of ``shapley.hybrid`` on a ``LayerGame``: from all coalitions where they fit the group's
    evaluations, else sampled. Errors are sampling errors over coalitions, 0 where nothing was sampled.

    Removal costs: v before minus v after each removal, in the best order by the table, or a greedy one
    among the players of least value; costs that fall get the mean of their run (as in
    ``greedy-leave-one-out``), so that they rise along the order and sum to the measured loss. They are in
    the unit of the loss, which all these games share.

    By default: 10 coalitions per player, all coalitions up to 8 players, or 12 where nothing after the group
    is nonlinear and a coalition costs a matrix product; images within 1.6e13 multiply-adds over all groups,
    64 at least, so that a group's scores do not depend on the other requested groups.
    ``max_evaluations`` is split over the requested groups, by players.
    """

    name: str = "layer-shapley"
    summary: str = (
        "Shapley values of the game among a group's channels, all others present (Shapley 1953); exact where "
        "all coalitions are affordable"
    )

    def passes(self, context: ScoringContext) -> int:
        """Passes of all coalitions planned for the groups."""
        plan = _plan(context)
        return plan.passes_each * sum(plan.coalitions)

    def score(self, context: ScoringContext, *, rng: np.random.Generator, advance: Advance) -> Ranking:
        """Score the requested groups; the others get NaN.

        Raises:
            UsageError: ``max_evaluations`` does not allow leave-one-out in every group, or the memory limit
                not one image.
        """
        started = time.perf_counter()
        plan = _plan(context)
        count = context.coupling.num_players
        values, errors, costs = (np.full(count, np.nan) for _ in range(3))
        # One stream per group, so that no group's result depends on the other requested groups.
        streams = dict(
            zip(
                (g.name for g in context.coupling.groups),
                rng.spawn(len(context.coupling.groups)),
                strict=True,
            )
        )
        spent = 0
        chosen: dict[str, list[str]] = {}
        tasks = [
            GroupTask(group=each, allowed=most, rng=streams[each.name])
            for each, most in zip(plan.groups, plan.coalitions, strict=True)
        ]
        found = valued_groups(
            context, tasks, _originals(context, plan.images), lambda units: advance(units * plan.passes_each)
        )
        for group, estimate in found:
            players = list(group.players)
            values[players], errors[players] = estimate.values, estimate.standard_errors
            costs[players] = estimate.removal_costs
            spent += estimate.evaluations
            chosen.setdefault(estimate.choice, []).append(group.name)
        return make_ranking(
            self.name,
            values,
            started,
            removal_costs=costs,
            standard_errors=errors,
            evaluations=spent * plan.passes_each,
            images=plan.images,
            choice=_words(chosen)
            + "; costs in the unit of the loss, rising along the order of removal; loss: "
            f"{context.game.loss_description}",
            notes=plan.notes,
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Groups and the coalitions allowed for each, the number of images, and batch passes per coalition."""

    groups: tuple[CoupledGroup, ...]
    coalitions: tuple[int, ...]
    images: int
    passes_each: int
    notes: tuple[str, ...]


def _plan(context: ScoringContext) -> _Plan:
    every, at_once = context.coupling.groups, context.game.images_at_once
    groups = tuple(g for g in every if context.groups is None or g.name in context.groups)
    limit = context.max_evaluations
    if limit is None:
        images, notes = _images_within_work(context)
        coalitions = tuple(_by_default(context, g) for g in groups)
    else:
        least = sum(least_evaluations(len(g.players)) for g in groups)
        if limit < least:
            raise UsageError(
                f"max_evaluations={limit} is too few: this criterion needs at least {least} for the "
                f"{len(groups)} groups"
            )
        wanted = _EVALUATIONS_PER_PLAYER * sum(len(g.players) for g in groups)
        images = min(len(context.images), max(1, limit // max(1, wanted)) * at_once)
        notes = fewer_images_note(context, images)
        coalitions = _split(limit // math.ceil(images / at_once), [len(g.players) for g in groups])
    return _Plan(
        groups=groups,
        coalitions=coalitions,
        images=images,
        passes_each=math.ceil(images / at_once),
        notes=notes,
    )


def _by_default(context: ScoringContext, group: CoupledGroup) -> int:
    n = len(group.players)
    exact = n <= _EXACT_BY_DEFAULT or (n <= _EXACT_WHERE_LINEAR and _is_linear(context, group))
    return 2**n if exact else _EVALUATIONS_PER_PLAYER * n


def _is_linear(context: ScoringContext, group: CoupledGroup) -> bool:
    """Whether a coalition of the group costs a matrix product and no replay."""
    own = narrowed(context.coupling, np.array(group.players, dtype=np.int64))
    return not nonlinear_nodes(cut_at_masks(mask_module(context.captured, own)).suffix)


def _split(total: int, sizes: list[int]) -> tuple[int, ...]:
    """Shares of at least the minimum, the rest by players; small groups get at most all coalitions."""
    shares = [0] * len(sizes)
    spare = total - sum(least_evaluations(n) for n in sizes)
    left = sum(sizes)
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        n = sizes[index]
        extra = spare * n // left
        shares[index] = least_evaluations(n) + extra
        if n <= MOST_EXACT:
            shares[index] = min(2**n, shares[index])
        spare -= shares[index] - least_evaluations(n)
        left -= n
    return tuple(shares)


def _images_within_work(context: ScoringContext) -> tuple[int, tuple[str, ...]]:
    work = sum(
        _by_default(context, g) * _replayed_macs(context, g)
        for g in context.coupling.groups
        if not _is_linear(context, g)
    )
    every = len(context.images)
    images = min(every, max(_FEWEST_IMAGES, int(_WORK_MACS // max(1, work))))
    if images > (at_once := context.game.images_at_once) and images < every:
        images -= images % at_once
    if images == every:
        return images, ()
    return images, (
        f"values are means over the first {images} of {every} images, to stay near {_WORK_MACS:.1e} "
        "multiply-adds; max_evaluations sets another limit",
    )


def _replayed_macs(context: ScoringContext, group: CoupledGroup) -> int:
    """MACs per image of all layers from the first mask point of a group on."""
    coupling = context.coupling
    place = {n.name: i for i, n in enumerate(context.captured.graph_module.graph.nodes)}
    points = [p for p in coupling.mask_points if np.isin(p.players, group.players).any()]
    first = min((place[p.consumer] for p in points), default=0)
    present = np.zeros(coupling.num_players, dtype=bool)
    return sum(layer.macs(present) for layer in coupling.layers if place[layer.node] >= first)


def _originals(context: ScoringContext, images: int) -> tuple[ImageBatch, list[Tensor]]:
    """The first images, and the original's outputs on them."""
    batch = context.images.first(images)
    at_once = context.game.images_at_once
    outputs = run_torch(context.running.graph_module, batch.images, batch=at_once)
    return batch, [torch.from_numpy(output) for output in outputs]


def _words(chosen: dict[str, list[str]]) -> str:
    """Description of the estimates, and of their groups."""
    parts = [
        f"{choice} ({len(groups)} groups: {named(groups)})" if len(chosen) > 1 else choice
        for choice, groups in chosen.items()
    ]
    return "; ".join(parts) or "no group was asked for"
