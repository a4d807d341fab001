"""Regression-adjusted values: unbiased, honest about their error, better than what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from shapley_games import drawn, layered, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Method
from edgeprune.shapley.estimators.adjusted import adjusted, least_evaluations
from edgeprune.shapley.estimators.exact import exact
from edgeprune.shapley.estimators.permutation import permutation
from edgeprune.shapley.game import CoalitionGame


def runs(game, limit, count=120, **options):
    found = [
        adjusted(game, max_evaluations=limit, rng=np.random.default_rng(seed), **options)
        for seed in range(count)
    ]
    return np.array([f.values for f in found]), np.array([f.standard_errors for f in found])


@pytest.mark.parametrize("adjust", [True, False])
@pytest.mark.parametrize(("game", "limit"), [(drawn(7), 90), (layered(8, curvature=1.0), 100)])
def test_unbiased_and_stated_errors_are_the_scatter(game, limit, adjust):
    values, errors = runs(game, limit, adjust=adjust)
    truth, scatter = exact(game)[:, 0], values.std(axis=0)
    assert (np.abs(values.mean(axis=0) - truth) < 4.0 * scatter / np.sqrt(len(values))).all()
    stated = np.sqrt(np.square(errors).mean())
    assert 0.8 < stated / np.sqrt(np.square(values - truth).mean()) < 1.25


@pytest.mark.parametrize("adjust", [True, False])
@pytest.mark.parametrize("players", [2, 3, 6, 7])
def test_exact_once_all_pairs_fit(players, adjust):
    game = drawn(players)
    found = adjusted(game, max_evaluations=2**players, rng=np.random.default_rng(0), adjust=adjust)
    np.testing.assert_allclose(found.values, exact(game)[:, 0], atol=1e-12)
    np.testing.assert_array_equal(found.standard_errors, 0.0)
    assert found.evaluations == 2**players
    assert found.method is Method.ADJUSTED


def test_the_fit_takes_the_level_and_the_slopes_away():
    game = layered(10, curvature=1.0)
    truth = exact(game)[:, 0]
    fitted, plain = (runs(game, 120, 40, adjust=a)[0] for a in (True, False))
    orders = np.array(
        [permutation(game, max_evaluations=120, rng=np.random.default_rng(s)).values for s in range(40)]
    )
    errors = [np.sqrt(np.square(v - truth).mean()) for v in (fitted, plain, orders)]
    assert errors[0] < 0.9 * errors[1]
    assert errors[0] < 0.5 * errors[2]


def test_games_linear_in_the_members_at_every_size_are_known_at_once():
    rng = np.random.default_rng(3)
    worth, n = rng.standard_normal(12), 12

    def value(coalitions: np.ndarray) -> np.ndarray:
        size = coalitions.sum(axis=1)
        tilt = 1.0 - 2.0 * (np.minimum(size, n - size) - 1) / (n // 2 - 1)
        return (coalitions - 0.5) @ worth + 0.5 * tilt * (coalitions @ worth - size * worth.mean())

    game = CoalitionGame(n, value)
    found = adjusted(game, max_evaluations=200, rng=rng)
    np.testing.assert_allclose(found.values, exact(game)[:, 0], atol=1e-6)
    assert found.standard_errors.max() < 1e-5


def test_the_smallest_limit_and_one_less():
    game = many(9)
    least = least_evaluations(9)
    assert least == 2 + 2 * 2 * 4
    found = adjusted(game, max_evaluations=least, rng=np.random.default_rng(0))
    assert found.evaluations <= least
    assert np.isfinite(found.standard_errors).all()
    with pytest.raises(UsageError, match="two pairs of every size for 9 players needs at least 18"):
        adjusted(game, max_evaluations=least - 1, rng=np.random.default_rng(0))


def test_many_players_and_few_pairs():
    game = many(64)
    found = adjusted(game, max_evaluations=400, rng=np.random.default_rng(1))
    assert found.evaluations <= 400
    assert found.values.sum() == pytest.approx(found.grand_value - found.empty_value)


def test_one_player_takes_all():
    found = adjusted(drawn(1), max_evaluations=2, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.values, drawn(1).table[1] - drawn(1).table[0])
