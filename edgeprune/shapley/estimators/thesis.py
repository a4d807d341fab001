"""The published hybrid procedure of the thesis behind this project, to reproduce its tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.permutation import Orders, permutation
from edgeprune.shapley.game import CountedGame, Game
from edgeprune.shapley.subgame import RemainingGame

FIRST_PERMUTATIONS = 100
AMELIORATION = 1.08
EXACT_FROM_PLAYERS = 6


@dataclass(frozen=True, kw_only=True)
class ThesisRun:
    """Result of the published procedure, one entry per round of removal.

    ``removed`` (r,) in order of removal, ``values`` the mean value of the remaining players, before and after
    each round (r + 1,), ``permutations`` the orders of each round (all p! of them in exact rounds).
    ``evaluations`` are the distinct coalition values asked of the game; ``published_evaluations`` those of
    the procedure as published: p for every order of p players and 1 for all of them, without a cache.
    """

    removed: IndexArray
    values: FloatArray
    permutations: tuple[int, ...]
    evaluations: int
    published_evaluations: int


def thesis_hybrid(
    game: Game,
    *,
    rng: np.random.Generator,
    keep: int = 1,
    first_permutations: int = FIRST_PERMUTATIONS,
    amelioration: float = AMELIORATION,
    exact_from: int = EXACT_FROM_PLAYERS,
    max_evaluations: int | None = None,
    advance: Advance = lambda _units: None,
) -> ThesisRun:
    """Repeatedly remove the player of the least value and revalue the rest, until ``keep`` are left.

    As in R. Munovas, "The importance of filters" (section 2.2): values come from C independent orders,
    C = 100 at first and C <- C**1.08 after each removal, rounded down every time (so the sixth round
    has the 859 orders that the thesis states); with 6 players or fewer all orders are used, which gives the
    exact value. ``exact_from`` = 0 and ``amelioration`` = 1 give its plain Monte Carlo pruning.

    Raises:
        UsageError: ``keep`` is not from 0 to n, or the limit is below what all rounds may need.
    """
    n = game.num_players
    if not 0 <= keep <= n:
        raise UsageError(f"keep={keep} is not accepted for {n} players: give a number from 0 to {n}")
    schedule = _schedule(n, keep, first_permutations, amelioration, exact_from)
    if max_evaluations is not None and max_evaluations < _most_needed(schedule):
        raise UsageError(
            f"max_evaluations={max_evaluations} is too few for the published procedure on {n} players, "
            f"which may need {_most_needed(schedule)}: give that many, or use the default estimator"
        )
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    left, removed = np.arange(n), []
    values = [_value_of(counted, left)]
    for players, orders in schedule:
        remaining = RemainingGame(counted, left)
        if players <= exact_from:
            worth = CoalitionTable.of(remaining).shapley().mean(axis=1)
        else:
            worth = permutation(
                remaining, max_evaluations=2 + orders * (players - 1), rng=rng,
                orders=Orders.INDEPENDENT, permutations=orders,
            ).values  # fmt: skip
        out = int(np.argmin(worth))
        removed.append(int(left[out]))
        left = np.delete(left, out)
        values.append(_value_of(counted, left))
    return ThesisRun(
        removed=np.array(removed, dtype=np.int64),
        values=np.array(values),
        permutations=tuple(orders for _, orders in schedule),
        evaluations=counted.evaluations,
        published_evaluations=sum(1 + orders * players for players, orders in schedule),
    )


def _schedule(n: int, keep: int, first: int, amelioration: float, exact_from: int) -> list[tuple[int, int]]:
    """Players and orders of every round."""
    rounds, orders = [], first
    for players in range(n, keep, -1):
        rounds.append((players, math.factorial(players) if players <= exact_from else orders))
        orders = math.floor(orders**amelioration)
    return rounds


def _most_needed(schedule: list[tuple[int, int]]) -> int:
    """Maximum number of distinct coalitions: those of every round, at most all that its players have."""
    each = [min(2**players, 2 + orders * (players - 1)) for players, orders in schedule]
    return min(2 ** schedule[0][0], sum(each) + 1) if schedule else 1


def _value_of(counted: CountedGame, players: IndexArray) -> float:
    coalition = np.zeros((1, counted.num_players), dtype=bool)
    coalition[0, players] = True
    return float(counted.means(coalition)[0])
