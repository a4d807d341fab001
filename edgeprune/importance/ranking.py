"""Rank every player of a network, and estimate the cost of removing players of a group together.

*Values* are Shapley values, or semivalues near the size after pruning, by gradients of the multilinear
extension, exact in small groups. *Removal costs* come from the quadratic model of the same game
(``shapley.quadratic``) around coalitions like the pruned network: the cost of a set is not the sum of its
members' values, since each absent channel makes others harder to reconstruct.
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
    """Squared output changes caused by errors at the mask points, over coalitions."""

    def add(self, coalition: NDArray[np.bool_], images: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Accumulate one backward pass at a coalition (n,) over images (b,)."""
        ...

    def places(self) -> tuple[QuadraticPlace, ...]:
        """The quadratic model of every place where absent channels are reconstructed."""
        ...

    def check_finite(self) -> None:
        """Raise a :class:`CalibrationError` if what was accumulated is NaN or infinite."""
        ...

    def masked_players(self) -> NDArray[np.bool_]:
        """Players (n,) that the places do not cover fully."""
        ...

    def state(self) -> State:
        """All accumulated sums, for ``restore``."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a result of ``state``."""
        ...

    def squares(self) -> NDArray[np.float64]:
        """Expected squared change (n,) of the outputs with each player's own membership."""
        ...


class NetworkGame(DifferentiableGame, Protocol):
    """A differentiable game that describes its loss and can be narrowed to fewer images."""

    @property
    def evaluations(self) -> int:
        """Batch passes so far."""
        ...

    @property
    def loss_description(self) -> str:
        """The loss in words."""
        ...

    def second_moments(self) -> GatheredMoments:
        """An empty accumulator of the output changes caused by errors at the mask points."""
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

    Coalitions must resemble the pruned network: measured on ResNet-20, [0.8, 1] is best when 25% are
    removed and [0.3, 0.9] at 50%; other ratios follow the line through both, within [0.2, 0.9] and
    [0.7, 1].
    """
    return float(np.clip(1.3 - 2.0 * ratio, 0.2, 0.9)), float(np.clip(1.1 - 0.4 * ratio, 0.7, 1.0))


def cost_law(ratio: float) -> float:
    """Least inclusion probability of the removal costs' coalitions for a share ``ratio`` of MACs to remove.

    They are closer to the full network than those of the values: on ResNet-20 at 50%, [0.6, 1] left a
    divergence of 0.245 from the original on held-out images, [0.3, 0.9] one of 0.292.
    """
    return max(0.2, 1.0 - 0.8 * ratio)


def affordable_samples(num_players: int, macs_per_image: int, work_macs: float = _WORK_MACS) -> int:
    """Default number of (image, coalition) pairs: 16 per player, within ``work_macs``, 256 at least.

    A pair costs about three forward passes. Few are enough: on ResNet-20 at 50%, removal costs from
    256 pairs in 32 coalitions left a divergence of 0.296 and 0.305, from 4,096 one of 0.320. So searches of
    large networks, which rank several times, spend less on removal costs than on values.
    """
    by_work = int(work_macs // max(1, 3 * macs_per_image))
    return max(_MIN_SAMPLES, min(_SAMPLES_PER_PLAYER * num_players, by_work))


def options_for(coupling: CouplingGraph, ratio: float, *, work: float = 1.0) -> RankingOptions:
    """Options for a network and the share ``ratio`` of its MACs to remove.

    A batch of the removal costs has one coalition, so few samples use smaller batches. ``work`` scales the
    usual number of samples, though to no fewer than ``_FEWEST_SAMPLES``.
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

    ``checkpoints`` gives the checkpoints of the estimates "values" and "costs", so that an interrupted run
    resumes with the same result.
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
    """Derivative weights for an aggregate: squares gain nothing from trapezoidal weights.

    150 channels of ResNet-20, gains at 8 coalitions of [0.8, 1]: after 240 coalitions the error of means is
    0.45 with equal weights and 0.32 with trapezoidal ones (factors up to 5), that of root mean squares 0.15
    and 0.14; after 24 coalitions the latter is 0.16 and 0.20.
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
    """What each player (n,) adds to the squared output change when its group is removed in order.

    A group with players that enter a consumer unreconstructed has no model: own squared changes count.

    Raises:
        CalibrationError: gradients are NaN or infinite.
    """
    checkpoint = checkpoint or NoCheckpoint()
    moments = _gather_moments(game, rng, options, advance, checkpoint)
    moments.check_finite()
    costs, masked, places = moments.squares(), moments.masked_players(), moments.places()
    for group in groups:
        players = np.array(group.players)
        if masked[players].any():
            continue
        own = tuple(p for p in places if np.isin(p.players, players).any())
        elimination = QuadraticGame(own, players).eliminate()
        costs[players[elimination.order]] = rising(elimination.costs)
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
    if (restored := checkpoint.restored()) is not None:
        moments.restore(restored)
        order, done = restored["order"], int(restored["done"])
        set_generator(rng, restored["rng"])
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
    """Costs (n,) made strictly increasing, so that sorting keeps their order."""
    steps = np.maximum.accumulate(costs)
    return np.asarray(steps + max(float(steps[-1]), 1e-30) * 1e-12 * np.arange(len(steps)))


def _refine_exactly(
    game: NetworkGame,
    group: CoupledGroup,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    errors: np.ndarray[tuple[int], np.dtype[np.float64]],
    options: RankingOptions,
) -> None:
    """Replace the values of a small group by exact ones, rescaled to its total in the joint game.

    The exact game has all other players present while the joint one does not, so only shares are used:
    the group's root sum of squares is kept, since squares add up.
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
