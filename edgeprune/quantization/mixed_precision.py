"""Which pieces of a network run in 8 bits: the fastest mixture, then the most sensitive back in 32.

Time is a chain: what a piece costs or gains by itself, and what a change of precision between two neighbours
costs, in proportion to the values that pass there. Both follow from measuring each piece alone in 8 bits
and all together; the best mixture of that model is found exactly, and is measured itself before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts.arrays import BoolArray, FloatArray
from edgeprune.shapley.estimators.exact import exact

Mixture = tuple[bool, ...]
"""Whether each piece is in 8 bits."""

WORTH = 0.01
"""A mixture must be this much faster, as a share of the 32-bit time, to take the place of another."""
EXACT_PIECES = 6
"""Beyond so many, Shapley values of pieces are approximated."""
_FLIPS = 4


@dataclass(frozen=True, kw_only=True)
class ChainCosts:
    """Time as shares of the 32-bit network's: ``own`` (n,) changes of pieces in 8 bits, and ``borders``
    (n + 1,) what a change of precision costs before, between and after them."""

    own: FloatArray
    borders: FloatArray

    def time(self, mixture: Mixture) -> float:
        """Of a mixture, by the model."""
        padded = np.array([False, *mixture, False])
        changes = padded[1:] != padded[:-1]
        return 1.0 + float(self.own[list(mixture)].sum() + self.borders[changes].sum())


def chain_costs(alone: Sequence[float], together: float, values: Sequence[int]) -> ChainCosts:
    """Costs from the time with each piece ``alone`` in 8 bits (n,) and with all of them ``together``.

    ``values`` (n + 1,) pass at each border. What the pieces alone lose against all together are the borders
    between them, twice each.
    """
    gains, passing = np.array(alone) - 1.0, np.array(values, dtype=np.float64)
    inner = float(passing[1:-1].sum())
    spent = max(0.0, float(gains.sum()) - (together - 1.0)) / 2
    borders = passing * (spent / inner if inner > 0 else 0.0)
    return ChainCosts(own=gains - borders[:-1] - borders[1:], borders=borders)


def fastest(costs: ChainCosts, within: Mixture | None = None) -> Mixture:
    """The mixture of least time, exactly, by dynamic programming along the chain.

    With ``within`` only pieces that are in 8 bits there may be.
    """
    count = len(costs.own)
    best: dict[bool, tuple[float, Mixture]] = {False: (0.0, ())}
    for piece in range(count):
        border = float(costs.borders[piece])
        following: dict[bool, tuple[float, Mixture]] = {}
        for state in (False, True) if within is None or within[piece] else (False,):
            own = float(costs.own[piece]) if state else 0.0
            following[state] = min(
                (time + own + (border if state != before else 0.0), (*chosen, state))
                for before, (time, chosen) in best.items()
            )
        best = following
    last = float(costs.borders[count])
    return min((time + (last if state else 0.0), chosen) for state, (time, chosen) in best.items())[1]


def improve(costs: ChainCosts, measured: dict[Mixture, float], time: Callable[[Mixture], float]) -> Mixture:
    """The fastest of all that were measured, with the model's best and single changes of it measured too."""
    count = len(costs.own)
    first = fastest(costs)
    for mixture in (first, (False,) * count):
        if mixture not in measured:
            measured[mixture] = time(mixture) if any(mixture) else 1.0
    best = min(measured, key=lambda m: (measured[m], m))
    flips = sorted(range(count), key=lambda piece: costs.time(_flipped(best, piece)))
    for piece in flips[:_FLIPS]:
        tried = _flipped(best, piece)
        if tried not in measured:
            measured[tried] = time(tried) if any(tried) else 1.0
        if measured[tried] < measured[best] - WORTH:
            best = tried
    nothing = (False,) * count
    return best if measured[best] <= 1.0 - WORTH else nothing


def _flipped(mixture: Mixture, piece: int) -> Mixture:
    return tuple(state != (place == piece) for place, state in enumerate(mixture))


class FidelityGame:
    """Pieces in 8 bits as players; v(S) is what is kept of the 32-bit network's answers with S in 8 bits."""

    def __init__(self, count: int, kept: Callable[[Mixture], float]) -> None:
        self._count = count
        self._kept = kept
        self._known: dict[Mixture, float] = {}

    @property
    def num_players(self) -> int:
        """Pieces."""
        return self._count

    @property
    def num_images(self) -> int:
        """One value a coalition."""
        return 1

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) (m, 1) of coalitions (m, n)."""
        kept = np.empty((len(coalitions), 1))
        for row, coalition in enumerate(coalitions):
            mixture = tuple(bool(state) for state in coalition)
            if mixture not in self._known:
                self._known[mixture] = self._kept(mixture)
            kept[row] = self._known[mixture]
        return kept


def sensitivity_evaluations(pieces: int) -> int:
    """Mixtures that :func:`sensitivities` evaluates."""
    return 2**pieces if pieces <= EXACT_PIECES else 2 * pieces + 2


def sensitivities(game: FidelityGame) -> FloatArray:
    """What each piece (n,) costs in fidelity: minus its Shapley value, exact for few pieces.

    For more, the mean of what it costs as the first and as the last one in 8 bits: the two ends of the
    integral over coalition sizes by the trapezoidal rule, for 2 n + 2 evaluations. Rounding errors of
    different pieces add up, so that what lies between the ends is close to straight (decision 0010).
    """
    count = game.num_players
    if count <= EXACT_PIECES:
        return np.asarray(-exact(game).mean(axis=1))
    one = np.eye(count, dtype=np.bool_)
    nothing, everything = np.zeros((1, count), dtype=np.bool_), np.ones((1, count), dtype=np.bool_)
    kept = game.values(np.concatenate([nothing, one, ~one, everything]))[:, 0]
    first, last = kept[0] - kept[1 : count + 1], kept[count + 1 : -1] - kept[-1]
    return np.asarray((first + last) / 2)


def hold(
    mixture: Mixture, lost: Callable[[Mixture], float], limit: float, harm: FloatArray, gain: FloatArray
) -> Mixture:
    """Put pieces back in 32 bits until no more than ``limit`` is lost: most harm first for what each gains.

    ``gain`` (n,) is the share of the time that 8 bits save; one that saves next to nothing counts as
    ``WORTH``.
    """
    current = mixture
    for piece in np.argsort(-harm / np.maximum(gain, WORTH), kind="stable").tolist():
        if lost(current) <= limit or not any(current):
            break
        if current[piece]:
            current = _flipped(current, piece)
    return current
