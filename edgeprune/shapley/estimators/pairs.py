"""Coalitions with their complements, drawn by size and without replacement."""

from __future__ import annotations

import itertools
import math

import numpy as np

from edgeprune.artifacts.arrays import BoolArray, FloatArray, IndexArray
from edgeprune.shapley.game import CountedGame

_ENUMERATED = 4


def pairs_by_size(n: int) -> IndexArray:
    """Pairs of a coalition and its complement whose smaller one has 1, ..., n // 2 members."""
    pairs = [math.comb(n, size) // (2 if 2 * size == n else 1) for size in range(1, n // 2 + 1)]
    return np.array([min(count, 2**62) for count in pairs], dtype=np.int64)


def multiplicity(n: int) -> FloatArray:
    """Number of coalition sizes that a pair of 1, ..., n // 2 members covers: two, one if they are equal."""
    return np.where(2 * np.arange(1, n // 2 + 1) == n, 1.0, 2.0)


def allocate(pairs_of: IndexArray, total: int, share: FloatArray, least: IndexArray) -> IndexArray:
    """Allocation of ``total`` pairs to sizes: in proportion to ``share``, from ``least`` to all available."""
    counts = least.copy()
    while (left := total - int(counts.sum())) > 0 and (open_ := counts < pairs_of).any():
        wanted = np.where(open_, share, 0.0) / share[open_].sum() * left
        step = np.minimum(np.floor(wanted).astype(np.int64), pairs_of - counts)
        if not step.any():
            step = np.zeros_like(counts)
            step[np.argmax(wanted)] = 1
        counts += step
    return counts


def draw_pairs(n: int, size: int, count: int, available: int, rng: np.random.Generator) -> BoolArray:
    """``count`` different coalitions (count, n) of ``size``, of which no two are complements."""
    if available <= _ENUMERATED * count:
        # Of two complementary halves, the one with player 0 represents the pair.
        every = itertools.islice(itertools.combinations(range(n), size), available)
        members = np.array(list(every))
        chosen = members if count == available else members[rng.choice(available, count, replace=False)]
        coalitions = np.zeros((count, n), dtype=bool)
        np.put_along_axis(coalitions, chosen, True, axis=1)
        return coalitions
    different: dict[bytes, BoolArray] = {}
    while len(different) < count:
        order = rng.random((count, n)).argsort(axis=1).argsort(axis=1)
        for row in order < size:
            standing = ~row if 2 * size == n and not row[0] else row
            different.setdefault(standing.tobytes(), standing)
    return np.array(list(different.values())[:count])


def half_differences(counted: CountedGame, coalitions: BoolArray) -> FloatArray:
    """(v(S) - v(N - S)) / 2 (m,) of coalitions (m, n): the part of a game that Shapley values depend on."""
    values = counted.means(np.concatenate([coalitions, ~coalitions]))
    return np.asarray((values[: len(coalitions)] - values[len(coalitions) :]) / 2.0)
