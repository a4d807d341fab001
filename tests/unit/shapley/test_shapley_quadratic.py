"""The closed-form game: its values against regression, its elimination against its values."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.shapley.game import all_coalitions
from edgeprune.shapley.quadratic import QuadraticGame, QuadraticPlace


def random_place(seed: int, players: list[int]) -> QuadraticPlace:
    rng = np.random.default_rng(seed)
    size = len(players)
    mixed = rng.normal(size=(200, size)) @ rng.normal(size=(size, size))
    gradients = rng.normal(size=(50, size))
    return QuadraticPlace(
        covariance=mixed.T @ mixed / 200,
        metric=gradients.T @ gradients / 50,
        players=np.array(players),
        ridge=1e-9,
    )


def test_a_value_is_the_squared_error_of_the_best_linear_estimate():
    rng = np.random.default_rng(0)
    channels = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    channels -= channels.mean(0)
    gradients = rng.normal(size=(30, 5))
    place = QuadraticPlace(
        covariance=channels.T @ channels / 400,
        metric=gradients.T @ gradients / 30,
        players=np.arange(5),
        ridge=1e-12,
    )
    present = np.array([True, False, True, False, True])
    estimate = np.linalg.lstsq(channels[:, present], channels, rcond=None)[0]
    errors = channels - channels[:, present] @ estimate
    expected = -((errors @ gradients.T) ** 2).sum() / 400 / 30
    game = QuadraticGame((place,), np.arange(5))
    assert game.values(present[None])[0, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "players",
    [
        [[0, 1, 2, 3, 4, 5]],
        [[0, 1, 2, -1, 3, 4, 5], [5, 4, 3, 2, 1, 0]],
        [[0, 0, 1, 1, 2, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
        [[0, 1, 2], [-1, 3, 4, 5, -1]],
    ],
    ids=["one place", "two places, one shared with others", "several channels a player", "split places"],
)
def test_elimination_takes_the_cheapest_and_tells_what_values_say(players):
    places = tuple(random_place(seed, row) for seed, row in enumerate(players))
    game = QuadraticGame(places, np.arange(6))
    found = game.eliminate()
    coalition = np.ones(6, dtype=bool)
    before = game.values(coalition[None])[0, 0]
    for player, cost in zip(found.order, found.costs, strict=True):
        options = np.flatnonzero(coalition)
        without = np.repeat(coalition[None], len(options), axis=0)
        without[np.arange(len(options)), options] = False
        values = game.values(without)[:, 0]
        assert player == options[np.argmax(values)]
        assert cost == pytest.approx(before - values.max(), rel=1e-6, abs=1e-9)
        before = values.max()
        coalition[player] = False
    assert sorted(found.order) == list(range(6))


def test_more_members_are_never_worth_less():
    game = QuadraticGame((random_place(3, [0, 1, 2, 3]),), np.arange(4))
    table = all_coalitions(4)
    values = game.values(table)[:, 0]
    for player in range(4):
        without = np.flatnonzero(~table[:, player])
        assert (values[without + 2**player] >= values[without] - 1e-9).all()


def test_a_channel_that_others_express_leaves_first_and_for_nothing():
    rng = np.random.default_rng(1)
    base = rng.normal(size=(300, 3))
    channels = np.column_stack([base, base @ [1.0, -2.0, 0.5]])
    place = QuadraticPlace(
        covariance=channels.T @ channels / 300, metric=np.eye(4), players=np.arange(4), ridge=1e-9
    )
    assert QuadraticGame((place,), np.arange(4)).eliminate().costs[0] < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_elimination_of_no_numbers_is_refused(value):
    place = random_place(0, [0, 1, 2, 3])
    place.metric[1, 1] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        QuadraticGame((place,), np.arange(4)).eliminate()
