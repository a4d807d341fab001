"""Shapley values from sampled orders of the players."""

from __future__ import annotations

from enum import Enum

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method, from_units, require, without_choice
from edgeprune.shapley.game import CountedGame, Game
from edgeprune.shapley.image_units import ImageUnits, values_for

_WAVE = 32
_STRATIFIED_UNITS = 8


class Orders(Enum):
    """How orders are drawn; orders of one unit depend on each other, units do not.

    ``INDEPENDENT``: every order separately (Castro, Gómez and Tejada 2009).
    ``ANTITHETIC``: an order and its reverse, exact at once where players interact at most in pairs.
    ``STRATIFIED``: evenly spaced cyclic shifts of one order, so that every player is in every range
    of positions equally often; all n shifts where the limit allows eight such units.
    """

    INDEPENDENT = "independent"
    ANTITHETIC = "antithetic pairs"
    STRATIFIED = "stratified by position"


def permutation(
    game: Game,
    *,
    max_evaluations: int,
    rng: np.random.Generator,
    orders: Orders = Orders.ANTITHETIC,
    permutations: int | None = None,
    tolerance: float = 0.0,
    aggregate: Aggregate = Aggregate.MEAN,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """phi_i = the mean marginal contribution of player i to those before it, over drawn orders.

    Unbiased with ``tolerance`` = 0: the number of orders depends on the limit (and on ``permutations``, if
    given) alone, not on the draws. Standard errors are over units.

    With a positive ``tolerance`` an order ends where the value is within it of the grand coalition's, and
    the remaining players gain 0 in it (Ghorbani and Zou 2019). The savings are spent on further orders.
    This is biased: late gains of both signs are set to 0, so values no longer sum to the whole gain.
    In a monotone game no value is off by more than ``tolerance``; in others there is no such bound.

    ``aggregate`` is over the values of single images; see ``image_units`` for what its error is.

    Raises:
        UsageError: the limit is too small for one unit of orders; a ``tolerance``, which is about the mean,
            with another aggregate than the mean.
    """
    if tolerance > 0.0 and aggregate is not Aggregate.MEAN:
        raise UsageError(
            f"tolerance={tolerance:g} ends orders by the mean: leave it out for {aggregate.value}"
        )
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    n = counted.num_players
    if n < 2:
        require(max_evaluations, 2, "a game")
        return without_choice(counted, Method.PERMUTATION, aggregate)
    _check_budget(max_evaluations, n, orders, permutations)
    ends = counted.ends()
    affordable = (max_evaluations - 2) // (n - 1)
    total = affordable if permutations is None else min(affordable, permutations)
    unit = _unit_size(orders, n, total)
    if tolerance > 0.0:
        most = None if permutations is None else permutations // unit
        sums = _truncated_units(counted, ends, orders, unit, most, tolerance, rng)
        values, errors, units = *from_units(sums), len(sums)
    else:
        units = total // unit
        values, errors = _whole_units(counted, orders, unit, units, aggregate, rng)
    truncated = f", each ended within {tolerance:g} of the grand coalition" if tolerance > 0.0 else ""
    return Estimate(
        values=values,
        standard_errors=errors,
        evaluations=counted.evaluations,
        empty_value=ends[0],
        grand_value=ends[1],
        method=Method.PERMUTATION,
        choice=f"{units * unit} orders, {orders.value}, in {units} units of {unit}{truncated}",
        aggregate=aggregate,
    )


def _check_budget(max_evaluations: int, n: int, orders: Orders, permutations: int | None) -> None:
    smallest = 2 if orders is Orders.ANTITHETIC else 1
    require(max_evaluations, 2 + smallest * (n - 1), f"an estimate of {n} players from {orders.value} orders")
    if permutations is not None and permutations < smallest:
        raise UsageError(f"permutations={permutations} is too few: {orders.value} orders need {smallest}")


def _unit_size(orders: Orders, n: int, total: int) -> int:
    if orders is Orders.INDEPENDENT:
        return 1
    if orders is Orders.ANTITHETIC:
        return 2
    return max(1, min(n, total // _STRATIFIED_UNITS))


def _draw_unit(orders: Orders, unit: int, n: int, rng: np.random.Generator) -> IndexArray:
    """The orders (unit, n) of one unit; each alone is a uniformly drawn order."""
    order = rng.permutation(n)
    if orders is Orders.ANTITHETIC:
        return np.stack([order, order[::-1]])
    shifts = np.arange(unit) * n // unit
    return np.asarray(order[(np.arange(n) + shifts[:, None]) % n])


def _gains(counted: CountedGame, ends: FloatArray, orders: IndexArray, aggregate: Aggregate) -> FloatArray:
    """Gain of every player in every order (c, n), of the mean or image by image (c, n, 1 or k).

    ``ends`` (2, 1 or k) are the values of the empty and of the grand coalition.
    """
    count, n = orders.shape
    place = np.argsort(orders, axis=1)
    before = place[:, None, :] < np.arange(1, n)[None, :, None]
    values = values_for(counted, before.reshape(-1, n), aggregate).reshape(count, n - 1, -1)
    first, last = (np.broadcast_to(end, (count, 1, ends.shape[1])) for end in ends)
    along = np.concatenate([first, values, last], axis=1)
    gains = np.empty((count, n, along.shape[2]))
    np.put_along_axis(gains, orders[:, :, None], np.diff(along, axis=1), axis=1)
    return gains


def _whole_units(
    counted: CountedGame,
    orders: Orders,
    unit: int,
    units: int,
    aggregate: Aggregate,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Values and standard errors (n,) from units of whole orders."""
    n, collected = counted.num_players, ImageUnits(aggregate, units)
    none_and_all = values_for(counted, np.repeat([[False], [True]], n, axis=1), aggregate)
    for _ in range(units):
        drawn = _draw_unit(orders, unit, n, rng)
        collected.add(_gains(counted, none_and_all, drawn, aggregate).mean(axis=0))
    return collected.result()


def _truncated_units(
    counted: CountedGame,
    ends: tuple[float, float],
    orders: Orders,
    unit: int,
    most_units: int | None,
    tolerance: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Mean gains (u, n) of units, drawn until one more might not be affordable."""
    n, sums = counted.num_players, np.empty((0, counted.num_players))
    while True:
        wave = min(_WAVE, counted.remaining // (unit * (n - 1)))
        if most_units is not None:
            wave = min(wave, most_units - len(sums))
        # A wave without new evaluations will be followed by others like it: all values are known by now.
        before = counted.evaluations
        if wave < 1:
            return sums
        drawn = np.concatenate([_draw_unit(orders, unit, n, rng) for _ in range(wave)])
        gains = _truncated_gains(counted, ends, drawn, tolerance)
        sums = np.concatenate([sums, gains.reshape(wave, unit, n).mean(axis=1)])
        if counted.evaluations == before and most_units is None:
            return sums


def _truncated_gains(
    counted: CountedGame, ends: tuple[float, float], orders: IndexArray, tolerance: float
) -> FloatArray:
    """Gain of every player (c, n), 0 once the value is within ``tolerance`` of the grand coalition's."""
    count, n = orders.shape
    gains, last = np.zeros((count, n)), np.full(count, ends[0])
    coalitions = np.zeros((count, n), dtype=bool)
    going = np.flatnonzero(np.abs(last - ends[1]) > tolerance)
    for position in range(n):
        if not len(going):
            break
        joining = orders[going, position]
        coalitions[going, joining] = True
        now = counted.means(coalitions[going])
        gains[going, joining] = now - last[going]
        last[going] = now
        going = going[np.abs(now - ends[1]) > tolerance]
    return gains
