"""The default estimator: the one that fits the number of players and the limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, require
from edgeprune.shapley.estimators.adjusted import adjusted
from edgeprune.shapley.estimators.exact import (
    MAX_EXACT_PLAYERS,
    CoalitionTable,
    coalition_sizes,
    exact_estimate,
)
from edgeprune.shapley.estimators.least_squares import least_squares
from edgeprune.shapley.estimators.partial import partial
from edgeprune.shapley.estimators.permutation import Orders, permutation
from edgeprune.shapley.estimators.refine import refine
from edgeprune.shapley.estimators.semivalue import SHAPLEY, CoalitionLaw, KeptSizeLaw, semivalue
from edgeprune.shapley.game import CountedGame, Game

_ESTIMATE_SHARE = 0.2
# Measured on four families of games (a classifier's cross-entropy, two saturating ones, one of redundant
# players). With 16 players least squares has less error than antithetic orders on all four from 10 n
# evaluations on, and on three from 6 n on. With 64 players it has less on the first family only, and up to
# three fifths more on the others. On the 12 filters of three trained networks regression-adjusted values have
# 9 to 18% less error than least squares in eight cases of nine from 12 n on, and more with 8 n and fewer.
_FITTED_PLAYERS = 24
_FITTED_EVALUATIONS_PER_PLAYER = 6
_ADJUSTED_EVALUATIONS_PER_PLAYER = 12


@dataclass(frozen=True, kw_only=True)
class Removal:
    """The players to remove and those to keep, ascending, and the mean value of the kept ones.

    ``best_of_all``: no other set of the same size has a greater value on these images.
    """

    removed: tuple[int, ...]
    kept: tuple[int, ...]
    value: float
    best_of_all: bool
    evaluations: int
    choice: str


def hybrid(
    game: Game,
    *,
    max_evaluations: int,
    rng: np.random.Generator,
    law: CoalitionLaw = SHAPLEY,
    aggregate: Aggregate = Aggregate.MEAN,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Values (n,) by the best estimator that the limit allows; its ``choice`` says which.

    All coalitions where their table fits the limit; else, for Shapley values of up to 24 players,
    regression-adjusted ones from 12 n evaluations on and least squares from 6 n on; antithetic orders from
    2 n on, leave-one-out from n + 2; for other laws sampled coalitions. With another ``aggregate`` over
    images than the mean only the table, orders and sampled coalitions are available.

    Raises:
        UsageError: the limit is below the least of these.
    """
    n = game.num_players
    if _table_fits(n, max_evaluations):
        return exact_estimate(
            game, max_evaluations=max_evaluations, law=law.others, aggregate=aggregate, advance=advance
        )
    if law != SHAPLEY:
        return semivalue(
            game, law=law, max_evaluations=max_evaluations, rng=rng, aggregate=aggregate, advance=advance
        )
    fitted = aggregate is Aggregate.MEAN and n <= _FITTED_PLAYERS
    if fitted and max_evaluations >= _ADJUSTED_EVALUATIONS_PER_PLAYER * n:
        return adjusted(game, max_evaluations=max_evaluations, rng=rng, advance=advance)
    if fitted and max_evaluations >= _FITTED_EVALUATIONS_PER_PLAYER * n:
        return least_squares(game, max_evaluations=max_evaluations, rng=rng, advance=advance)
    if max_evaluations >= 2 * n or aggregate is not Aggregate.MEAN:
        return permutation(
            game,
            max_evaluations=max_evaluations,
            rng=rng,
            orders=Orders.ANTITHETIC,
            aggregate=aggregate,
            advance=advance,
        )
    return partial(game, max_evaluations=max_evaluations, largest=1, advance=advance)


def choose_removal(
    game: Game,
    *,
    remove: int,
    max_evaluations: int,
    rng: np.random.Generator,
    law: CoalitionLaw = SHAPLEY,
    advance: Advance = lambda _units: None,
) -> Removal:
    """Choose ``remove`` players to remove, maximising the value of the kept ones within the limit.

    The best of all sets where the table of coalitions fits the limit. Else the best of the sets of least
    value by ``hybrid``, by leave-one-out and at coalitions as large as the kept set (where affordable:
    redundant players have little value one by one, so that no single ranking is reliable), and then swaps
    scored by measured coalition values.

    Raises:
        UsageError: ``remove`` is not from 0 to n, or the limit is too small to value the players.
    """
    n = game.num_players
    if not 0 <= remove <= n:
        raise UsageError(f"remove={remove} is not accepted for {n} players: give a number from 0 to {n}")
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    if _table_fits(n, max_evaluations):
        return _best_of_all(counted, remove)
    least = n + 2 if law == SHAPLEY else n + 3
    require(max_evaluations, least + 1, f"choosing among {n} players")
    share = max(least, int(_ESTIMATE_SHARE * max_evaluations))
    starts = [hybrid(counted, max_evaluations=share, rng=rng, law=law)]
    if counted.remaining > n:
        starts.append(partial(counted, max_evaluations=n + 2, largest=1))
    if counted.remaining > 2 * share and share >= n + 3:
        kept = KeptSizeLaw(kept=n - remove, width=n // 8)
        starts.append(semivalue(counted, law=kept, max_evaluations=share, rng=rng))
    sets = np.ones((len(starts), n), dtype=bool)
    for row, start in zip(sets, starts, strict=True):
        row[np.argsort(start.values, kind="stable")[:remove]] = False
    affordable = sets[: counted.remaining]
    chosen = int(np.argmax(counted.means(affordable))) if len(affordable) > 1 else 0
    estimate, lowest = starts[chosen], np.flatnonzero(~sets[chosen])
    refined = refine(
        counted, tuple(lowest.tolist()), scores=estimate.values, max_evaluations=max(1, counted.remaining)
    )
    rest = "no swap improves the set" if refined.settled else "swaps until the limit"
    return Removal(
        removed=refined.removed,
        kept=refined.kept,
        value=refined.value,
        best_of_all=False,
        evaluations=counted.evaluations,
        choice=f"{estimate.choice}; then {refined.evaluations} sets tried: {rest}",
    )


def _table_fits(n: int, max_evaluations: int) -> bool:
    return n <= MAX_EXACT_PLAYERS and 2**n <= max_evaluations


def _best_of_all(counted: CountedGame, remove: int) -> Removal:
    n = counted.num_players
    means = CoalitionTable.of(counted).means()
    codes = np.flatnonzero(coalition_sizes(n) == n - remove)
    best = int(codes[np.argmax(means[codes])])
    members = (best >> np.arange(n)) & 1 == 1
    return Removal(
        removed=tuple(np.flatnonzero(~members).tolist()),
        kept=tuple(np.flatnonzero(members).tolist()),
        value=float(means[best]),
        best_of_all=True,
        evaluations=counted.evaluations,
        choice=f"the best of all {len(codes)} sets, from all {2**n} coalitions",
    )
