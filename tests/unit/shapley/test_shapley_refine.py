"""Swaps and beams: never worse than the start, right on games small enough to know, within the limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from shapley_games import drawn, layered, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.refine import beam_removal, refine
from edgeprune.shapley.game import CoalitionGame


def value_without(game, removed) -> float:
    coalition = np.ones((1, game.num_players), dtype=bool)
    coalition[0, list(removed)] = False
    return float(game.values(coalition).mean())


def best_without(game, count: int) -> float:
    return max(value_without(game, r) for r in itertools.combinations(range(game.num_players), count))


def test_a_settled_set_cannot_be_bettered_by_any_swap():
    game = drawn(9)
    found = refine(game, (0, 1, 2), scores=np.zeros(9), max_evaluations=512, beam=1)
    assert found.settled
    assert found.value == value_without(game, found.removed) > found.start_value
    assert found.start_value == value_without(game, (0, 1, 2))
    assert sorted(found.kept + found.removed) == list(range(9))
    for out, into in itertools.product(found.removed, found.kept):
        swapped = set(found.removed) - {out} | {into}
        assert value_without(game, swapped) <= found.value


def test_a_wider_beam_finds_what_a_narrow_one_misses():
    narrow, wide, best = [], [], []
    for seed in range(12):
        game = drawn(8, seed=seed)
        scores = np.zeros(8)
        narrow.append(refine(game, (0, 1, 2), scores=scores, max_evaluations=256, beam=1).value)
        wide.append(refine(game, (0, 1, 2), scores=scores, max_evaluations=256, beam=56).value)
        best.append(best_without(game, 3))
    np.testing.assert_allclose(wide, best)
    assert np.mean(narrow) < np.mean(best)


@pytest.mark.parametrize("limit", [1, 2, 7, 30])
def test_the_limit_holds_and_the_swaps_that_promise_most_come_first(limit):
    game = drawn(10)
    scores = np.arange(10.0)
    found = refine(game, (8, 9, 7), scores=scores, max_evaluations=limit)
    assert found.evaluations == len(game.asked) == len(set(game.asked)) == limit
    assert not found.settled
    everyone = 2**10 - 1
    start = everyone - 2**7 - 2**8 - 2**9
    assert game.asked[0] == start
    if limit > 1:
        assert game.asked[1] == start + 2**9 - 2**0
    assert found.value == max(game.table[game.asked, 0])
    again = refine(drawn(10), (8, 9, 7), scores=scores, max_evaluations=limit)
    assert again.removed == found.removed


def test_candidates_narrow_the_swaps_to_those_near_the_cut():
    game = drawn(10)
    scores = np.arange(10.0)
    refine(game, (0, 1, 2, 3), scores=scores, max_evaluations=500, candidates=1, beam=1)
    start = 2**10 - 1 - 0b1111
    assert game.asked[:2] == [start, start + 2**3 - 2**4]


def test_nobody_or_everybody_removed_has_no_swaps():
    for removed in ((), (0, 1, 2, 3)):
        found = refine(drawn(4), removed, scores=np.zeros(4), max_evaluations=9)
        assert (found.removed, found.evaluations, found.settled) == (removed, 1, True)


def test_bad_sets_beams_and_limits_are_refused():
    for removed in ((1, 1), (4,), (-1,)):
        with pytest.raises(UsageError, match="is not accepted: give different players from 0 to 3"):
            refine(drawn(4), removed, scores=np.zeros(4), max_evaluations=9)
    with pytest.raises(UsageError, match="beam=0 with candidates=None is not accepted"):
        refine(drawn(4), (1,), scores=np.zeros(4), max_evaluations=9, beam=0)
    with pytest.raises(UsageError, match="beam=4 with candidates=0 is not accepted"):
        beam_removal(drawn(4), remove=1, scores=np.zeros(4), max_evaluations=9, candidates=0)
    with pytest.raises(UsageError, match="max_evaluations=0 is too few"):
        refine(drawn(4), (1,), scores=np.zeros(4), max_evaluations=0)
    with pytest.raises(UsageError, match="max_evaluations=3 is too few: removing 3 players one by one"):
        beam_removal(drawn(4), remove=3, scores=np.zeros(4), max_evaluations=3)
    with pytest.raises(UsageError, match="remove=5 is not accepted for 4 players"):
        beam_removal(drawn(4), remove=5, scores=np.zeros(4), max_evaluations=99)


def test_a_beam_of_one_is_greedy_leave_one_out():
    game = layered(8, seed=2)
    found = beam_removal(game, remove=6, scores=np.zeros(8), max_evaluations=256, beam=1)
    left = set(range(8))
    for step in range(1, 7):
        out = max(sorted(left), key=lambda p: value_without(game, set(range(8)) - left | {p}))
        left.remove(out)
        assert set(found.kept[step]) == left
        assert found.values[step] == value_without(game, set(range(8)) - left)


def test_a_beam_of_all_sets_finds_the_oracle_of_every_size():
    game = drawn(7, seed=3)
    found = beam_removal(game, remove=7, scores=np.zeros(7), max_evaluations=128, beam=100)
    oracle = CoalitionTable.of(game).oracle_sets()
    assert [set(k) for k in found.kept] == [set(s.tolist()) for s in oracle[::-1]]
    assert found.evaluations == 128


def test_with_nothing_to_spare_the_scores_decide():
    scores = np.array([3.0, 1.0, 2.0, 0.0, 4.0])
    game = drawn(5)
    found = beam_removal(game, remove=3, scores=scores, max_evaluations=4)
    assert found.kept == ((0, 1, 2, 3, 4), (0, 1, 2, 4), (0, 2, 4), (0, 4))
    assert len(game.asked) == found.evaluations == 4


@pytest.mark.parametrize("limit", [6, 9, 23, 60])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_beam_reaches_its_end_within_any_limit(limit, beam):
    game = drawn(9)
    found = beam_removal(game, remove=5, scores=np.zeros(9), max_evaluations=limit, beam=beam)
    assert len(game.asked) == found.evaluations <= limit
    assert [len(k) for k in found.kept] == [9, 8, 7, 6, 5, 4]
    for kept, value in zip(found.kept, found.values, strict=True):
        assert value == value_without(game, set(range(9)) - set(kept))


def test_players_that_stand_in_for_each_other_are_not_both_removed():
    """Two copies: each looks worthless beside the other, both together are the best there is."""
    strength = np.array([5.0, 5.0, 1.0, 1.2, 1.4])
    game = CoalitionGame(5, lambda c: c[:, 2:] @ strength[2:] + 5.0 * (c[:, 0] | c[:, 1]))
    leave_one_out = np.array([0.0, 0.0, 1.0, 1.2, 1.4])
    found = refine(game, (0, 1), scores=leave_one_out, max_evaluations=8)
    assert found.start_value == pytest.approx(3.6)
    assert found.value == best_without(game, 2) == pytest.approx(7.6)
    assert beam_removal(game, remove=2, scores=leave_one_out, max_evaluations=12).values[-1] == pytest.approx(
        7.6
    )


def test_refinement_of_larger_games_gains():
    game = many(30)
    found = refine(game, tuple(range(10)), scores=np.zeros(30), max_evaluations=1500)
    assert found.value > found.start_value
    assert found.evaluations <= 1500
