"""Shapley values of games whose values are known, and estimators against exact values."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.aggregate import Moments, aggregate
from edgeprune.shapley.estimators.exact import MAX_EXACT_PLAYERS, exact, shapley_from_table
from edgeprune.shapley.estimators.multilinear import multilinear
from edgeprune.shapley.game import all_coalitions
from edgeprune.shapley.subgame import SubGame


class TableGame:
    """A game by its table (2**n, k), extended to fractional memberships as a multilinear polynomial."""

    shared_coalition = False

    def __init__(self, table: np.ndarray) -> None:
        self.table = np.asarray(table, dtype=np.float64)
        self.num_images = self.table.shape[1]
        self.num_players = len(self.table).bit_length() - 1
        self.largest_request = 0

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        self.largest_request = max(self.largest_request, len(coalitions))
        return self.table[coalitions @ (1 << np.arange(self.num_players))]

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        everyone = all_coalitions(self.num_players)
        result = np.zeros((len(images), self.num_players))
        for player in range(self.num_players):
            with_player = everyone[everyone[:, player]]
            without = with_player.copy()
            without[:, player] = False
            chance = np.where(with_player, memberships[:, None], 1 - memberships[:, None])
            chance[:, :, player] = 1.0
            gain = self.values(with_player) - self.values(without)
            result[:, player] = (chance.prod(axis=2) * gain[:, images].T).sum(axis=1)
        return result


class SharedTableGame(TableGame):
    """The same, where all images of a call must have one coalition."""

    shared_coalition = True

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        assert (memberships == memberships[0]).all()
        return super().marginals(memberships, images)


def game_of(players: int, worth: Callable[[frozenset[int]], float]) -> TableGame:
    rows = [worth(frozenset(np.flatnonzero(c).tolist())) for c in all_coalitions(players)]
    return TableGame(np.array(rows, dtype=np.float64)[:, None])


def random_game(players: int, images: int, seed: int = 0) -> TableGame:
    return TableGame(np.random.default_rng(seed).standard_normal((2**players, images)))


AIRPORT_COSTS = (1.0, 3.0, 4.0, 10.0)
KNOWN = {
    # One left glove (player 0), two right ones: a pair is worth 1.
    "glove": (3, lambda s: float(0 in s and bool(s & {1, 2})), [2 / 3, 1 / 6, 1 / 6]),
    # Littlechild and Owen 1973: each length of the runway is shared by those who need it.
    "airport": (
        4,
        lambda s: max((AIRPORT_COSTS[i] for i in s), default=0.0),
        [1 / 4, 1 / 4 + 2 / 3, 1 / 4 + 2 / 3 + 1 / 2, 1 / 4 + 2 / 3 + 1 / 2 + 6],
    ),
    "majority": (5, lambda s: float(len(s) >= 3), [1 / 5] * 5),
    "unanimity of 0 and 2": (4, lambda s: float({0, 2} <= s), [1 / 2, 0, 1 / 2, 0]),
    "additive": (4, lambda s: float(sum((2.0, -1.0, 0.0, 5.0)[i] for i in s)), [2.0, -1.0, 0.0, 5.0]),
    # Weights 3, 2, 1, 1 and quota 4: the classical weighted voting game, counted over its 24 orders.
    "weighted voting": (
        4,
        lambda s: float(sum((3, 2, 1, 1)[i] for i in s) >= 4),
        [1 / 2, 1 / 6, 1 / 6, 1 / 6],
    ),
    "alone": (1, lambda s: 7.0 * len(s) + 1.0, [7.0]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_games_with_known_values(name):
    players, worth, expected = KNOWN[name]
    np.testing.assert_allclose(exact(game_of(players, worth))[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("players", [2, 3, 5, 6])
def test_exact_equals_average_over_all_orders(players):
    game = random_game(players, images=2)
    total = np.zeros((players, 2))
    for order in itertools.permutations(range(players)):
        coalition = np.zeros((1, players), dtype=bool)
        before = game.values(coalition)[0]
        for player in order:
            coalition[0, player] = True
            after = game.values(coalition)[0]
            total[player] += after - before
            before = after
    np.testing.assert_allclose(exact(game), total / math.factorial(players), atol=1e-12)


def test_exact_agrees_with_shapiq():
    shapiq = pytest.importorskip("shapiq")
    game = random_game(7, images=1)
    oracle = shapiq.ExactComputer(game=lambda c: game.values(np.asarray(c, dtype=bool))[:, 0], n_players=7)
    expected = oracle("SV").get_n_order_values(1)
    np.testing.assert_allclose(exact(game)[:, 0], expected, atol=1e-10)


@pytest.mark.parametrize("at_once", [1, 5, 64])
def test_exact_in_blocks_is_the_same_and_respects_their_size(at_once):
    game = random_game(5, images=3)
    np.testing.assert_array_equal(exact(game, coalitions_at_once=at_once), shapley_from_table(game.table))
    assert game.largest_request <= at_once


def test_exact_refuses_too_many_players():
    game = random_game(2, images=1)
    game.num_players = MAX_EXACT_PLAYERS + 1
    with pytest.raises(ValueError, match=r"21 players need 2\*\*21 coalitions; accepted are up to 20"):
        exact(game)


def test_all_coalitions_are_in_order_of_their_bits():
    assert all_coalitions(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
    assert len({tuple(c) for c in all_coalitions(6).tolist()}) == 64


def test_subgame_has_everyone_else_present():
    game = random_game(5, images=2)
    sub = SubGame(game, np.array([3, 1]))
    assert (sub.num_players, sub.num_images) == (2, 2)
    always = 0b10101
    expected = game.table[[always, always | 0b01000, always | 0b00010, 0b11111]]
    np.testing.assert_array_equal(sub.values(all_coalitions(2)), expected)


@pytest.mark.parametrize("kind", [TableGame, SharedTableGame])
def test_multilinear_with_the_full_law_tends_to_the_shapley_values(kind):
    game = kind(random_game(5, images=4, seed=3).table)
    found = multilinear(
        game, passes=3000, q_low=0.0, aggregate=Aggregate.MEAN, batch=4, rng=np.random.default_rng(0)
    )
    truth = exact(game).mean(axis=1)
    if kind is TableGame:
        assert (np.abs(found.values - truth) < 4.5 * found.standard_errors).all()
    np.testing.assert_allclose(found.values, truth, atol=0.06)


def test_standard_errors_are_as_large_as_the_scatter_between_seeds():
    game = random_game(4, images=16, seed=1)
    runs = [
        multilinear(game, passes=20, q_low=0.0, aggregate=kind, batch=16, rng=np.random.default_rng(seed))
        for kind in (Aggregate.MEAN, Aggregate.RMS, Aggregate.MEAN_PLUS_2STD)
        for seed in range(60)
    ]
    for start in range(0, len(runs), 60):
        scatter = np.std([r.values for r in runs[start : start + 60]], axis=0)
        stated = np.mean([r.standard_errors for r in runs[start : start + 60]], axis=0)
        # Images are not drawn anew in each run, so the stated error (over images, too) may be larger.
        assert (scatter < 1.3 * stated).all()
        assert (scatter > 0.2 * stated).all()


def test_multilinear_of_an_additive_game_is_exact_at_once():
    game = game_of(4, KNOWN["additive"][1])
    found = multilinear(
        game, passes=1, q_low=0.3, q_high=0.9, aggregate=Aggregate.MEAN, batch=1, rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(found.values, KNOWN["additive"][2], atol=1e-12)


def test_multilinear_near_the_grand_coalition_is_leave_one_out():
    game = random_game(4, images=3)
    found = multilinear(
        game, passes=1, q_low=1.0, aggregate=Aggregate.MEAN, batch=2, rng=np.random.default_rng(0)
    )
    grand = 15
    expected = [(game.table[grand] - game.table[grand - 2**i]).mean() for i in range(4)]
    np.testing.assert_allclose(found.values, expected, atol=1e-12)


def test_same_seed_same_values_other_seed_others():
    game = random_game(5, images=6)

    def run(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return multilinear(game, passes=3, q_low=0.2, aggregate=Aggregate.RMS, batch=4, rng=rng).values

    np.testing.assert_array_equal(run(5), run(5))
    assert not np.array_equal(run(5), run(6))


def test_multilinear_counts_one_evaluation_a_batch_and_reports_each():
    seen: list[int] = []
    found = multilinear(
        random_game(3, images=10), passes=3, q_low=0.0, aggregate=Aggregate.RMS, batch=4,
        rng=np.random.default_rng(0), advance=seen.append,
    )  # fmt: skip
    assert found.evaluations == 9
    assert seen == [1] * 9


SAMPLES = np.random.default_rng(7).gamma(2.0, size=(3, 500)) - 1.0


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        (Aggregate.MEAN, lambda x: x.mean(1)),
        (Aggregate.RMS, lambda x: np.sqrt((x**2).mean(1))),
        (Aggregate.MEAN_PLUS_2STD, lambda x: x.mean(1) + 2 * x.std(1)),
    ],
)
def test_aggregates_are_their_formulas_and_errors_those_of_a_bootstrap(kind, formula):
    values, errors = aggregate(SAMPLES, kind)
    np.testing.assert_allclose(values, formula(SAMPLES), rtol=1e-10)
    rng = np.random.default_rng(0)
    resampled = [formula(SAMPLES[:, rng.integers(0, 500, 500)]) for _ in range(600)]
    np.testing.assert_allclose(errors, np.std(resampled, axis=0), rtol=0.15)


@pytest.mark.parametrize("kind", list(Aggregate))
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7, 1e-200, 1e6])
def test_no_spread_means_no_error_and_no_warning(kind, constant):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, errors = aggregate(np.full((2, 7), constant), kind)
    expected = abs(constant) if kind is Aggregate.RMS else constant
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_array_equal(errors, 0.0)


@pytest.mark.parametrize("kind", list(Aggregate))
def test_little_spread_about_a_large_mean_is_not_lost(kind):
    values, errors = aggregate(1000.0 + 1e-6 * SAMPLES, kind)
    _, own = aggregate(
        1e-6 * SAMPLES, Aggregate.MEAN_PLUS_2STD if kind is Aggregate.MEAN_PLUS_2STD else Aggregate.MEAN
    )
    np.testing.assert_allclose(values, 1000.0, rtol=1e-5)
    np.testing.assert_allclose(errors, own, rtol=1e-3)


def test_moments_in_pieces_are_moments_of_the_whole():
    pieces = Moments(3)
    for piece in np.split(SAMPLES.T, [1, 7, 300]):
        pieces.add(piece)
    whole = Moments(3)
    whole.add(SAMPLES.T)
    for kind in Aggregate:
        np.testing.assert_allclose(pieces.aggregate(kind), whole.aggregate(kind), rtol=1e-9)
