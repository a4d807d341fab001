"""Exact Shapley values by subset enumeration."""

from __future__ import annotations

import math

import numpy as np

from edgeprune.shapley.game import FloatArray, Game, all_coalitions

MAX_EXACT_PLAYERS = 20


def exact(game: Game, *, coalitions_at_once: int = 64) -> FloatArray:
    """Shapley values of every player and image (n, k) from all 2**n coalitions.

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)) (Shapley 1953).

    Raises:
        ValueError: more than ``MAX_EXACT_PLAYERS`` players.
    """
    n = game.num_players
    if n > MAX_EXACT_PLAYERS:
        raise ValueError(f"{n} players need 2**{n} coalitions; accepted are up to {MAX_EXACT_PLAYERS}")
    coalitions = all_coalitions(n)
    blocks = [
        game.values(coalitions[start : start + coalitions_at_once])
        for start in range(0, len(coalitions), coalitions_at_once)
    ]
    return shapley_from_table(np.concatenate(blocks))


def shapley_from_table(table: FloatArray) -> FloatArray:
    """Shapley values (n, k) from the values (2**n, k) of all coalitions in the order of their bit codes."""
    n = int(table.shape[0]).bit_length() - 1
    codes = np.arange(2**n, dtype=np.int64)
    sizes = np.array([int(c).bit_count() for c in codes])
    weights = np.array([1.0 / (n * math.comb(n - 1, s)) for s in range(n)])
    values = np.empty((n, table.shape[1]))
    for player in range(n):
        without = codes[(codes >> player) & 1 == 0]
        marginal = table[without | (1 << player)] - table[without]
        values[player] = weights[sizes[without]] @ marginal
    return values
