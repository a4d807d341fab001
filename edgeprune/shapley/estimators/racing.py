"""Select k players to remove: evaluations are spent on players near the cut, until the set is certain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from edgeprune.artifacts.arrays import Advance, BoolArray, FloatArray, IndexArray
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method
from edgeprune.shapley.estimators.semivalue import SHAPLEY, CoalitionLaw, draw_coalitions, gains_at
from edgeprune.shapley.game import CountedGame, Game

_FIRST_ROUND = 16
_LEAST_TO_JUDGE = 8
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Race:
    """The players to remove and the confidence in that set.

    ``removed`` are the k players of the least value, ascending. ``smallest_gap`` is the least difference
    between a kept and a removed player, in its standard errors. ``probability`` is a lower bound on the
    probability that these are the k of the least value: 1 minus the probability of every wrong pair, with
    normal errors. ``undecided`` are those not separated from the other side at ``confidence``.
    """

    removed: tuple[int, ...]
    undecided: tuple[int, ...]
    smallest_gap: float
    probability: float
    confidence: float
    values: FloatArray
    evaluations: int
    coalitions: int
    choice: str

    @property
    def decided(self) -> bool:
        """Whether all confidence intervals across the cut are separated."""
        return not self.undecided


def race(
    game: Game,
    start: Estimate,
    *,
    remove: int,
    max_evaluations: int,
    rng: np.random.Generator,
    law: CoalitionLaw = SHAPLEY,
    confidence: float = 0.95,
    advance: Advance = lambda _units: None,
) -> Race:
    """Find the ``remove`` players of the least value, starting from an estimate of the values under ``law``.

    In every round the players still in the race get exact gains at common coalitions drawn by ``law``, so
    that common variance cancels in their differences. Gains and start are averaged by precision, the
    start's errors being taken as independent between players. A player leaves once it is separated from all
    players across the cut, at a level that covers all pairs and all rounds (rounds double, the n-th spends
    1 / (n (n + 1)) of the error probability). Players of equal value are never separated; the limit ends
    their race.

    Raises:
        UsageError: ``remove`` is not from 0 to n, or ``confidence`` not between 0 and 1.
    """
    n = game.num_players
    if not 0 <= remove <= n:
        raise UsageError(f"remove={remove} is not accepted for {n} players: give a number from 0 to {n}")
    if not 0.0 < confidence < 1.0:
        raise UsageError(
            f"confidence={confidence} is not accepted: give a number between 0 and 1, such as 0.95"
        )
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    state = _State(start, remove, confidence)
    at_first = len(state.racing)
    while state.complete(counted) and (count := state.affordable(counted.remaining, max_evaluations)) > 0:
        state.add(counted, draw_coalitions(law, n, count, rng))
    drawn = len(state.coalitions)
    return Race(
        removed=tuple(np.flatnonzero(state.out).tolist()),
        undecided=tuple(state.undecided().tolist()),
        smallest_gap=float(state.gaps().min(initial=math.inf)),
        probability=state.probability(),
        confidence=confidence,
        values=state.values,
        evaluations=counted.evaluations,
        coalitions=drawn,
        choice=f"{start.choice}; then {drawn} common coalitions, at first for {at_first} players",
    )


class _State:
    """Values and sides, the gains at common coalitions, and the pairs that are already separated."""

    def __init__(self, start: Estimate, remove: int, confidence: float) -> None:
        n = len(start.values)
        self._wrong = 1.0 - confidence
        self._looks = 0
        self._start = start.values
        # Partial values are of other coalitions, so they only set the initial sides.
        partial = start.method is Method.PARTIAL
        self._start_errors = np.full(n, np.inf) if partial else start.standard_errors
        self._errors = np.hypot(self._start_errors[:, None], self._start_errors[None, :])
        self._apart = np.zeros((n, n), dtype=bool)
        self.values = start.values.copy()
        self.out: BoolArray = np.zeros(n, dtype=bool)
        self.out[np.argsort(start.values, kind="stable")[:remove]] = True
        self.coalitions: BoolArray = np.zeros((0, n), dtype=bool)
        self._gains: FloatArray = np.zeros((0, n))
        self.racing: IndexArray = np.arange(n)
        self._look(math.inf)

    def gaps(self) -> FloatArray:
        """Kept minus removed values (removed, kept), in standard errors of the difference."""
        apart = self.values[None, ~self.out] - self.values[self.out, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = apart / self._errors[np.ix_(self.out, ~self.out)]
        return np.asarray(np.where(np.isnan(gaps), 0.0, gaps))

    def probability(self) -> float:
        """1 minus the probability of every pair being in the wrong order, 0 at least."""
        return max(0.0, 1.0 - sum(_NORMAL.cdf(-gap) for gap in self.gaps().ravel().tolist()))

    def undecided(self) -> IndexArray:
        """Players that are not yet separated from every player across the cut."""
        return _players_of(self._open())

    def affordable(self, remaining: int, most: int) -> int:
        """Coalitions of the next round: as many as there are so far, within the limit; 0 where too few.

        At ``most`` in total: where every value is known, rounds cost no evaluations and would never end.
        """
        drawn = len(self.coalitions)
        count = min(max(_FIRST_ROUND, drawn), remaining // (1 + len(self.racing)), most - drawn)
        return count if drawn + count >= _LEAST_TO_JUDGE else 0

    def complete(self, counted: CountedGame) -> bool:
        """Evaluate gains that players back in the race have missed; returns whether to continue."""
        if not len(self.racing):
            return False
        missing = np.isnan(self._gains[:, self.racing])
        if counted.remaining < 2 * missing.sum():
            return False
        for row in np.flatnonzero(missing.any(axis=1)):
            players = self.racing[missing[row]]
            self._gains[row, players] = gains_at(counted, self.coalitions[row], players)
        return True

    def add(self, counted: CountedGame, coalitions: BoolArray) -> None:
        """Evaluate gains of racing players at more coalitions (c, n), then update the separated pairs."""
        block = np.full(coalitions.shape, np.nan)
        block[:, self.racing] = [gains_at(counted, c, self.racing) for c in coalitions]
        self.coalitions = np.concatenate([self.coalitions, coalitions])
        self._gains = np.concatenate([self._gains, block])
        self._average()
        self._look(float(len(self._gains) - 1))

    def _average(self) -> None:
        own, who = self._gains[:, self.racing], self.racing
        covariance = np.atleast_2d(np.cov(own, rowvar=False)) / len(own)
        spread = np.diag(covariance)
        fresh = np.maximum(spread[:, None] + spread[None, :] - 2 * covariance, 0.0)
        before = np.add.outer(self._start_errors[who] ** 2, self._start_errors[who] ** 2)
        share = _share_of_start(float(before.mean()), float(fresh.mean()))
        self.values[who] = (1.0 - share) * own.mean(axis=0) + share * self._start[who]
        # An infinite error has the share 0, but 0 times infinity would give NaN.
        before = before if share > 0.0 else np.zeros_like(before)
        self._errors[np.ix_(who, who)] = np.sqrt((1.0 - share) ** 2 * fresh + share**2 * before)
        order = np.argsort(self.values[who], kind="stable")
        places = int(self.out[who].sum())
        self.out[who] = False
        self.out[who[order[:places]]] = True

    def _look(self, freedom: float) -> None:
        self._looks += 1
        gaps = self.gaps()
        wrong = self._wrong / (self._looks * (self._looks + 1) * max(1, gaps.size))
        critical = student_quantile(-_NORMAL.inv_cdf(wrong), freedom)
        self._apart[np.ix_(self.out, ~self.out)] |= gaps >= critical
        # More coalitions add nothing about a pair whose values are known exactly.
        self.racing = _players_of(self._open() & (self._errors > 0.0))

    def _open(self) -> BoolArray:
        """Pairs (n, n) of a removed and a kept player that are not separated yet."""
        return np.asarray(self.out[:, None] & ~self.out[None, :] & ~self._apart)


def _players_of(pairs: BoolArray) -> IndexArray:
    return np.flatnonzero(pairs.any(axis=0) | pairs.any(axis=1))


def _share_of_start(before: float, fresh: float) -> float:
    """Weight of the start's values when variances of differences are ``before`` and ``fresh``."""
    if math.isinf(before):
        return 0.0
    total = before + fresh
    return fresh / total if total > 0.0 else 0.5


def student_quantile(z: float, freedom: float) -> float:
    """Student's quantile from the normal one, by three terms of Cornish and Fisher."""
    return (
        z
        + (z**3 + z) / (4.0 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96.0 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384.0 * freedom**3)
    )
