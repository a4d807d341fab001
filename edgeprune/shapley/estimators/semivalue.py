"""Semivalues: mean gains under a chosen law of coalition sizes (Dubey, Neyman and Weber 1981)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import Advance, BoolArray, FloatArray, IndexArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method, require, without_choice
from edgeprune.shapley.game import CountedGame, Game
from edgeprune.shapley.image_units import ImageUnits, values_for


class CoalitionLaw(ABC):
    """A law of coalition sizes; all coalitions of one size are equally likely.

    A coalition is drawn among all players; a player's gain is the change of value when it joins or leaves.
    So one coalition and its n neighbours give every player one gain.
    """

    @abstractmethod
    def sizes(self, num_players: int) -> FloatArray:
        """Probabilities (n + 1,) of coalitions of 0, ..., n members."""

    def others(self, num_players: int) -> FloatArray:
        """Probabilities (n,) that 0, ..., n - 1 others are present when a player is valued."""
        n, sizes, others = num_players, self.sizes(num_players), np.arange(num_players)
        # Of s + 1 members the player is one of them; of s it is one of the n - s outside.
        return np.asarray(sizes[:-1] * (n - others) / n + sizes[1:] * (others + 1) / n)

    @property
    @abstractmethod
    def name(self) -> str:
        """The law in words."""


@dataclass(frozen=True, kw_only=True)
class BetaLaw(CoalitionLaw):
    """Every player is present with probability q drawn from Beta(``a``, ``b``): a mean share of a / (a + b).

    a = b = 1 is the Shapley value. Beta(alpha, beta)-Shapley of Kwon and Zou (2022) is a = beta, b = alpha.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        """Refuse parameters that define no distribution."""
        if not (0.0 < self.a < math.inf and 0.0 < self.b < math.inf):
            raise UsageError(f"Beta({self.a}, {self.b}) is no distribution: give a and b above 0")

    def sizes(self, num_players: int) -> FloatArray:
        """The beta-binomial law (n + 1,)."""
        size = range(num_players + 1)
        logs = [
            math.log(math.comb(num_players, s)) + _log_beta(s + self.a, num_players - s + self.b)
            for s in size
        ]
        return np.exp(np.array(logs) - _log_beta(self.a, self.b))

    @property
    def name(self) -> str:
        """The law in words."""
        return "Shapley" if self.a == self.b == 1.0 else f"Beta({self.a:g}, {self.b:g})"


SHAPLEY = BetaLaw(a=1.0, b=1.0)


@dataclass(frozen=True, kw_only=True)
class BanzhafLaw(CoalitionLaw):
    """All coalitions are equally likely: half of the players are present on average (Banzhaf 1965)."""

    def sizes(self, num_players: int) -> FloatArray:
        """The binomial law (n + 1,)."""
        counts = [math.comb(num_players, size) for size in range(num_players + 1)]
        return np.array([count / 2**num_players for count in counts])

    @property
    def name(self) -> str:
        """The law in words."""
        return "Banzhaf"


@dataclass(frozen=True, kw_only=True)
class KeptSizeLaw(CoalitionLaw):
    """Coalitions near the size to be kept: ``kept`` members, up to ``width`` more or fewer.

    Likelihood falls linearly with the distance from ``kept``.
    """

    kept: int
    width: int = 0

    def sizes(self, num_players: int) -> FloatArray:
        """The triangular law (n + 1,).

        Raises:
            UsageError: ``kept`` is not from 0 to n, or ``width`` is negative.
        """
        if not 0 <= self.kept <= num_players or self.width < 0:
            raise UsageError(
                f"kept={self.kept} with width={self.width} is not accepted for {num_players} players: "
                f"give kept from 0 to {num_players} and a width of 0 or more"
            )
        distance = np.abs(np.arange(num_players + 1) - self.kept)
        likelihood = np.maximum(0.0, self.width + 1.0 - distance)
        return np.asarray(likelihood / likelihood.sum())

    @property
    def name(self) -> str:
        """The law in words."""
        return f"{self.kept} kept" + (f" ± {self.width}" if self.width else "")


def semivalue(
    game: Game,
    *,
    law: CoalitionLaw,
    max_evaluations: int,
    rng: np.random.Generator,
    aggregate: Aggregate = Aggregate.MEAN,
    advance: Advance = lambda _units: None,
) -> Estimate:
    """Mean gains (n,) at coalitions drawn by ``law``: each with its n neighbours, one gain per player.

    Unbiased; standard errors are over coalitions, whose number follows from the limit alone. ``aggregate``
    is over the values of single images; see ``image_units`` for what its error is.

    Raises:
        UsageError: the limit is below n + 3.
    """
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    n = counted.num_players
    if n < 2:
        require(max_evaluations, 2, "a game")
        return without_choice(counted, Method.SEMIVALUE, aggregate)
    require(max_evaluations, n + 3, f"a coalition of {n} players with its neighbours")
    empty, grand = counted.ends()
    count = (max_evaluations - 2) // (n + 1)
    collected = ImageUnits(aggregate, count)
    for coalition in draw_coalitions(law, n, count, rng):
        collected.add(_gains(counted, coalition, np.arange(n), aggregate))
    values, errors = collected.result()
    return Estimate(
        values=values,
        standard_errors=errors,
        evaluations=counted.evaluations,
        empty_value=empty,
        grand_value=grand,
        method=Method.SEMIVALUE,
        choice=f"{count} coalitions by the law {law.name}, each with its {n} neighbours",
        aggregate=aggregate,
    )


def draw_coalitions(law: CoalitionLaw, num_players: int, count: int, rng: np.random.Generator) -> BoolArray:
    """Coalitions (count, n) drawn independently by ``law``."""
    sizes = rng.choice(num_players + 1, size=count, p=law.sizes(num_players))
    ranks = rng.random((count, num_players)).argsort(axis=1).argsort(axis=1)
    return np.asarray(ranks < sizes[:, None])


def gains_at(counted: CountedGame, coalition: BoolArray, players: IndexArray | None = None) -> FloatArray:
    """Marginal contributions of ``players`` (p,), by default all, to the others of a coalition (n,)."""
    chosen = np.arange(len(coalition)) if players is None else players
    return _gains(counted, coalition, chosen, Aggregate.MEAN)[:, 0]


def _gains(
    counted: CountedGame, coalition: BoolArray, players: IndexArray, aggregate: Aggregate
) -> FloatArray:
    """Gains of players (p,), of the mean or image by image (p, 1 or k)."""
    flips = np.zeros((len(players), len(coalition)), dtype=bool)
    flips[np.arange(len(players)), players] = True
    values = values_for(counted, np.concatenate([coalition[None], coalition ^ flips]), aggregate)
    return np.asarray((values[0] - values[1:]) * np.where(coalition[players], 1.0, -1.0)[:, None])


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
