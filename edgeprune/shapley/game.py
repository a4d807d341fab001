"""What a game is: players, and a value of every coalition, image by image."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


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
    """A game that extends to fractional membership and knows its gradient there."""

    @property
    def shared_coalition(self) -> bool:
        """Whether all images of one call must have the same coalition."""
        ...

    def marginals(self, memberships: FloatArray, images: IndexArray) -> FloatArray:
        """dv/dm of every player (b, n) for the images (b,), each at its own membership (b, n)."""
        ...


def all_coalitions(num_players: int) -> BoolArray:
    """Every coalition (2**n, n); row r holds the players whose bit is set in r."""
    codes = np.arange(2**num_players, dtype=np.int64)
    return np.asarray((codes[:, None] >> np.arange(num_players)) & 1 == 1)
