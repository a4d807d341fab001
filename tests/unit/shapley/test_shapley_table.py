"""One table of coalitions: sub-games, trajectories, oracle sets and ranks, by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from shapley_games import by_orders, drawn

from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable, coalition_sizes, exact_estimate
from edgeprune.shapley.subgame import RemainingGame


def code_of(players) -> int:
    return sum(1 << int(p) for p in players)


@pytest.mark.parametrize("players", range(1, 7))
def test_exact_estimate_is_the_definition_over_orders(players):
    game = drawn(players, seed=players, images=2)
    found = exact_estimate(game, max_evaluations=2**players)
    np.testing.assert_allclose(found.values, by_orders(game), atol=1e-12)
    assert found.evaluations == 2**players == len(game.asked)
    assert found.grand_value - found.empty_value == pytest.approx(found.values.sum())
    assert not found.standard_errors.any()


def test_exact_estimate_refuses_a_limit_below_its_table():
    with pytest.raises(UsageError, match="max_evaluations=31 is too few: the table of all coalitions of 5"):
        exact_estimate(drawn(5), max_evaluations=31)


def test_any_sub_game_comes_from_the_table_without_evaluations():
    game = drawn(6, images=2)
    table = CoalitionTable.of(game)
    asked = len(game.asked)
    for players in ([0], [4, 1], [5, 0, 3], [0, 1, 2, 3, 4, 5]):
        remaining = RemainingGame(game, np.array(players))
        expected = CoalitionTable.of(remaining).shapley()
        del game.asked[asked:]
        np.testing.assert_allclose(table.shapley(np.array(players)), expected, atol=1e-13)
        assert len(game.asked) == asked


def test_a_trajectory_removes_the_least_and_values_those_left_anew():
    game = drawn(6, seed=0)
    table = CoalitionTable.of(game)
    found = table.trajectory()
    left = list(range(6))
    for removed, before in zip(found.removed, found.values, strict=False):
        assert before == table.means()[code_of(left)]
        worth = CoalitionTable.of(RemainingGame(game, np.array(left))).shapley()[:, 0]
        assert removed == left[int(np.argmin(worth))]
        left.remove(removed)
    assert found.values[-1] == table.means()[0]
    # Once ranked and never again is another order here, so valuing anew is seen to matter.
    assert found.removed.tolist() != np.argsort(table.shapley()[:, 0]).tolist()


def test_oracle_sets_are_the_best_of_their_size():
    table = CoalitionTable.of(drawn(6, seed=2, images=3))
    for size, found in enumerate(table.oracle_sets()):
        best = max(itertools.combinations(range(6), size), key=lambda s: table.means()[code_of(s)])
        assert found.tolist() == list(best)


@pytest.mark.parametrize("seed", range(4))
def test_oracle_rank_shares_most_with_the_oracle_sets_of_all_rankings(seed):
    table = CoalitionTable.of(drawn(5, seed=seed))
    oracle = [set(s.tolist()) for s in table.oracle_sets()]

    def common_and_value(ranking) -> tuple[int, float]:
        leading = [ranking[:size] for size in range(6)]
        common = sum(len(oracle[size] & set(lead)) for size, lead in enumerate(leading))
        return common, sum(table.means()[code_of(lead)] for lead in leading)

    best = max(itertools.permutations(range(5)), key=common_and_value)
    assert table.oracle_rank().tolist() == list(best)


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_removal_beats_the_best_trajectory(seed):
    table = CoalitionTable.of(drawn(5, seed=seed))
    found = table.best_trajectory()
    sums = [
        sum(table.means()[code_of(order[:size])] for size in range(6))
        for order in itertools.permutations(range(5))
    ]
    assert found.values.sum() == pytest.approx(max(sums), abs=1e-12)
    assert sorted(found.removed.tolist()) == list(range(5))


def test_nested_oracle_sets_are_the_rank_itself():
    strength = np.array([3.0, 1.0, 7.0, 5.0])
    codes = np.arange(16)
    table = CoalitionTable(values=(((codes[:, None] >> np.arange(4)) & 1) @ strength)[:, None])
    assert table.oracle_rank().tolist() == [2, 3, 0, 1]
    assert table.trajectory().removed.tolist() == [1, 0, 3, 2]


def test_a_flat_game_and_nobody_at_all_have_ranks_too():
    assert sorted(CoalitionTable(values=np.zeros((8, 1))).oracle_rank().tolist()) == [0, 1, 2]
    nobody = CoalitionTable(values=np.ones((1, 2)))
    assert nobody.shapley().shape == (0, 2)
    assert nobody.trajectory().values.tolist() == [1.0]


def test_sizes_are_counts_of_bits():
    assert coalition_sizes(10).tolist() == [int(c).bit_count() for c in range(1024)]
