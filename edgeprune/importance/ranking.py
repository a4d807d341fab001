"""Rank every player of a network, and say what it costs to let players of a group go together.

*Values* are Shapley values, or semivalues near the size that survives, by gradients of the multilinear
extension, exact in small groups. *Removal costs* come from the quadratic model of the same game
(``shapley.quadratic``) around coalitions like those that survive: what a set costs is not the sum of its
members' values, since each absent channel makes others harder to express.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.choices import DEFAULT_CRITERION
from edgeprune.artifacts.coupling import CoupledGroup, CouplingGraph
from edgeprune.artifacts.pruning import Aggregate, MultilinearEstimate, Ranking, RankingMethod
from edgeprune.shapley.aggregate import aggregate
from edgeprune.shapley.checkpoint import Checkpoint, NoCheckpoint, State, generator_state, set_generator
from edgeprune.shapley.estimators.exact import exact
from edgeprune.shapley.estimators.multilinear import DerivativeWeights, multilinear
from edgeprune.shapley.game import DifferentiableGame, Game
from edgeprune.shapley.quadratic import QuadraticGame, QuadraticPlace
from edgeprune.shapley.subgame import SubGame

_MIN_SAMPLES = 256
_FEWEST_SAMPLES = 128
_MAX_COST_SAMPLES = 4096
_SAMPLES_PER_PLAYER = 16
_WORK_MACS = 0.9e12
_COST_WORK_MACS = 0.51e12
_EXACT_WORK_MACS = 0.34e12
_MAX_EXACT_EVALUATIONS = 8192
_BATCH = 32
_LEAST_BATCH = 8
_BATCHES = 96


class GatheredMoments(Protocol):
    """What errors at the mask points do to the outputs, squared, over coalitions."""

    def add(self, coalition: NDArray[np.bool_], images: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Gather one backward pass at a coalition (n,) over images (b,)."""
        ...

    def places(self) -> tuple[QuadraticPlace, ...]:
        """The quadratic model of every place where absent channels are reconstructed."""
        ...

    def masked_players(self) -> NDArray[np.bool_]:
        """Players (n,) whom the places do not tell in full."""
        ...

    def state(self) -> State:
        """All that was gathered, for ``restore``."""
        ...

    def restore(self, state: State) -> None:
        """Go on from what ``state`` gave."""
        ...

    def squares(self) -> NDArray[np.float64]:
        """Expected squared change (n,) of the outputs with each player's own membership."""
        ...


class NetworkGame(DifferentiableGame, Protocol):
    """A differentiable game that says what its loss is and can be narrowed to fewer images."""

    @property
    def evaluations(self) -> int:
        """Passes of one batch so far."""
        ...

    @property
    def loss_description(self) -> str:
        """The loss in words."""
        ...

    def second_moments(self) -> GatheredMoments:
        """An empty gatherer of what errors at the mask points do to the outputs."""
        ...

    def on_images(self, count: int) -> Game:
        """The same game on the first ``count`` images."""
        ...


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """How values are estimated.

    ``samples`` is the number of (image, coalition) pairs of the values' gradient estimate, at least one
    pass over all images, ``cost_samples`` that of the removal costs, whose coalitions have inclusion
    probabilities from ``cost_q_low`` to 1. Groups of up to ``exact_players`` players get exact values, on
    as many images as keep coalitions x images within ``exact_image_evaluations``.
    """

    samples: int = 8192
    cost_samples: int = 4096
    batch: int = _BATCH
    aggregate: Aggregate = Aggregate.RMS
    q_low: float = 0.8
    q_high: float = 1.0
    cost_q_low: float = 0.8
    exact_players: int = 8
    exact_image_evaluations: int = _MAX_EXACT_EVALUATIONS


def inclusion_law(ratio: float) -> tuple[float, float]:
    """Range of inclusion probabilities for a share ``ratio`` of MACs to remove.

    Coalitions must look like the network that survives: measured on ResNet-20, [0.8, 1] is best when 25%
    go and [0.3, 0.9] when 50% go; in between and beyond the line through both, within [0.2, 0.9] and
    [0.7, 1].
    """
    return float(np.clip(1.3 - 2.0 * ratio, 0.2, 0.9)), float(np.clip(1.1 - 0.4 * ratio, 0.7, 1.0))


def cost_law(ratio: float) -> float:
    """Least inclusion probability of the removal costs' coalitions for a share ``ratio`` of MACs to remove.

    They stay nearer to the whole network than those of values do: on ResNet-20 at 50%, [0.6, 1] left a
    divergence of 0.245 from the original on images not used where [0.3, 0.9] left 0.292.
    """
    return max(0.2, 1.0 - 0.8 * ratio)


def affordable_samples(num_players: int, macs_per_image: int, work_macs: float = _WORK_MACS) -> int:
    """(Image, coalition) pairs by default: 16 a player, within so many multiply-adds, 256 at least.

    A pair costs about three times a forward pass. Few are enough: on ResNet-20 at 50%, removal costs from
    256 pairs in 32 coalitions left a divergence of 0.296 and 0.305, from 4,096 one of 0.320. So searches of
    large networks, which rank several times, spend less on removal costs than on values.
    """
    by_work = int(work_macs // max(1, 3 * macs_per_image))
    return max(_MIN_SAMPLES, min(_SAMPLES_PER_PLAYER * num_players, by_work))


def options_for(coupling: CouplingGraph, ratio: float, *, work: float = 1.0) -> RankingOptions:
    """What fits a network and the share ``ratio`` of its MACs that is to go.

    A batch of the removal costs has one coalition, so few samples come in smaller batches. ``work``: how many
    times the usual number of samples, though no fewer than ``_FEWEST_SAMPLES``.
    """
    low, high = inclusion_law(ratio)
    players, macs = coupling.num_players, coupling.total_macs()

    def scaled(usual: int) -> int:
        return usual if work == 1.0 else max(min(usual, _FEWEST_SAMPLES), int(work * usual))

    samples = scaled(affordable_samples(players, macs))
    return RankingOptions(
        samples=samples,
        cost_samples=scaled(min(affordable_samples(players, macs, _COST_WORK_MACS), _MAX_COST_SAMPLES)),
        batch=max(_LEAST_BATCH, min(_BATCH, samples // _BATCHES)),
        q_low=low,
        q_high=high,
        cost_q_low=cost_law(ratio),
        exact_image_evaluations=int(
            work * min(_MAX_EXACT_EVALUATIONS, int(_EXACT_WORK_MACS // max(1, macs)))
        ),
    )


def total_passes(game: Game, options: RankingOptions) -> int:
    """Forward-backward passes of the gradient estimate, of one batch each (for progress displays)."""
    rounds = max(1, math.ceil(options.samples / game.num_images))
    return rounds * math.ceil(game.num_images / options.batch) + cost_passes(options)


def rank(
    game: NetworkGame,
    groups: tuple[CoupledGroup, ...],
    *,
    rng: np.random.Generator,
    options: RankingOptions | None = None,
    advance: Callable[[int], None] = lambda _units: None,
    checkpoints: Callable[[str], Checkpoint] = lambda _name: NoCheckpoint(),
) -> Ranking:
    """Value every player of ``game``; deterministic for a given ``rng``.

    ``checkpoints`` gives for "values" and for "costs" where that estimate is kept, so that a run that was
    stopped goes on and ends the same.
    """
    options = options or RankingOptions()
    started = time.perf_counter()
    estimate = multilinear(
        game,
        passes=max(1, math.ceil(options.samples / game.num_images)),
        q_low=options.q_low,
        q_high=options.q_high,
        aggregate=options.aggregate,
        weights=_weights(options.aggregate),
        batch=options.batch,
        rng=rng,
        advance=advance,
        checkpoint=checkpoints("values"),
    )
    before = game.evaluations
    values, errors = estimate.values.copy(), estimate.standard_errors.copy()
    methods = dict.fromkeys((g.name for g in groups), RankingMethod.MULTILINEAR)
    for group in groups:
        if 2 <= len(group.players) <= options.exact_players:
            _refine_exactly(game, group, values, errors, options)
            methods[group.name] = RankingMethod.EXACT
    exact_evaluations = game.evaluations - before
    costs = removal_costs(
        game, groups, rng=rng, options=options, advance=advance, checkpoint=checkpoints("costs")
    )
    exact_groups = sum(method is RankingMethod.EXACT for method in methods.values())
    return Ranking(
        criterion=DEFAULT_CRITERION,
        values=values,
        removal_costs=costs,
        standard_errors=errors,
        evaluations=estimate.evaluations + exact_evaluations + cost_passes(options),
        images=game.num_images,
        duration_s=time.perf_counter() - started,
        choice=(
            f"removal costs from second moments of {options.cost_samples} projected gradients; values: "
            f"gradients of the multilinear extension, {options.aggregate.value} over images, inclusion "
            f"probabilities {options.q_low:.2f} to {options.q_high:.2f}, loss: {game.loss_description}; "
            f"exact values in {exact_groups} of {len(methods)} groups"
        ),
        loss=game.loss_description,
        estimate=MultilinearEstimate(
            group_methods=methods, aggregate=options.aggregate, q_low=options.q_low, q_high=options.q_high
        ),
    )


def _weights(aggregate: Aggregate) -> DerivativeWeights:
    """Of derivatives, by what becomes of them: squares gain nothing from counting both ends alike.

    150 channels of ResNet-20, gains at 8 coalitions of [0.8, 1]: after 240 coalitions means err by 0.45 with
    equal weights and by 0.32 with trapezoidal ones (factors up to 5), root mean squares by 0.15 and 0.14;
    after 24 these err by 0.16 and 0.20.
    """
    return DerivativeWeights.TRAPEZOIDAL if aggregate is Aggregate.MEAN else DerivativeWeights.EQUAL


def cost_passes(options: RankingOptions) -> int:
    """Backward passes of the removal costs, of one batch each."""
    return math.ceil(options.cost_samples / options.batch)


def removal_costs(
    game: NetworkGame,
    groups: tuple[CoupledGroup, ...],
    *,
    rng: np.random.Generator,
    options: RankingOptions,
    advance: Callable[[int], None] = lambda _units: None,
    checkpoint: Checkpoint | None = None,
) -> FloatArray:
    """What each player (n,) adds to the squared change of the outputs when its group leaves in order.

    Where a player enters a consumer unreconstructed there is no model: its own squared change counts.
    """
    checkpoint = checkpoint or NoCheckpoint()
    moments = _gather_moments(game, rng, options, advance, checkpoint)
    costs, masked, places = moments.squares(), moments.masked_players(), moments.places()
    for group in groups:
        players = np.array(group.players)
        if masked[players].any():
            continue
        own = tuple(p for p in places if np.isin(p.players, players).any())
        found = QuadraticGame(own, players).eliminate()
        costs[players[found.order]] = rising(found.costs)
    return costs


def _gather_moments(
    game: NetworkGame,
    rng: np.random.Generator,
    options: RankingOptions,
    advance: Callable[[int], None],
    checkpoint: Checkpoint,
) -> GatheredMoments:
    """Second moments over batches of images, each with a coalition of its own."""
    moments = game.second_moments()
    order, done = np.empty(0, dtype=np.int64), 0
    if (found := checkpoint.restored()) is not None:
        moments.restore(found)
        order, done = found["order"], int(found["done"])
        set_generator(rng, found["rng"])
        advance(done)

    def state() -> State:
        return {**moments.state(), "order": order, "done": np.array(done), "rng": generator_state(rng)}

    while done < cost_passes(options):
        if len(order) < options.batch:
            order = np.concatenate([order, rng.permutation(game.num_images)])
        images, order = order[: options.batch], order[options.batch :]
        drawn = rng.random(game.num_players) < rng.uniform(options.cost_q_low, 1.0)
        moments.add(drawn, images, rng)
        done += 1
        checkpoint.offer(state)
        advance(1)
    checkpoint.keep(state)
    return moments


def rising(costs: FloatArray) -> FloatArray:
    """Costs (n,) none of which is less than or equal to one before it, so that sorting keeps their order."""
    steps = np.maximum.accumulate(costs)
    return np.asarray(steps + max(float(steps[-1]), 1e-30) * 1e-12 * np.arange(len(steps)))


def _refine_exactly(
    game: NetworkGame,
    group: CoupledGroup,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    errors: np.ndarray[tuple[int], np.dtype[np.float64]],
    options: RankingOptions,
) -> None:
    """Exact values order and apportion a small group; its total stays that of the joint game.

    The exact game has everyone else present while the joint one does not, so only shares can be taken
    over: the group's root sum of squares is kept, since squares are what adds up.
    """
    players = np.array(group.players)
    images = max(8, min(game.num_images, options.exact_image_evaluations // 2 ** len(players)))
    per_image = exact(SubGame(game.on_images(images), players))
    own, own_errors = aggregate(per_image, options.aggregate)
    size = float(np.sqrt(np.square(own).sum()))
    if size == 0.0:
        return
    scale = float(np.sqrt(np.square(values[players]).sum())) / size
    values[players] = own * scale
    errors[players] = own_errors * scale
