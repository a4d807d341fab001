"""Exact Shapley values by subset enumeration, and other results from one table of all coalitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, FloatArray, IndexArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.aggregate import aggregate as aggregate_of
from edgeprune.shapley.estimate import Estimate, Method, require
from edgeprune.shapley.game import CountedGame, Game

MAX_EXACT_PLAYERS = 20

SizeLaw = Callable[[int], FloatArray]
"""Probabilities (n,) that 0, 1, ..., n - 1 others are present, for n players."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Players in the order of their removal (n,), and the mean value (n + 1,) before and after each."""

    removed: IndexArray
    values: FloatArray


@dataclass(frozen=True, kw_only=True)
class CoalitionTable:
    """The values (2**n, k) of all coalitions; row r is the coalition of the players whose bit is set in r.

    The first 2**j rows are the game of the first j players, and the rows of any sub-game, with the other
    players absent, are among them: once the table is filled, no method below needs an evaluation.
    """

    values: FloatArray

    @classmethod
    def of(cls, game: Game, *, coalitions_at_once: int = 64) -> CoalitionTable:
        """Evaluate all 2**n coalitions of ``game``, in blocks.

        Raises:
            ValueError: more than ``MAX_EXACT_PLAYERS`` players.
        """
        n = game.num_players
        if n > MAX_EXACT_PLAYERS:
            raise ValueError(
                f"{n} players need 2**{n} coalitions; accepted are up to {MAX_EXACT_PLAYERS}: "
                "use an estimator that samples"
            )
        table = np.empty((2**n, game.num_images))
        for start in range(0, 2**n, coalitions_at_once):
            codes = np.arange(start, min(2**n, start + coalitions_at_once), dtype=np.int64)
            table[codes] = game.values((codes[:, None] >> np.arange(n)) & 1 == 1)
        return cls(values=table)

    @property
    def num_players(self) -> int:
        """Number of players n."""
        return int(self.values.shape[0]).bit_length() - 1

    def means(self) -> FloatArray:
        """The mean over images (2**n,) of every coalition's value."""
        return np.asarray(self.values.mean(axis=1))

    def sub_table(self, players: IndexArray) -> CoalitionTable:
        """The table (2**p, k) of the game among ``players`` (p,), with all others absent."""
        return CoalitionTable(values=self.values[_codes_within(players)])

    def shapley(self, players: IndexArray | None = None) -> FloatArray:
        """Shapley values (p, k) of the game among ``players``, with all others absent."""
        table = self if players is None else self.sub_table(players)
        return shapley_from_table(table.values)

    def semivalue(self, law: SizeLaw, players: IndexArray | None = None) -> FloatArray:
        """Semivalues (p, k) under a law of coalition sizes of the game among ``players``."""
        table = self if players is None else self.sub_table(players)
        return values_from_table(table.values, law(table.num_players))

    def trajectory(self, law: SizeLaw | None = None) -> Trajectory:
        """Repeatedly remove the player of the least value and revalue the rest, until none is left.

        The first of equals is removed first. ``law`` gives other semivalues than Shapley's.
        """
        means = CoalitionTable(values=self.means()[:, None])
        left = np.arange(self.num_players)
        removed = []
        while len(left):
            worth = means.shapley(left) if law is None else means.semivalue(law, left)
            out = int(np.argmin(worth[:, 0]))
            removed.append(int(left[out]))
            left = np.delete(left, out)
        return self._trajectory_of(removed)

    def oracle_sets(self) -> tuple[IndexArray, ...]:
        """The players of the best coalition of each size 0..n (Adamczewski et al. 2024), by mean value."""
        codes = self._oracle_codes()
        return tuple(np.flatnonzero((code >> np.arange(self.num_players)) & 1) for code in codes)

    def oracle_rank(self) -> IndexArray:
        """The ranking (n,), best player first, whose leading sets share most members with the oracle sets.

        Oracle sets need not be nested, so a ranking cannot always contain them all; the common members are
        summed over sizes, and the sum of values along the ranking breaks ties.
        """
        n = self.num_players
        sizes = coalition_sizes(n)
        common = sizes[np.arange(2**n) & self._oracle_codes()[sizes]]
        means = self.means()
        spread = float(np.ptp(means))
        second = (means - means.min()) / (spread * (n + 2)) if spread > 0.0 else np.zeros(2**n)
        return _best_chain(common + second)

    def best_trajectory(self) -> Trajectory:
        """The order of removal with the greatest sum of values along it: an upper bound for any ranking."""
        return self._trajectory_of(_best_chain(self.means())[::-1].tolist())

    def _oracle_codes(self) -> IndexArray:
        means, sizes = self.means(), coalition_sizes(self.num_players)
        best = np.empty(self.num_players + 1, dtype=np.int64)
        for size in range(self.num_players + 1):
            codes = np.flatnonzero(sizes == size)
            best[size] = codes[np.argmax(means[codes])]
        return best

    def _trajectory_of(self, removed: list[int]) -> Trajectory:
        bits = 1 << np.array(removed, dtype=np.int64)
        codes = 2**self.num_players - 1 - np.concatenate([[0], np.cumsum(bits)]).astype(np.int64)
        return Trajectory(removed=np.array(removed, dtype=np.int64), values=self.means()[codes])


def coalition_sizes(num_players: int) -> IndexArray:
    """Number of members (2**n,) of every coalition in the order of bit codes."""
    sizes = np.zeros(1, dtype=np.int64)
    for _ in range(num_players):
        sizes = np.concatenate([sizes, sizes + 1])
    return sizes


def exact(game: Game, *, coalitions_at_once: int = 64) -> FloatArray:
    """Shapley values of every player and image (n, k) from all 2**n coalitions.

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) (Shapley 1953).

    Raises:
        ValueError: more than ``MAX_EXACT_PLAYERS`` players.
    """
    return CoalitionTable.of(game, coalitions_at_once=coalitions_at_once).shapley()


def exact_estimate(
    game: Game,
    *,
    max_evaluations: int,
    law: SizeLaw | None = None,
    aggregate: Aggregate = Aggregate.MEAN,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Values (n,) without sampling error: Shapley's, or those of a law of coalition sizes.

    ``aggregate`` is over the exact values of single images; its standard error is 0, too.

    Raises:
        UsageError: the limit is below 2**n.
        ValueError: more than ``MAX_EXACT_PLAYERS`` players.
    """
    n = game.num_players
    if n <= MAX_EXACT_PLAYERS:
        require(max_evaluations, 2**n, f"the table of all coalitions of {n} players")
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    whole = CoalitionTable.of(counted)
    means = whole.means()
    table = CoalitionTable(values=means[:, None]) if aggregate is Aggregate.MEAN else whole
    values = table.shapley() if law is None else table.semivalue(law)
    return Estimate(
        values=aggregate_of(values, aggregate)[0],
        standard_errors=np.zeros(n),
        evaluations=counted.evaluations,
        empty_value=float(means[0]),
        grand_value=float(means[-1]),
        method=Method.EXACT,
        choice=f"all {2**n} coalitions of {n} players",
        aggregate=aggregate,
    )


def shapley_from_table(table: FloatArray) -> FloatArray:
    """Shapley values (n, k) from the values (2**n, k) of all coalitions in the order of their bit codes."""
    n = int(table.shape[0]).bit_length() - 1
    return values_from_table(table, np.full(n, 1.0 / max(1, n)))


def values_from_table(table: FloatArray, size_law: FloatArray) -> FloatArray:
    """Mean marginals (n, k) where ``size_law`` (n,) holds the chance of 0, ..., n - 1 others being present.

    All coalitions of one size have the same chance.
    """
    n, images = int(table.shape[0]).bit_length() - 1, table.shape[1]
    values = np.empty((n, images))
    if n == 0:
        return values
    in_size = np.array([math.comb(n - 1, size) for size in range(n)], dtype=np.float64)
    weights = (size_law / in_size)[coalition_sizes(n - 1)]
    for player in range(n):
        # Axis 1 is the player's own bit, so each row of the difference is a coalition of the others.
        split = table.reshape(2 ** (n - 1 - player), 2, 2**player, images)
        values[player] = weights @ (split[:, 1] - split[:, 0]).reshape(2 ** (n - 1), images)
    return values


def _codes_within(players: IndexArray) -> IndexArray:
    """Bit codes (2**p,) of all coalitions of ``players``, in doubling order."""
    codes = np.zeros(1, dtype=np.int64)
    for player in players:
        codes = np.concatenate([codes, codes | (1 << int(player))])
    return codes


def _best_chain(weights: FloatArray) -> IndexArray:
    """The ranking (n,) that maximises the sum of ``weights`` (2**n,) over its leading sets."""
    n = int(weights.shape[0]).bit_length() - 1
    sizes = coalition_sizes(n)
    best = weights.astype(np.float64)
    last = np.zeros(2**n, dtype=np.int64)
    for size in range(1, n + 1):
        codes = np.flatnonzero(sizes == size)
        members = (codes[:, None] >> np.arange(n)) & 1 == 1
        before = np.where(members, best[codes[:, None] & ~(1 << np.arange(n))], -np.inf)
        last[codes] = before.argmax(axis=1)
        best[codes] += before.max(axis=1)
    code, order = 2**n - 1, []
    while code:
        order.append(int(last[code]))
        code &= ~(1 << order[-1])
    return np.array(order[::-1], dtype=np.int64)
