"""Bias correction of values from gradients, by exact differences instead of derivatives."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method
from edgeprune.shapley.estimators.multilinear import check_range, draw_memberships
from edgeprune.shapley.estimators.semivalue import gains_at
from edgeprune.shapley.game import CountedGame, DifferentiableGame

PASS_WITH_GRADIENT = 3
"""Forward passes that a forward and a backward pass take."""

_LEAST_FOR_COEFFICIENT = 4
_LEAST_FOR_OWN_COEFFICIENT = 24


def corrected(
    game: DifferentiableGame,
    start: Estimate,
    *,
    players: IndexArray,
    coalitions: int,
    q_low: float,
    q_high: float = 1.0,
    rng: np.random.Generator,
    groups: tuple[IndexArray, ...] | None = None,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Values of ``players`` (p,) from ``multilinear`` without the bias of its derivatives; others unchanged.

    At every drawn coalition S, on all images of ``game`` in common, the derivative d_i(S) and the exact gain
    e_i(S) = v(S + i) - v(S) are both measured. The value is b D_i + mean of (e_i - b d_i), where D_i is the
    start's value: the derivatives are a control variate whose expectation is known from many more
    coalitions. This is unbiased for any fixed b, and remains so since b is fitted to all coalitions but the
    one that it is applied to. b minimises the variance, the start's own included: near 1 where derivatives
    follow the gains, near 0 where they are uninformative (or the start is too coarse), which leaves the
    plain mean of exact gains. From 24 coalitions on every player has its own b, with fewer the players of
    one of ``groups`` share one (all of ``players`` by default); below 4 it is 1.

    Standard errors: the root of b**2 times the start's squared error plus the squared error of the mean of
    the differences over coalitions. Give a start with equal weights, since the derivative at S itself follows
    the gain there most closely, and with ``fixed_images``: errors that include the variance over images are
    too large, which makes the errors here too large and b too small. A ``game`` narrowed to fewer images
    uses the difference on these for that on all, which no error stated here covers.

    ``evaluations`` are those of the correction alone, in forward passes of all images of ``game``: p + 1
    coalition values and one pass with gradients, which counts as 3, for every coalition.

    Raises:
        UsageError: a start that is not a mean over images by ``multilinear`` with equal weights, or of
            another number of players; players not among them or named twice; fewer than 2 coalitions; groups
            that do not hold every player once.
    """
    check_range(q_low, q_high)
    groups = (players,) if groups is None else groups
    _check(game, start, players, coalitions, groups)
    counted = CountedGame(game)
    exact, derived = np.empty((coalitions, len(players))), np.empty((coalitions, len(players)))
    for row in range(coalitions):
        drawn = draw_memberships(1, game.num_players, q_low, q_high, rng).memberships
        exact[row] = gains_at(counted, drawn[0] > 0.0, players)
        derived[row] = _derivatives_at(game, drawn, players)
        advance(1)
    own_start, own_errors = start.values[players], start.standard_errors[players]
    slopes = _slopes(exact, derived, own_errors, [np.flatnonzero(np.isin(players, g)) for g in groups])
    values, errors = start.values.copy(), start.standard_errors.copy()
    values[players] = (exact - slopes * (derived - own_start)).mean(axis=0)
    scatter = (exact - slopes * derived).var(axis=0, ddof=1) / coalitions
    errors[players] = np.sqrt(np.square(slopes.mean(axis=0) * own_errors) + scatter)
    return Estimate(
        values=values,
        standard_errors=errors,
        evaluations=counted.evaluations + PASS_WITH_GRADIENT * coalitions,
        empty_value=start.empty_value,
        grand_value=start.grand_value,
        method=Method.MULTILINEAR,
        choice=f"{start.choice}; then {len(players)} players corrected by exact gains at {coalitions} "
        "coalitions",
    )


def _derivatives_at(game: DifferentiableGame, memberships: FloatArray, players: IndexArray) -> FloatArray:
    """Mean over all images of the derivatives of ``players`` (p,) at one coalition (1, n)."""
    images = np.arange(game.num_images)
    everywhere = np.broadcast_to(memberships, (len(images), game.num_players))
    return np.asarray(game.marginals(everywhere, images).mean(axis=0)[players])


def _slopes(
    exact: FloatArray, derived: FloatArray, start_errors: FloatArray, groups: list[IndexArray]
) -> FloatArray:
    """The coefficient b (c, p) for every coalition, fitted to the others."""
    count = len(exact)
    slopes = np.ones_like(exact)
    if count < _LEAST_FOR_COEFFICIENT:
        return slopes
    together = _without_each(exact, derived) / (count - 2)
    alone = _without_each(derived, derived) / (count - 2)
    # The mean of the differences has the variance of one over the count; the start's is not divided.
    known = count * np.square(start_errors)
    if count >= _LEAST_FOR_OWN_COEFFICIENT:
        return _quotient(together, alone + known)
    for group in groups:
        shared = _quotient(together[:, group].sum(axis=1), (alone + known)[:, group].sum(axis=1))
        slopes[:, group] = shared[:, None]
    return slopes


def _without_each(left: FloatArray, right: FloatArray) -> FloatArray:
    """Sums of products about the mean (c, p) of all coalitions but each one."""
    count = len(left)
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    return np.asarray((left * right).sum(axis=0) - left * right * (count / (count - 1)))


def _quotient(above: FloatArray, below: FloatArray) -> FloatArray:
    """The quotient, 0 where nothing varies: there the derivatives add no information to the exact gains."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(below > 0.0, above / below, 0.0))


def _check(
    game: DifferentiableGame,
    start: Estimate,
    players: IndexArray,
    coalitions: int,
    groups: tuple[IndexArray, ...],
) -> None:
    if start.method is not Method.MULTILINEAR or start.aggregate is not Aggregate.MEAN:
        raise UsageError(
            f"an estimate by {start.method.value}, {start.aggregate.value} over images, cannot be corrected: "
            "give the mean by multilinear with equal weights, as only means are corrected by mean differences"
        )
    n = game.num_players
    if len(start.values) != n:
        raise UsageError(
            f"the start has {len(start.values)} players and the game {n}: give those of one game"
        )
    named = players.tolist()
    if not named or len(set(named)) != len(named) or not set(named) <= set(range(n)):
        raise UsageError(f"players={named} is not accepted: give different players from 0 to {n - 1}")
    if coalitions < 2:
        raise UsageError(f"coalitions={coalitions} is too few to state an error: give 2 or more")
    grouped = [player for group in groups for player in group.tolist() if player in set(named)]
    if sorted(grouped) != sorted(named):
        raise UsageError(
            "groups must hold every one of the players to correct once: leave groups out, or mend"
        )
