"""Better sets than a ranking gives: swaps and a small beam, scored by measured coalition values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgeprune.artifacts.arrays import Advance, BoolArray, FloatArray, IndexArray
from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import require
from edgeprune.shapley.game import CountedGame, Game

_SWAPS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """The best set found, its mean value, and that of the start set, which is never greater.

    ``settled``: no swap among the candidates improves it; otherwise the limit was reached first.
    """

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    value: float
    start_value: float
    evaluations: int
    settled: bool


@dataclass(frozen=True, kw_only=True)
class BeamRun:
    """The best set found of every size on the way: ``kept[r]`` after r removals, of value ``values[r]``."""

    kept: tuple[tuple[int, ...], ...]
    values: FloatArray
    evaluations: int


@dataclass(kw_only=True)
class _Seen:
    """Values of the coalitions (m, n) seen so far, best first on request."""

    counted: CountedGame
    coalitions: list[BoolArray] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)

    def add(self, coalitions: BoolArray) -> int:
        """Evaluate those not seen yet, in order, within the limit; returns how many were left out."""
        new: list[BoolArray] = []
        for row in coalitions:
            if row.tobytes() not in self.keys:
                self.keys.add(row.tobytes())
                new.append(row)
        affordable = max(0, min(len(new), self.counted.remaining))
        for row in new[affordable:]:
            self.keys.discard(row.tobytes())
        if affordable:
            self.values.extend(self.counted.means(np.array(new[:affordable])).tolist())
            self.coalitions.extend(new[:affordable])
        return len(new) - affordable

    def best(self, count: int) -> list[int]:
        """Indices of the best ``count``, the earliest of equals first."""
        return [int(index) for index in np.argsort(-np.array(self.values), kind="stable")[:count]]


def refine(
    game: Game,
    removed: tuple[int, ...],
    *,
    scores: FloatArray,
    max_evaluations: int,
    beam: int = 4,
    candidates: int | None = None,
    advance: Advance = lambda _units: None,
) -> Refinement:
    """Swap removed players for kept ones while that raises the coalition's value.

    Searches around the ``beam`` best sets seen, the swaps with the largest gain by ``scores`` (n,)
    first, of all players or of the ``candidates`` nearest to the cut on each side. After every few swaps
    the search continues around the best set so far. Values are those
    on the game's own images: with few of them, and many sets tried, the best is partly chance.
    Deterministic.

    Raises:
        UsageError: the limit is 0, a player is not one of the game's, or ``beam`` or ``candidates`` is not
            positive.
    """
    n = game.num_players
    _check(beam, candidates)
    require(max_evaluations, 1, "refining a set")
    if len(set(removed)) != len(removed) or not set(removed) <= set(range(n)):
        raise UsageError(f"removed={removed} is not accepted: give different players from 0 to {n - 1}")
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    start = np.ones((1, n), dtype=bool)
    start[0, list(removed)] = False
    seen, left_out = _Seen(counted=counted), 0
    # Swaps of the searched sets that are not tried yet, none left once settled.
    waiting: dict[int, IndexArray] = {}
    seen.add(start)
    while not left_out:
        for index in seen.best(beam):
            if index not in waiting:
                waiting[index] = _swaps(seen.coalitions[index], scores, candidates)
            if len(waiting[index]):
                break
        else:
            break
        block, waiting[index] = np.split(waiting[index], [_SWAPS_AT_ONCE])
        left_out = seen.add(_swapped(seen.coalitions[index], block))
    best = seen.best(1)[0]
    return Refinement(
        kept=tuple(np.flatnonzero(seen.coalitions[best]).tolist()),
        removed=tuple(np.flatnonzero(~seen.coalitions[best]).tolist()),
        value=seen.values[best],
        start_value=seen.values[0],
        evaluations=counted.evaluations,
        settled=not left_out,
    )


def beam_removal(
    game: Game,
    *,
    remove: int,
    scores: FloatArray,
    max_evaluations: int,
    beam: int = 4,
    candidates: int | None = None,
    advance: Advance = lambda _units: None,
) -> BeamRun:
    """Remove one player after the other from the ``beam`` best sets, scored by measured coalition values.

    From every set the players of the lowest ``scores`` (n,) are tried, all of them or ``candidates``, and
    fewer where the limit would not suffice for all removals. A beam of 1 over all players is greedy
    leave-one-out; without spare evaluations it is the order of the scores.

    Raises:
        UsageError: ``remove`` is not from 0 to n, the limit is below ``remove`` + 1, or ``beam`` or
            ``candidates`` is not positive.
    """
    n = game.num_players
    _check(beam, candidates)
    if not 0 <= remove <= n:
        raise UsageError(f"remove={remove} is not accepted for {n} players: give a number from 0 to {n}")
    require(max_evaluations, remove + 1, f"removing {remove} players one by one")
    counted = CountedGame(game, max_evaluations=max_evaluations, advance=advance)
    sets = np.ones((1, n), dtype=bool)
    kept, values = [tuple(range(n))], [float(counted.means(sets)[0])]
    for step in range(remove):
        spare = counted.remaining - (remove - step - 1)
        seen = _Seen(counted=CountedGame(counted, max_evaluations=spare))
        # Breadth first: every set's first candidate before any set's second.
        for rank in range(n if candidates is None else candidates):
            children = [c for row in sets if (c := _without(row, scores, rank)) is not None]
            if not children or seen.add(np.array(children)):
                break
        chosen = seen.best(beam)
        sets = np.array([seen.coalitions[index] for index in chosen])
        kept.append(tuple(np.flatnonzero(sets[0]).tolist()))
        values.append(seen.values[chosen[0]])
    return BeamRun(kept=tuple(kept), values=np.array(values), evaluations=counted.evaluations)


def _check(beam: int, candidates: int | None) -> None:
    if beam < 1 or (candidates is not None and candidates < 1):
        raise UsageError(f"beam={beam} with candidates={candidates} is not accepted: give 1 or more of each")


def _without(coalition: BoolArray, scores: FloatArray, rank: int) -> BoolArray | None:
    """The coalition without its member of the ``rank``-th lowest score, if it has so many."""
    members = _by_score(np.flatnonzero(coalition), scores)
    if rank >= len(members):
        return None
    child = coalition.copy()
    child[members[rank]] = False
    return child


def _swaps(coalition: BoolArray, scores: FloatArray, candidates: int | None) -> IndexArray:
    """All exchanges (m, 2) of a member with an outsider, those with the largest gain by scores first."""
    members = _by_score(np.flatnonzero(coalition), scores)[:candidates]
    outside = _by_score(np.flatnonzero(~coalition), scores)[::-1][:candidates]
    gains = scores[outside][None, :] - scores[members][:, None]
    pairs = np.stack(np.unravel_index(np.argsort(-gains, axis=None, kind="stable"), gains.shape), axis=1)
    return np.stack([members[pairs[:, 0]], outside[pairs[:, 1]]], axis=1)


def _swapped(coalition: BoolArray, swaps: IndexArray) -> BoolArray:
    """The coalitions (m, n) after each of the exchanges (m, 2)."""
    coalitions = np.repeat(coalition[None], len(swaps), axis=0)
    rows = np.arange(len(swaps))
    coalitions[rows, swaps[:, 0]] = False
    coalitions[rows, swaps[:, 1]] = True
    return coalitions


def _by_score(players: IndexArray, scores: FloatArray) -> IndexArray:
    return players[np.argsort(scores[players], kind="stable")]
