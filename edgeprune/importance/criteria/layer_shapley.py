"""Shapley values of every group's own game, with all other groups complete."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.coupling import CoupledGroup
from edgeprune.artifacts.pruning import Ranking
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.layer_game import LayerGame, narrowed
from edgeprune.games.linear_suffix import nonlinear_nodes
from edgeprune.games.suffix import cut_at_masks
from edgeprune.importance.base import ScoringContext
from edgeprune.importance.combining import fewer_images_note, make_ranking, named
from edgeprune.importance.criteria.greedy import isotonic
from edgeprune.pruning.masking import mask_module
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.hybrid import hybrid
from edgeprune.shapley.estimators.refine import beam_removal
from edgeprune.shapley.game import CountedGame, Game

_EVALUATIONS_PER_PLAYER = 10
_EXACT_BY_DEFAULT = 8
_EXACT_WHERE_LINEAR = 12
_MOST_EXACT = 14
_VALUES_SHARE = (6, 10)
"""Of a group's evaluations, the rest tries removals; all go into the table where that is affordable."""

_WORK_MACS = 1.6e13
_FEWEST_IMAGES = 64
_TIE_BREAK = 1e-9
_CACHE_BYTES = 2**30


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
        batch, reference = _originals(context, plan.images)
        spent = 0
        chosen: dict[str, list[str]] = {}
        for group, allowed in zip(plan.groups, plan.coalitions, strict=True):
            players = list(group.players)
            with _game(context, group, batch, reference) as game:
                estimate = value_players(
                    game,
                    max_evaluations=allowed,
                    rng=streams[group.name],
                    advance=lambda units: advance(units * plan.passes_each),
                )
            advance((allowed - estimate.evaluations) * plan.passes_each)
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
class PlayerValues:
    """Values, errors and removal costs (n,) of one game's players, and how they were estimated."""

    values: FloatArray
    standard_errors: FloatArray
    removal_costs: FloatArray
    evaluations: int
    choice: str


def value_players(
    game: Game, *, max_evaluations: int, rng: np.random.Generator, advance: Advance = lambda _units: None
) -> PlayerValues:
    """Shapley values and the costs of removing one player after the other.

    Raises:
        UsageError: the limit is below both n + 2 and 2**n.
    """
    counted = CountedGame(game, max_evaluations=max_evaluations, cache_bytes=_CACHE_BYTES, advance=advance)
    n = counted.num_players
    exact = n <= _MOST_EXACT and 2**n <= max_evaluations
    part, whole = _VALUES_SHARE
    share = max_evaluations if exact else max(least_evaluations(n), max_evaluations * part // whole)
    estimate = hybrid(counted, max_evaluations=share, rng=rng)
    if exact:
        path = CoalitionTable.of(counted).best_trajectory()
        order, costs, searched = path.removed, -np.diff(path.values), "costs along the best order of all"
    elif counted.remaining > n:
        candidates = max(1, counted.remaining // n)
        run = beam_removal(
            counted, remove=n, scores=estimate.values, max_evaluations=counted.remaining, beam=1,
            candidates=candidates,
        )  # fmt: skip
        order, costs = _order(run.kept), -np.diff(run.values)
        searched = f"costs measured, up to {min(candidates, n)} of least value tried at each removal"
    else:
        order, searched = np.argsort(estimate.values, kind="stable"), "costs are values"
        costs = estimate.values[order]
    result = np.empty(n)
    step = _TIE_BREAK * float(np.abs(costs).max())
    result[order] = isotonic(costs) + step * np.arange(n)
    return PlayerValues(
        values=estimate.values,
        standard_errors=estimate.standard_errors,
        removal_costs=result,
        evaluations=counted.evaluations,
        choice=f"{estimate.choice}, {searched}",
    )


def least_evaluations(players: int) -> int:
    """Coalition values that the cheapest estimate for a number of players takes."""
    return players + 2 if players > 2 else 2**players


def _order(kept: tuple[tuple[int, ...], ...]) -> IndexArray:
    """The player removed at each step of nested sets."""
    steps = itertools.pairwise(kept)
    return np.array([next(iter(set(a) - set(b))) for a, b in steps], dtype=np.int64)


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
        if n <= _MOST_EXACT:
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
    parts = []
    with torch.no_grad():
        for chunk in torch.split(batch.images, context.game.images_at_once):
            outputs = tensor_leaves(context.running.graph_module(chunk.to(context.device)))
            parts.append([output.cpu() for output in outputs])
    return batch, [torch.cat(p) for p in zip(*parts, strict=True)]


@contextlib.contextmanager
def _game(
    context: ScoringContext, group: CoupledGroup, batch: ImageBatch, reference: list[Tensor]
) -> Iterator[Game]:
    """A group's game, its values stored where there is a journal."""
    game = LayerGame(
        context.running,
        context.coupling,
        group.players,
        batch,
        reference,
        memory_limit_bytes=context.memory_limit_bytes,
    )
    if context.journals is None:
        yield game
        return
    number = [g.name for g in context.coupling.groups].index(group.name)
    with context.journals.open(game, f"group-{number}-of-{len(batch)}-images") as kept:
        yield kept


def _words(chosen: dict[str, list[str]]) -> str:
    """Description of the estimates, and of their groups."""
    parts = [
        f"{choice} ({len(groups)} groups: {named(groups)})" if len(chosen) > 1 else choice
        for choice, groups in chosen.items()
    ]
    return "; ".join(parts) or "no group was asked for"
