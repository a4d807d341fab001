"""A game among some of the players while all others are present, or while all others are absent."""

from __future__ import annotations

import numpy as np

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray
from edgeprune.shapley.game import Game


class SubGame:
    """Restriction of ``game`` to ``players`` (n,), with all others members of every coalition."""

    _others_present = True

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
        """v(S + all others, or no others) (m, k) of coalitions (m, n)."""
        full = np.full((len(coalitions), self._game.num_players), self._others_present)
        full[:, self._players] = coalitions
        return self._game.values(full)


class RemainingGame(SubGame):
    """Restriction of ``game`` to ``players`` (n,), with all others removed."""

    _others_present = False
