"""Games for the tests of estimators: by table, drawn at random, and one that looks like a layer."""

from __future__ import annotations

import itertools

import numpy as np

from edgeprune.shapley.game import CoalitionGame


class Recorded(CoalitionGame):
    """A game by its table (2**n,) or (2**n, k) that records every coalition it is asked for."""

    def __init__(self, table: np.ndarray) -> None:
        table = np.asarray(table, dtype=np.float64).reshape(len(table), -1)
        players = len(table).bit_length() - 1
        super().__init__(players, self._look_up, num_images=table.shape[1])
        self.table, self.asked = table, []

    def _look_up(self, coalitions: np.ndarray) -> np.ndarray:
        codes = coalitions @ (1 << np.arange(self.num_players))
        self.asked.extend(codes.tolist())
        return self.table[codes]


def drawn(players: int, seed: int = 0, images: int = 1) -> Recorded:
    """Every coalition has an own random value, so nothing about the game is smooth."""
    return Recorded(np.random.default_rng(seed).standard_normal((2**players, images)))


def layered(players: int, seed: int = 0, curvature: float = 2.0) -> Recorded:
    """Players of unequal strength that partly repeat each other: what is left of noise they explain."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((players, 8)) * rng.gamma(1.0, 1.0, size=(players, 1))
    members = np.array(list(itertools.product([0.0, 1.0], repeat=players)))[:, ::-1]
    return Recorded(np.tanh(np.abs(members @ features) / curvature).mean(axis=1))


def many(players: int, seed: int = 0) -> CoalitionGame:
    """A smooth game of any number of players."""
    features = np.random.default_rng(seed).standard_normal((players, 6))
    return CoalitionGame(players, lambda c: np.tanh(np.abs(c @ features) / 3.0).sum(axis=1))


def by_orders(game: Recorded) -> np.ndarray:
    """Shapley values (n,) by their definition over all orders."""
    means, n = game.table.mean(axis=1), game.num_players
    total = np.zeros(n)
    orders = list(itertools.permutations(range(n)))
    for order in orders:
        code = 0
        for player in order:
            total[player] += means[code | 1 << player] - means[code]
            code |= 1 << player
    return total / len(orders)
