"""A closed-form game: absent channels are estimated from those present, and squared errors are the cost.

At one place of a network, channels have the covariance C and the metric M, the second moment of the gradients
there. With the absent channels replaced by their best linear estimate from the present ones S,

    v(S) = - tr(M R(S)),   R(S) = C - C[:, S] C[S, S]^-1 C[S, :]

is the expected squared change of the loss to first order (the residuals' covariance R is a Schur
complement). The value of a set of players is the sum over its places. Backward elimination with exact
downdates costs O(c^2) per step, as in the optimal brain surgeon (Hassibi and Stork 1993), here on channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray

STEPS = 128
"""Most rounds of an elimination."""

_COMPACT_AT = 0.8
"""Share of the positions that are still present at which the matrices are cut down to those."""

RIDGE = 1e-3
"""Added to the covariance, relative to its mean diagonal."""


@dataclass(frozen=True, kw_only=True)
class QuadraticPlace:
    """One place: ``covariance`` and ``metric`` (c, c), and the player of every channel (c,).

    Channels of players outside the game (any negative or other number) are always present.
    """

    covariance: FloatArray
    metric: FloatArray
    players: IndexArray
    ridge: float = RIDGE

    def regular_covariance(self) -> FloatArray:
        """The covariance (c, c) with its ridge; positive definite."""
        lifted = self.ridge * max(float(np.diag(self.covariance).mean()), 1e-12)
        return self.covariance + lifted * np.eye(len(self.covariance))


@dataclass(frozen=True, kw_only=True)
class Elimination:
    """Players in order of removal (n,), and the cost that each removal adds (n,)."""

    order: IndexArray
    costs: FloatArray


class QuadraticGame:
    """The game of ``players`` (n,), numbered from 0, over all ``places`` (see ``shapley.game.Game``)."""

    def __init__(self, places: tuple[QuadraticPlace, ...], players: IndexArray) -> None:
        self._places = places
        self._players = players

    @property
    def num_players(self) -> int:
        """Number of players n."""
        return len(self._players)

    @property
    def num_images(self) -> int:
        """One value per coalition."""
        return 1

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) (m, 1) of coalitions (m, n)."""
        return np.array([[-sum(self._cost(p, c) for p in self._places)] for c in coalitions])

    def eliminate(self) -> Elimination:
        """Remove the players of least cost, given those removed before, until none is left.

        One at a time up to ``STEPS`` players; of more, an equal share is removed at once, and its cost is
        divided among them by their prices.

        Raises:
            ValueError: a metric or covariance has NaN or infinite entries.
        """
        if not all(np.isfinite(p.metric).all() and np.isfinite(p.covariance).all() for p in self._places):
            raise ValueError("a metric or covariance has NaN or infinite entries")
        states = [_Downdate(place, self._players) for place in self._places]
        alive = np.ones(len(self._players), dtype=bool)
        order: list[int] = []
        costs: list[float] = []
        at_once = -(-len(self._players) // STEPS)
        while alive.any():
            prices = sum((s.prices() for s in states), np.zeros(len(alive)))
            there = np.flatnonzero(alive)
            leaving = there[np.argsort(np.maximum(prices[there], 0.0), kind="stable")[:at_once]]
            cost = sum(state.remove(leaving) for state in states)
            alive[leaving] = False
            order += leaving.tolist()
            costs += _divided(max(float(cost), 0.0), np.maximum(prices[leaving], 0.0))
        return Elimination(order=np.array(order, dtype=np.int64), costs=np.array(costs))

    def _cost(self, place: QuadraticPlace, coalition: BoolArray) -> float:
        absent = np.isin(place.players, self._players[~coalition])
        covariance = place.regular_covariance()
        inside, outside = np.flatnonzero(~absent), np.flatnonzero(absent)
        residual = covariance[np.ix_(outside, outside)]
        if len(inside):
            across = covariance[np.ix_(outside, inside)]
            residual = residual - across @ np.linalg.solve(covariance[np.ix_(inside, inside)], across.T)
        return float((place.metric[np.ix_(outside, outside)] * residual).sum())


class _Downdate:
    """K, the inverse covariance of the present channels, and Q = B' M B with B = C[:, S] K, under removals.

    The removal of a block P of positions adds tr(K_PP^-1 Q_PP) to the cost.
    """

    def __init__(self, place: QuadraticPlace, players: IndexArray) -> None:
        self._inverse = np.linalg.inv(place.regular_covariance())
        self._cross = np.array(place.metric, dtype=np.float64)
        self._positions: list[NDArray[np.int64]] = [np.flatnonzero(place.players == p) for p in players]
        self._single = all(len(p) <= 1 for p in self._positions)
        self._first = np.array([p[0] if len(p) else -1 for p in self._positions])
        self._present = np.ones(len(place.players), dtype=bool)

    def prices(self) -> FloatArray:
        """Cost that removing each player (n,) would add; 0 where it has no position here or is removed."""
        if self._single:
            spread = np.diag(self._inverse)
            prices = np.divide(np.diag(self._cross), spread, out=np.zeros(len(spread)), where=spread > 0.0)
            return np.where(self._first >= 0, prices[self._first], 0.0)
        return np.array([self._block(p) for p in self._positions])

    def _block(self, positions: NDArray[np.int64]) -> float:
        if not len(positions) or self._inverse[positions[0], positions[0]] <= 0.0:
            return 0.0
        at = np.ix_(positions, positions)
        return float(np.trace(np.linalg.solve(self._inverse[at], self._cross[at])))

    def remove(self, players: IndexArray) -> float:
        """Remove players together; returns the cost."""
        positions = np.concatenate([self._positions[p] for p in players.tolist()])
        if not len(positions):
            return 0.0
        block = np.ix_(positions, positions)
        # The removed positions as combinations of the others: B changes by -B_P A'.
        shares = np.linalg.solve(self._inverse[block], self._inverse[positions]).T
        crossing, own = self._cross[:, positions].copy(), self._cross[block].copy()
        cost = float(np.trace(np.linalg.solve(self._inverse[block], own)))
        half = shares @ (crossing.T - 0.5 * own @ shares.T)
        self._cross -= half
        self._cross -= half.T
        self._inverse -= shares @ self._inverse[positions]
        self._leave(players, positions)
        return cost

    def _leave(self, players: IndexArray, positions: IndexArray) -> None:
        """Set removed entries to zero; once they are many, keep only the others: a third of the work."""
        for player in players.tolist():
            self._positions[player] = np.empty(0, dtype=np.int64)
            self._first[player] = -1
        self._present[positions] = False
        for matrix in (self._cross, self._inverse):
            matrix[positions] = 0.0
            matrix[:, positions] = 0.0
        kept = np.flatnonzero(self._present)
        if not len(kept) or len(kept) > _COMPACT_AT * len(self._present):
            return
        self._cross, self._inverse = self._cross[np.ix_(kept, kept)], self._inverse[np.ix_(kept, kept)]
        moved = np.cumsum(self._present) - 1
        self._positions = [moved[p] for p in self._positions]
        self._first = np.where(self._first >= 0, moved[self._first], -1)
        self._present = self._present[kept]


def _divided(total: float, prices: FloatArray) -> list[float]:
    """A cost divided in proportion to prices, ascending as they are; evenly if all are 0."""
    whole = float(prices.sum())
    shares = prices / whole if whole > 0.0 else np.full(len(prices), 1 / len(prices))
    return [total * share for share in shares.tolist()]
