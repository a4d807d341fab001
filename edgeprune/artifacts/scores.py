"""What a criterion says of every player."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Importance of every player (num_players,), higher is more important, by one criterion.

    ``removal_costs`` (num_players,) is what selection adds up over the players that go, in one unit for all
    groups; ``standard_errors`` (num_players,) are those of ``values``, NaN where the criterion has none.
    ``evaluations`` counts v(S) of one batch of images, a forward and backward pass as one; 0 for criteria
    that only look at weights. ``choice`` says in words what was computed, ``notes`` what was not as asked.
    """

    criterion: str
    values: NDArray[np.float64]
    removal_costs: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    evaluations: int
    images: int
    duration_s: float
    choice: str
    notes: tuple[str, ...] = ()
