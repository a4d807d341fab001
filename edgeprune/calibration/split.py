"""Sample images, stratified by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw(count: int, total: int, labels: Sequence[int] | None, rng: np.random.Generator) -> list[int]:
    """``count`` of ``total`` images, in ascending order; with labels, stratified by class.

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


def without_copies(
    kept_back: Sequence[int], rest: Sequence[int], digests: Sequence[bytes]
) -> tuple[list[int], list[int]]:
    """Split ``kept_back`` into unique images that are not in ``rest``, and copies.

    A copy of an image used for fitting gives no information about unseen images, and a duplicate none beyond
    the first. One image stays in any case.
    """
    seen = {digests[i] for i in rest}
    judging: list[int] = []
    copies: list[int] = []
    for index in kept_back:
        (copies if digests[index] in seen else judging).append(index)
        seen.add(digests[index])
    if not judging:
        judging.append(copies.pop(0))
    return judging, copies


def held_out_count(total: int, fraction: float) -> int:
    """Number of held-out images of ``total``: at least one, leaving at least one."""
    return min(max(round(total * fraction), 1), total - 1)
