"""Partial Shapley values: every coalition that lacks only a few players."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from edgeprune.artifacts.arrays import Advance, BoolArray, FloatArray
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method, require, without_choice
from edgeprune.shapley.game import CountedGame, Game

_BLOCK = 4096


def partial(
    game: Game,
    *,
    max_evaluations: int,
    largest: int | None = None,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Mean loss (n,) when a player is removed, over all removed sets of up to ``largest`` players with it.

    Each size has equal weight, as in the Shapley value, which ``largest`` = n gives; ``largest`` = 1 is
    leave-one-out. By default, the largest that the limit allows. After the partial estimate of Adamczewski
    et al. (2024), which ranks from removed sets of few filters; equal weights of the sizes are our reading.
    The standard errors are 0, since nothing is sampled. They say nothing about the Shapley value, of which
    only the sizes next to the grand coalition are used.

    Raises:
        UsageError: ``largest`` is not from 1 to n, or the limit is below the coalitions it needs.
    """
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    n = counted.num_players
    if n < 2:
        require(max_evaluations, 2, "a game")
        return without_choice(counted, Method.PARTIAL)
    if largest is None:
        largest = max([1, *(size for size in range(1, n + 1) if _needed(n, size) <= max_evaluations)])
    if not 1 <= largest <= n:
        raise UsageError(f"largest={largest} is not accepted for {n} players: give a number from 1 to {n}")
    require(max_evaluations, _needed(n, largest), f"removing up to {largest} of {n} players")
    empty, grand = counted.ends()
    values, present = np.zeros(n), np.zeros(n)
    for size in range(1, largest + 1):
        # Values are taken against the grand coalition, so that their sums lose nothing to rounding.
        absent, total = _sums(counted, size, grand)
        values += (present - absent) / (math.comb(n - 1, size - 1) * largest)
        present = total - absent
    return Estimate(
        values=values,
        standard_errors=np.zeros(n),
        evaluations=counted.evaluations,
        empty_value=empty,
        grand_value=grand,
        method=Method.PARTIAL,
        choice="leave-one-out" if largest == 1 else f"all removed sets of up to {largest} of {n} players",
    )


def _needed(n: int, largest: int) -> int:
    """Coalitions that lack up to ``largest`` players, and the empty one."""
    return sum(math.comb(n, size) for size in range(largest + 1)) + (largest < n)


def _sums(counted: CountedGame, size: int, grand: float) -> tuple[FloatArray, float]:
    """Sums of v(N - R) - v(N) over removed sets R of ``size`` with each player (n,), and over all of them."""
    n, total = counted.num_players, 0.0
    absent = np.zeros(n)
    for removed in _removed_sets(n, size):
        changes = counted.means(~removed) - grand
        absent += changes @ removed
        total += float(changes.sum())
    return absent, total


def _removed_sets(n: int, size: int) -> Iterator[BoolArray]:
    """All sets (m, n) of ``size`` players, in blocks."""
    combinations = itertools.combinations(range(n), size)
    while block := list(itertools.islice(combinations, _BLOCK)):
        removed = np.zeros((len(block), n), dtype=bool)
        np.put_along_axis(removed, np.array(block), True, axis=1)
        yield removed
