"""Draw some of the images, each class in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw(count: int, total: int, labels: Sequence[int] | None, rng: np.random.Generator) -> list[int]:
    """``count`` of ``total`` images, in ascending order; with labels, each class in proportion.

    Shares are rounded by largest remainder; a class gives its last image only when no other can give one.
    """
    if labels is None:
        return sorted(int(i) for i in rng.permutation(total)[:count])
    values = np.asarray(labels)
    classes = np.unique(values)
    sizes = np.array([int((values == c).sum()) for c in classes])
    shares = sizes * count / total
    taken = np.floor(shares).astype(int)
    last_one = taken + 1 >= sizes
    order = np.lexsort((np.arange(len(classes)), -(shares - taken), last_one))
    for position in order[: count - int(taken.sum())]:
        taken[position] += 1
    drawn: list[int] = []
    for c, number in zip(classes, taken, strict=True):
        drawn += rng.permutation(np.flatnonzero(values == c))[:number].tolist()
    return sorted(drawn)


def held_out_count(total: int, fraction: float) -> int:
    """How many of ``total`` images are kept back: at least one, and at least one is left."""
    return min(max(round(total * fraction), 1), total - 1)
