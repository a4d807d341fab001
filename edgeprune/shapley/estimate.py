"""The one result that every estimator gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.shapley.game import CountedGame, FloatArray


class Method(Enum):
    """Which estimator gave the values."""

    EXACT = "exact"
    PERMUTATION = "permutation"
    SEMIVALUE = "semivalue"
    PARTIAL = "partial"
    LEAST_SQUARES = "least squares"
    RACING = "racing"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Value and standard error of every player (n,), in the units of the game's mean over images.

    Standard errors are those of the drawing of coalitions, for the images at hand: 0 where all coalitions
    of the definition were used, infinite where too little was drawn to tell. ``evaluations`` are the
    coalition values asked of the game that were not known yet. ``choice`` says in words what was done.
    """

    values: FloatArray
    standard_errors: FloatArray
    evaluations: int
    empty_value: float
    grand_value: float
    method: Method
    choice: str


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


def without_choice(game: CountedGame, method: Method) -> Estimate:
    """The estimate for a game of at most one player, whose value is the whole gain."""
    empty, grand = game.ends()
    return Estimate(
        values=np.full(game.num_players, grand - empty),
        standard_errors=np.zeros(game.num_players),
        evaluations=game.evaluations,
        empty_value=empty,
        grand_value=grand,
        method=method,
        choice="the whole gain, there being no other player",
    )
