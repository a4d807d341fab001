"""Races for the removed set: right, sure of it in the stated measure, and within the limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from shapley_games import drawn, layered, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Estimate, Method
from edgeprune.shapley.estimators.exact import CoalitionTable, exact_estimate
from edgeprune.shapley.estimators.least_squares import least_squares
from edgeprune.shapley.estimators.partial import partial
from edgeprune.shapley.estimators.racing import race, student_quantile
from edgeprune.shapley.estimators.semivalue import SHAPLEY, BetaLaw, semivalue
from edgeprune.shapley.game import CoalitionGame, CountedGame


def unknown(players: int) -> Estimate:
    """No knowledge at all, and a wrong order to begin with."""
    return Estimate(
        values=-np.arange(players, dtype=np.float64),
        standard_errors=np.full(players, np.inf),
        evaluations=0, empty_value=0.0, grand_value=0.0, method=Method.PERMUTATION, choice="nothing",
    )  # fmt: skip


def least(values: np.ndarray, count: int) -> tuple[int, ...]:
    return tuple(sorted(np.argsort(values, kind="stable")[:count].tolist()))


@pytest.mark.parametrize("law", [SHAPLEY, BetaLaw(a=2.0, b=1.0)], ids=lambda law: law.name)
def test_decided_races_are_right_as_often_as_asked(law):
    wrong = decided = 0
    for seed in range(40):
        game = layered(11, seed=seed % 8)
        truth = CoalitionTable.of(game).semivalue(law.others)[:, 0]
        count = 3 + int(np.argmax(np.diff(np.sort(truth))[2:6]))
        rng = np.random.default_rng(seed)
        start = semivalue(game, law=law, max_evaluations=100, rng=rng)
        found = race(game, start, remove=count, max_evaluations=1000, rng=rng, law=law, confidence=0.9)
        decided += found.decided
        wrong += found.decided and found.removed != least(truth, count)
        assert found.decided == (not found.undecided)
    assert decided >= 10
    assert wrong <= 2


def test_the_stated_probability_is_not_more_than_the_share_of_right_sets():
    game = layered(10, seed=1)
    truth = least(CoalitionTable.of(game).shapley()[:, 0], 4)
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        start = semivalue(game, law=SHAPLEY, max_evaluations=120, rng=rng)
        found.append(race(game, start, remove=4, max_evaluations=250, rng=rng))
    stated = np.mean([r.probability for r in found])
    assert 0.05 < stated <= np.mean([r.removed == truth for r in found]) + 0.05
    assert {r.probability > 0.5 for r in found} == {True, False}


def test_a_race_finds_more_right_sets_than_the_same_evaluations_for_everyone():
    game = many(12, seed=4)
    truth = least(CoalitionTable.of(game).shapley()[:, 0], 4)
    raced = even = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        start = semivalue(game, law=SHAPLEY, max_evaluations=200, rng=rng)
        found = race(game, start, remove=4, max_evaluations=400, rng=rng)
        raced += found.removed == truth
        all_equal = semivalue(game, law=SHAPLEY, max_evaluations=600, rng=np.random.default_rng(seed))
        even += least(all_equal.values, 4) == truth
    assert raced > even


def test_paired_differences_see_through_what_coalitions_share():
    """All gains grow a hundredfold with one player present; paired on coalitions that cancels mostly."""
    strength = np.array([1.0, 1.3, 1.6, 1.9, 2.2, 0.0])
    game = CoalitionGame(6, lambda c: (c @ strength) * (1.0 + 100.0 * c[:, 5]))
    found = race(game, unknown(6), remove=2, max_evaluations=64, rng=np.random.default_rng(0))
    assert found.removed == (0, 1)
    assert found.smallest_gap > 3.0


@pytest.mark.parametrize("limit", [0, 20, 55, 56, 130, 700])
def test_the_limit_holds_and_seeds_decide(limit):
    game = drawn(12)

    def run(seed: int):
        return race(
            game, unknown(12), remove=5, max_evaluations=limit, rng=np.random.default_rng(seed),
        )  # fmt: skip

    found = run(0)
    assert found.evaluations == len(game.asked) <= limit
    assert len(found.removed) == 5
    assert run(0).removed == found.removed
    if limit < 13 * 8:
        assert (found.coalitions, found.removed) == (0, (7, 8, 9, 10, 11))
        assert found.undecided == tuple(range(12))
        assert (found.probability, found.smallest_gap) == (0.0, 0.0)
    else:
        assert not np.array_equal(run(1).values, found.values)


def test_exact_values_need_no_race_and_their_ties_are_named():
    start = exact_estimate(drawn(5), max_evaluations=32)
    found = race(drawn(5), start, remove=2, max_evaluations=100, rng=np.random.default_rng(0))
    assert (found.evaluations, found.decided, found.probability) == (0, True, 1.0)
    assert found.smallest_gap == np.inf
    assert found.removed == least(start.values, 2)
    tied = dataclasses.replace(start, values=np.array([1.0, 2.0, 2.0, 2.0, 3.0]))
    found = race(drawn(5), tied, remove=2, max_evaluations=100, rng=np.random.default_rng(0))
    assert (found.removed, found.undecided, found.evaluations) == ((0, 1), (1, 2, 3), 0)


def test_partial_values_only_order():
    game = layered(8)
    found = race(game, partial(game, max_evaluations=10), remove=3, max_evaluations=256,
                 rng=np.random.default_rng(0))  # fmt: skip
    assert found.coalitions > 0
    assert found.removed == least(CoalitionTable.of(game).shapley()[:, 0], 3)


def test_equal_players_never_part_and_the_race_ends_even_where_all_is_known():
    game = CoalitionGame(5, lambda c: np.sqrt(c.sum(axis=1)) + c[:, 0])
    counted = CountedGame(game)
    CoalitionTable.of(counted)
    found = race(counted, unknown(5), remove=2, max_evaluations=300, rng=np.random.default_rng(0))
    assert found.evaluations == 0
    assert found.coalitions <= 300
    assert not found.decided
    assert set(found.undecided) == {1, 2, 3, 4}
    assert 0 not in found.removed


@pytest.mark.parametrize("remove", [0, 6])
def test_nobody_or_everybody_is_no_race(remove):
    found = race(drawn(6), unknown(6), remove=remove, max_evaluations=100, rng=np.random.default_rng(0))
    assert (len(found.removed), found.evaluations, found.probability) == (remove, 0, 1.0)


def test_few_players_near_the_cut_are_all_that_is_asked():
    """Far players are apart from the start: each round costs one coalition and the two in question."""
    strength = np.array([0.0, 5.0, 5.1, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0])
    game = CoalitionGame(10, lambda c: c @ strength + np.sin(7.0 * c.sum(axis=1) + 3.0 * (c @ strength)))
    start = dataclasses.replace(unknown(10), values=strength, standard_errors=np.full(10, 0.4))
    found = race(game, start, remove=2, max_evaluations=3 * 16, rng=np.random.default_rng(0))
    assert found.coalitions >= 16
    assert set(found.undecided) <= {1, 2}
    np.testing.assert_array_equal(np.delete(found.values, [1, 2]), np.delete(strength, [1, 2]))


def test_a_precise_start_outweighs_a_few_coalitions():
    game = drawn(10)
    truth = CoalitionTable.of(game).shapley()[:, 0]
    start = dataclasses.replace(unknown(10), values=truth, standard_errors=np.full(10, 0.02))
    found = race(game, start, remove=5, max_evaluations=200, rng=np.random.default_rng(0))
    assert found.coalitions >= 16
    assert 0.0 < np.abs(found.values - truth).max() < 0.05
    alone = race(game, unknown(10), remove=5, max_evaluations=200, rng=np.random.default_rng(0))
    assert np.abs(alone.values - truth).max() > 0.2


def test_bad_counts_and_confidences_are_refused():
    with pytest.raises(UsageError, match="remove=7 is not accepted for 6 players"):
        race(drawn(6), unknown(6), remove=7, max_evaluations=9, rng=np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"confidence=1.0 is not accepted"):
        race(drawn(6), unknown(6), remove=2, max_evaluations=9, rng=np.random.default_rng(0), confidence=1.0)


@pytest.mark.parametrize(
    ("z", "freedom", "expected"), [(1.95996, 15, 2.13145), (2.57583, 30, 2.74999), (3.29053, 15, 4.07277)]
)
def test_quantiles_of_student_are_those_of_the_tables(z, freedom, expected):
    assert student_quantile(z, freedom) == pytest.approx(expected, rel=2e-3)
    assert student_quantile(z, np.inf) == z


def test_a_race_after_least_squares_shares_its_values():
    counted = CountedGame(many(10))
    rng = np.random.default_rng(0)
    start = least_squares(counted, max_evaluations=100, rng=rng)
    found = race(counted, start, remove=4, max_evaluations=300, rng=rng)
    assert start.evaluations + found.evaluations == counted.evaluations <= 400
