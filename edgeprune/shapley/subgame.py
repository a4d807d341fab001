"""A game among some of the players while all others are present."""

from __future__ import annotations

import numpy as np

from edgeprune.shapley.game import BoolArray, FloatArray, Game, IndexArray


class SubGame:
    """Restriction of ``game`` to ``players`` (n,), everyone else being a member of every coalition."""

    def __init__(self, game: Game, players: IndexArray) -> None:
        self._game = game
        self._players = players

    @property
    def num_players(self) -> int:
        """Number of players of the restricted game."""
        return len(self._players)

    @property
    def num_images(self) -> int:
        """Number of images of the full game."""
        return self._game.num_images

    def values(self, coalitions: BoolArray) -> FloatArray:
        """v(S + everyone else) (m, k) of coalitions (m, n)."""
        full = np.ones((len(coalitions), self._game.num_players), dtype=bool)
        full[:, self._players] = coalitions
        return self._game.values(full)
