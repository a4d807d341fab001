"""Shapley values and removal costs of the players of one game, by what their number affords."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.importance.criteria.greedy import isotonic
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.hybrid import hybrid
from edgeprune.shapley.estimators.refine import beam_removal
from edgeprune.shapley.game import CountedGame, Game

MOST_EXACT = 14
_VALUES_SHARE = (6, 10)
"""Of a group's evaluations, the rest tries removals; all go into the table where that is affordable."""
_TIE_BREAK = 1e-9
_CACHE_BYTES = 2**30


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
    exact = n <= MOST_EXACT and 2**n <= max_evaluations
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
