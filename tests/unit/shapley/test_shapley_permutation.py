"""Sampled orders: unbiased, honest about their error, within the limit; and the published hybrid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from shapley_games import Recorded, by_orders, drawn, layered, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable, coalition_sizes
from edgeprune.shapley.estimators.permutation import Orders, permutation
from edgeprune.shapley.estimators.thesis import thesis_hybrid
from edgeprune.shapley.game import CoalitionGame, CountedGame


def run(game, seed: int = 0, limit: int = 120, **options):
    return permutation(game, max_evaluations=limit, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("orders", Orders)
def test_unbiased_and_covered_by_the_stated_error(orders):
    game = drawn(5, seed=1)
    truth = by_orders(game)
    runs = [run(game, seed, limit=250, orders=orders) for seed in range(250)]
    values = np.array([r.values for r in runs])
    errors = np.array([r.standard_errors for r in runs])
    z_of_mean = (values.mean(axis=0) - truth) / (values.std(axis=0, ddof=1) / np.sqrt(len(runs)))
    assert np.abs(z_of_mean).max() < 3.5
    covered = np.abs(values - truth) < 1.96 * errors
    # Strata leave 8 to 12 units only: Student's factor for those is 2.2 to 2.4, so 1.96 covers less.
    assert (0.88 if orders is Orders.STRATIFIED else 0.92) < covered.mean() < 0.975


@pytest.mark.parametrize("orders", Orders)
@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_the_limit_holds_efficiency_holds_and_seeds_decide(orders, tolerance):
    for limit in (12, 13, 20, 57, 300):
        game = drawn(6, seed=limit)
        found = run(game, limit=limit, orders=orders, tolerance=tolerance)
        assert found.evaluations == len(game.asked) == len(set(game.asked)) <= limit
        assert (found.empty_value, found.grand_value) == (game.table[0, 0], game.table[-1, 0])
        if tolerance == 0.0:
            assert found.values.sum() == pytest.approx(found.grand_value - found.empty_value)
        again = run(drawn(6, seed=limit), limit=limit, orders=orders, tolerance=tolerance)
        np.testing.assert_array_equal(found.values, again.values)
        other = run(drawn(6, seed=limit), seed=1, limit=limit, orders=orders, tolerance=tolerance)
        assert not np.array_equal(found.values, other.values)


@pytest.mark.parametrize(("orders", "least"), [(Orders.INDEPENDENT, 7), (Orders.ANTITHETIC, 12)])
def test_the_least_limit_is_stated_and_suffices(orders, least):
    with pytest.raises(UsageError, match=f"max_evaluations={least - 1} is too few: .* at least {least} "):
        run(drawn(6), limit=least - 1, orders=orders)
    found = run(drawn(6), limit=least, orders=orders)
    assert np.isinf(found.standard_errors).all()
    with pytest.raises(UsageError, match="permutations=0 is too few"):
        run(drawn(6), permutations=0, orders=orders)


def test_one_order_gives_its_own_marginals():
    game = drawn(4)
    found = run(game, permutations=1, orders=Orders.INDEPENDENT)
    order = np.random.default_rng(0).permutation(4)
    code = 0
    for player in order:
        assert found.values[player] == pytest.approx(game.table[code | 1 << player, 0] - game.table[code, 0])
        code |= 1 << player


def test_antithetic_pairs_are_exact_where_players_interact_in_pairs():
    strength = np.random.default_rng(0).standard_normal((7, 7))
    game = CoalitionGame(7, lambda c: np.einsum("mi,ij,mj->m", c, strength, c))
    found = run(game, limit=40)
    np.testing.assert_allclose(found.values, (strength + strength.T).sum(axis=1) / 2, atol=1e-12)
    np.testing.assert_allclose(found.standard_errors, 0.0, atol=1e-12)
    assert run(game, limit=40, orders=Orders.INDEPENDENT).standard_errors.min() > 0.1


def test_strata_are_exact_where_only_the_position_matters_and_have_less_error_elsewhere():
    curve = np.random.default_rng(0).standard_normal(9)
    game = CoalitionGame(8, lambda c: curve[c.sum(axis=1)])
    found = run(game, limit=2 + 64 * 7, orders=Orders.STRATIFIED)
    np.testing.assert_allclose(found.values, (curve[-1] - curve[0]) / 8, atol=1e-12)
    assert "8 units of 8" in found.choice
    noise = 0.2 * drawn(8).table[:, 0]
    bent = Recorded(3.0 * curve[coalition_sizes(8)] + noise)
    truth = CoalitionTable.of(bent).shapley()[:, 0]

    def error(orders: Orders) -> float:
        return np.mean([(run(bent, s, limit=450, orders=orders).values - truth) ** 2 for s in range(30)])

    assert error(Orders.STRATIFIED) < 0.2 * error(Orders.INDEPENDENT)


def test_truncation_saves_evaluations_and_is_off_by_the_tolerance_at_most_if_monotone():
    game = CoalitionGame(8, lambda c: np.minimum(c.sum(axis=1), 4) / 4.0 + 0.01 * c.sum(axis=1) / 8)
    full = run(game, limit=10_000, permutations=40)
    ended = run(game, limit=10_000, permutations=40, tolerance=0.02)
    assert ended.evaluations < 0.8 * full.evaluations
    assert "ended within 0.02" in ended.choice
    assert 0.0 < np.abs(ended.values - full.values).max() <= 0.02
    endless = run(drawn(4), limit=10_000, tolerance=1e-9)
    assert endless.evaluations == 16


def test_one_player_gets_the_whole_gain():
    found = run(CoalitionGame(1, lambda c: 7.0 * c[:, 0] + 1.0), limit=2)
    assert (found.values.tolist(), found.standard_errors.tolist(), found.evaluations) == ([7.0], [0.0], 2)


def test_values_known_already_are_not_counted_again():
    shared = CountedGame(drawn(5))
    first = run(shared, limit=60)
    second = run(shared, limit=60)
    assert first.evaluations > 0
    assert second.evaluations == 0
    np.testing.assert_array_equal(first.values, second.values)


def test_the_published_schedule_and_its_cost():
    found = thesis_hybrid(many(12), rng=np.random.default_rng(0))
    assert found.permutations == (100, 144, 214, 328, 521, 859, 720, 120, 24, 6, 2)
    assert found.published_evaluations == sum(
        1 + c * p for p, c in zip(range(12, 1, -1), found.permutations, strict=True)
    )
    assert found.evaluations < 4096 < found.published_evaluations
    assert (len(found.removed), len(found.values)) == (11, 12)


def test_the_published_hybrid_is_exact_from_six_players_on():
    game = drawn(6, seed=5)
    rng = np.random.default_rng(0)
    found = thesis_hybrid(game, rng=rng, keep=0)
    assert rng.random() == np.random.default_rng(0).random(), "something was drawn"
    expected = CoalitionTable.of(game).trajectory()
    np.testing.assert_array_equal(found.removed, expected.removed)
    np.testing.assert_allclose(found.values, expected.values)
    assert found.evaluations == 64
    assert found.permutations == tuple(math.factorial(p) for p in range(6, 0, -1))


def test_plain_monte_carlo_pruning_follows_its_own_orders():
    found = thesis_hybrid(
        layered(7),
        rng=np.random.default_rng(0),
        keep=3,
        exact_from=0,
        amelioration=1.0,
        first_permutations=30,
    )
    assert found.permutations == (30,) * 4
    assert len(set(found.removed.tolist())) == 4
    value = layered(7).table[sum(1 << p for p in set(range(7)) - set(found.removed.tolist())), 0]
    assert found.values[-1] == value


def test_the_published_hybrid_refuses_what_it_cannot_finish():
    with pytest.raises(UsageError, match="keep=8 is not accepted for 7 players"):
        thesis_hybrid(drawn(7), rng=np.random.default_rng(0), keep=8)
    with pytest.raises(UsageError, match=r"max_evaluations=127 is too few .* may need 128"):
        thesis_hybrid(drawn(7), rng=np.random.default_rng(0), max_evaluations=127)
    game = drawn(7)
    assert thesis_hybrid(game, rng=np.random.default_rng(0), max_evaluations=128).evaluations <= 128
    assert thesis_hybrid(drawn(3), rng=np.random.default_rng(0), keep=3).evaluations == 1


def test_every_order_is_as_likely_as_another():
    game = drawn(3)
    found = run(game, limit=2000, orders=Orders.INDEPENDENT)
    orders = list(itertools.permutations(range(3)))
    spread = np.array([_gains_of(game, o) for o in orders]).std(axis=0)
    np.testing.assert_allclose(found.standard_errors, spread / np.sqrt(999), rtol=0.08)


def _gains_of(game, order) -> np.ndarray:
    gains, code = np.zeros(3), 0
    for player in order:
        gains[player] = game.table[code | 1 << player, 0] - game.table[code, 0]
        code |= 1 << player
    return gains
