"""Cooperative games: players, and a value of every coalition on each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from edgeprune.artifacts.arrays import Advance, BoolArray, FloatArray, IndexArray
from edgeprune.errors import UsageError

_UNLIMITED = 2**62


class Game(Protocol):
    """A cooperative game whose characteristic function has one value per image (higher is better)."""

    @property
    def num_players(self) -> int:
        """Number of players n."""
        ...

    @property
    def num_images(self) -> int:
        """Number of images k over which a value is aggregated."""
        ...

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) of coalitions (m, n) for every image: (m, k)."""
        ...


class DifferentiableGame(Game, Protocol):
    """A game that extends to fractional memberships and provides its gradient there."""

    @property
    def shared_coalition(self) -> bool:
        """Whether all images of one call must have the same coalition."""
        ...

    def marginals(self, memberships: FloatArray, images: IndexArray) -> FloatArray:
        """dv/dm of every player (b, n) for the images (b,), each at its own membership (b, n)."""
        ...


@runtime_checkable
class ParallelGame(Protocol):
    """A differentiable game that computes the gradients of several batches at once."""

    @property
    def at_once(self) -> int:
        """Batches to ask for together."""
        ...

    def all_marginals(self, asked: Sequence[tuple[FloatArray, IndexArray]]) -> Sequence[FloatArray]:
        """``marginals`` of each of several batches of memberships (b, n) and images (b,)."""
        ...


class CoalitionGame:
    """A game from any function of coalitions (m, n) to their values, (m,) or image by image (m, k)."""

    def __init__(
        self, num_players: int, value_function: Callable[[BoolArray], FloatArray], *, num_images: int = 1
    ) -> None:
        self._num_players = num_players
        self._num_images = num_images
        self._value_function = value_function

    @property
    def num_players(self) -> int:
        """Number of players n."""
        return self._num_players

    @property
    def num_images(self) -> int:
        """Number of values k of one coalition."""
        return self._num_images

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) of coalitions (m, n) for every image: (m, k).

        Raises:
            ValueError: the function gave another shape.
        """
        values = np.asarray(self._value_function(coalitions), dtype=np.float64)
        expected = (len(coalitions), self._num_images)
        if values.shape == expected[:1] and self._num_images == 1:
            return values[:, None]
        if values.shape != expected:
            raise ValueError(
                f"the value function gave the shape {values.shape} for {expected[0]} coalitions; "
                f"accepted is {expected}: give num_images= if a coalition has several values"
            )
        return values


class CountedGame:
    """A game that counts and caches the coalition values asked of it, and stops at a limit.

    Values are cached by bit-packed coalition, up to ``cache_bytes``, the oldest evicted first; values that
    are cached or repeated within a call are neither asked again nor counted. Wrapping a counted game shares
    its cache and counts in both, so every estimator can have its own limit over common values.
    ``advance`` is called for every block of new values.
    """

    def __init__(
        self,
        game: Game,
        *,
        max_evaluations: int | None = None,
        cache_bytes: int = 2**28,
        coalitions_at_once: int = 64,
        advance: Advance = lambda _units: None,
    ) -> None:
        self._outer: CountedGame | None = game if isinstance(game, CountedGame) else None
        self._game: Game = self._outer._game if self._outer else game
        self._store: dict[bytes, FloatArray] = self._outer._store if self._outer else {}
        row_bytes = 8 * game.num_images + game.num_players // 8 + 200
        self._most_stored: int = self._outer._most_stored if self._outer else max(1, cache_bytes // row_bytes)
        self._at_once: int = self._outer._at_once if self._outer else coalitions_at_once
        self._limit = _UNLIMITED if max_evaluations is None else max_evaluations
        self._advance = advance
        self._evaluations = 0

    @property
    def num_players(self) -> int:
        """Number of players n."""
        return self._game.num_players

    @property
    def num_images(self) -> int:
        """Number of images k."""
        return self._game.num_images

    @property
    def underlying(self) -> Game:
        """The game itself, without counts, limits and cache."""
        return self._game

    @property
    def evaluations(self) -> int:
        """Coalition values asked of the game so far, through this wrapper."""
        return self._evaluations

    @property
    def remaining(self) -> int:
        """Coalition values that may still be asked, under this limit and those of wrapped counted games."""
        own = self._limit - self._evaluations
        return min(own, self._outer.remaining) if self._outer else own

    def new_among(self, coalitions: BoolArray) -> int:
        """Number of values of coalitions (m, n) that would have to be asked of the game."""
        return len(set(coalition_keys(coalitions)) - self._store.keys())

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S) of coalitions (m, n) for every image: (m, k).

        Raises:
            UsageError: more new values than the limit leaves; none is asked then.
            ValueError: a value is not a finite number.
        """
        keys = coalition_keys(coalitions)
        row_of: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            row_of.setdefault(key, row)
        known = {key: self._store[key] for key in row_of if key in self._store}
        new = [key for key in row_of if key not in known]
        if len(new) > self.remaining:
            raise UsageError(
                f"{len(new)} more coalition values are needed where the limit leaves {self.remaining}: "
                "give a larger max_evaluations"
            )
        for start in range(0, len(new), self._at_once):
            block = new[start : start + self._at_once]
            rows = self._ask(coalitions[[row_of[key] for key in block]])
            known.update(zip(block, rows, strict=True))
            self._keep(block, rows)
        result = np.empty((len(keys), self.num_images))
        for row, key in enumerate(keys):
            result[row] = known[key]
        return result

    def means(self, coalitions: BoolArray) -> FloatArray:
        """The mean of v(S) over images (m,) of coalitions (m, n)."""
        return np.asarray(self.values(coalitions).mean(axis=1))

    def ends(self) -> tuple[float, float]:
        """The mean values of the empty and of the grand coalition."""
        none_and_all = np.repeat([[False], [True]], self.num_players, axis=1)
        empty, grand = self.means(none_and_all)
        return float(empty), float(grand)

    def _ask(self, coalitions: BoolArray) -> FloatArray:
        rows = np.asarray(self._game.values(coalitions), dtype=np.float64)
        if not np.isfinite(rows).all():
            worst = coalitions[np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]]
            members = np.flatnonzero(worst).tolist()
            raise ValueError(f"the game's value of the coalition {members} is not a finite number")
        self._count(len(rows))
        return rows

    def _count(self, units: int) -> None:
        self._evaluations += units
        self._advance(units)
        if self._outer:
            self._outer._count(units)

    def _keep(self, keys: list[bytes], rows: FloatArray) -> None:
        for key, row in zip(keys, rows, strict=True):
            self._store[key] = row
        for _ in range(len(self._store) - self._most_stored):
            del self._store[next(iter(self._store))]


def coalition_keys(coalitions: BoolArray) -> list[bytes]:
    """Bit-packed coalitions (m, n), the keys of their cached values."""
    return [row.tobytes() for row in np.packbits(coalitions, axis=1)]


def all_coalitions(num_players: int) -> BoolArray:
    """Every coalition (2**n, n); row r holds the players whose bit is set in r."""
    codes = np.arange(2**num_players, dtype=np.int64)
    return np.asarray((codes[:, None] >> np.arange(num_players)) & 1 == 1)
