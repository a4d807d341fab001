"""The common result of all estimators."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.aggregate import aggregate
from edgeprune.shapley.game import CountedGame


class Method(Enum):
    """The estimator that gave the values."""

    EXACT = "exact"
    PERMUTATION = "permutation"
    SEMIVALUE = "semivalue"
    PARTIAL = "partial"
    LEAST_SQUARES = "least squares"
    ADJUSTED = "regression-adjusted"
    MULTILINEAR = "multilinear"
    TRAPEZOIDAL = "multilinear, trapezoidal"
    RACING = "racing"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Value and standard error of every player (n,), in the units of the game.

    ``aggregate`` is the aggregate over images. Standard errors are sampling errors over coalitions, for the
    given images: 0 where all coalitions of the definition were used, infinite where too few were drawn to
    estimate them. ``evaluations`` are the coalition values asked of the game that were not known yet (for
    gradients, see their estimators). The mean values of the empty and of the grand coalition are ``None``
    where they were not measured. ``choice`` describes the procedure in words.
    """

    values: FloatArray
    standard_errors: FloatArray
    evaluations: int
    empty_value: float | None
    grand_value: float | None
    method: Method
    choice: str
    aggregate: Aggregate = Aggregate.MEAN


def from_units(units: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard error (n,) of independent units (u, n); infinite errors for a single unit."""
    values = units.mean(axis=0)
    if len(units) < 2:
        return values, np.full(len(values), np.inf)
    return values, units.std(axis=0, ddof=1) / np.sqrt(len(units))


def require(max_evaluations: int, needed: int, purpose: str) -> None:
    """Refuse a limit below what the smallest run of an estimator needs.

    Raises:
        UsageError: ``max_evaluations`` is less than ``needed``.
    """
    if max_evaluations < needed:
        raise UsageError(
            f"max_evaluations={max_evaluations} is too few: {purpose} needs at least {needed} "
            "coalition values"
        )


def without_choice(game: CountedGame, method: Method, kind: Aggregate = Aggregate.MEAN) -> Estimate:
    """The estimate for a game of at most one player, whose value is the whole gain."""
    empty, grand = game.ends()
    value = grand - empty
    if kind is not Aggregate.MEAN:
        none, everyone = game.values(np.repeat([[False], [True]], game.num_players, axis=1))
        value = float(aggregate((everyone - none)[None], kind)[0][0])
    return Estimate(
        values=np.full(game.num_players, value),
        standard_errors=np.zeros(game.num_players),
        evaluations=game.evaluations,
        empty_value=empty,
        grand_value=grand,
        method=method,
        choice="the whole gain, there being no other player",
        aggregate=kind,
    )
