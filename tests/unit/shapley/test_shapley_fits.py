"""Least squares and partial values: exact at the end, honest before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from shapley_games import by_orders, drawn, layered, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.least_squares import SizeSampling, least_evaluations, least_squares
from edgeprune.shapley.estimators.partial import partial
from edgeprune.shapley.estimators.permutation import permutation
from edgeprune.shapley.game import CoalitionGame


def fit(game, limit: int, seed: int = 0, **options):
    return least_squares(game, max_evaluations=limit, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("players", range(2, 9))
def test_all_pairs_give_the_exact_values(players):
    game = drawn(players, seed=players)
    found = fit(game, 2**players)
    np.testing.assert_allclose(found.values, CoalitionTable.of(game).shapley()[:, 0], atol=1e-11)
    np.testing.assert_allclose(found.standard_errors, 0.0, atol=1e-12)
    assert found.evaluations == 2**players
    assert "all there are" in found.choice


def test_all_pairs_agree_with_kernel_shap_of_shapiq():
    shapiq = pytest.importorskip("shapiq")
    game = drawn(6)
    approximator = shapiq.approximator.KernelSHAP(n=6, random_state=0)
    theirs = approximator.approximate(64, lambda c: game.values(np.asarray(c, dtype=bool))[:, 0])
    np.testing.assert_allclose(fit(game, 64).values, theirs.get_n_order_values(1), atol=1e-5)


@pytest.mark.parametrize("sampling", SizeSampling)
def test_fits_are_covered_by_their_error_and_their_bias_is_below_it(sampling):
    for game, limit in ((drawn(9, seed=2), 180), (layered(9), 120)):
        truth = CoalitionTable.of(game).shapley()[:, 0]
        runs = [fit(game, limit, seed, sampling=sampling) for seed in range(120)]
        values = np.array([r.values for r in runs])
        errors = np.array([r.standard_errors for r in runs])
        covered = np.abs(values - truth) < 1.96 * errors
        assert 0.92 < covered.mean() < 0.985
        bias, spread = np.abs(values.mean(axis=0) - truth), values.std(axis=0)
        assert (bias < 0.6 * spread).all()
        assert np.sqrt((bias**2).mean() / (spread**2).mean()) < 0.3


def test_fits_have_less_error_than_orders_for_the_same_evaluations():
    game = many(12)
    truth = CoalitionTable.of(game).shapley()[:, 0]
    fits = [fit(game, 200, seed).values - truth for seed in range(30)]
    orders = [
        permutation(game, max_evaluations=200, rng=np.random.default_rng(s)).values - truth for s in range(30)
    ]
    assert np.square(fits).mean() < 0.7 * np.square(orders).mean()


@pytest.mark.parametrize("sampling", SizeSampling)
def test_the_limit_holds_efficiency_holds_and_seeds_decide(sampling):
    assert least_evaluations(6) == 2 + 2 * (6 + 2)
    for limit in (18, 19, 25, 40, 63):
        game = drawn(6)
        found = fit(game, limit, sampling=sampling)
        assert found.evaluations == len(game.asked) == len(set(game.asked)) == limit - limit % 2
        assert found.values.sum() == pytest.approx(found.grand_value - found.empty_value)
        np.testing.assert_array_equal(found.values, fit(drawn(6), limit, sampling=sampling).values)
        assert not np.array_equal(found.values, fit(drawn(6), limit, 1, sampling=sampling).values)
    with pytest.raises(UsageError, match="max_evaluations=17 is too few: least squares for 6 players needs"):
        fit(drawn(6), 17)


def test_no_coalition_of_half_the_players_is_drawn_with_its_complement():
    for seed in range(20):
        assert fit(many(8), 70, seed).evaluations == 70


def test_many_players_are_fitted_too():
    strength = np.random.default_rng(0).standard_normal(70)
    game = CoalitionGame(70, lambda c: c @ strength + 3.0)
    np.testing.assert_allclose(fit(game, 500).values, strength, atol=1e-10)
    assert fit(many(70), 500).evaluations == 500


@pytest.mark.parametrize("players", [2, 4, 6])
def test_partial_of_all_sizes_is_the_shapley_value(players):
    game = drawn(players, seed=players)
    found = partial(game, max_evaluations=2**players)
    np.testing.assert_allclose(found.values, by_orders(game), atol=1e-12)
    assert found.evaluations == 2**players


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_partial_is_the_mean_loss_over_small_removed_sets(largest):
    game = drawn(6, seed=9)
    found = partial(game, max_evaluations=1000, largest=largest)

    def without(removed) -> float:
        return game.table[63 - sum(1 << p for p in removed), 0]

    for player in range(6):
        by_size = []
        for size in range(1, largest + 1):
            others = itertools.combinations(set(range(6)) - {player}, size - 1)
            by_size.append(np.mean([without(s) - without((*s, player)) for s in others]))
        assert found.values[player] == pytest.approx(np.mean(by_size))
    assert found.evaluations == len(set(game.asked))


def test_partial_takes_the_largest_sets_that_the_limit_allows():
    for limit, evaluations, words in (
        (8, 8, "leave-one-out"),
        (22, 8, "leave-one-out"),
        (23, 23, "up to 2 of 6"),
        (62, 58, "up to 4 of 6"),
        (64, 64, "up to 6 of 6"),
    ):
        found = partial(drawn(6), max_evaluations=limit)
        assert found.evaluations == evaluations
        assert words in found.choice
    with pytest.raises(UsageError, match="max_evaluations=7 is too few: removing up to 1 of 6 players"):
        partial(drawn(6), max_evaluations=7)
    with pytest.raises(UsageError, match="largest=7 is not accepted for 6 players"):
        partial(drawn(6), max_evaluations=64, largest=7)


def test_one_player_gets_the_whole_gain():
    game = CoalitionGame(1, lambda c: 3.0 * c[:, 0] - 1.0)
    assert fit(game, 2).values.tolist() == partial(game, max_evaluations=2).values.tolist() == [3.0]
