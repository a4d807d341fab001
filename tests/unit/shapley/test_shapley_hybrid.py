"""The default chooses what fits, says so, and keeps to the limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from shapley_games import drawn, many

from edgeprune.errors import UsageError
from edgeprune.shapley.estimate import Method
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.estimators.hybrid import choose_removal, hybrid
from edgeprune.shapley.estimators.semivalue import BanzhafLaw, KeptSizeLaw
from edgeprune.shapley.game import CoalitionGame


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("players", "limit", "method", "words"),
    [
        (8, 256, Method.EXACT, "all 256 coalitions of 8 players"),
        (8, 255, Method.ADJUSTED, "126 pairs of coalitions"),
        (8, 96, Method.ADJUSTED, "47 pairs of coalitions"),
        (8, 95, Method.LEAST_SQUARES, "46 pairs of coalitions"),
        (24, 144, Method.LEAST_SQUARES, "71 pairs of coalitions"),
        (24, 143, Method.PERMUTATION, "6 orders, antithetic pairs"),
        (25, 4000, Method.PERMUTATION, "166 orders, antithetic pairs"),
        (30, 60, Method.PERMUTATION, "2 orders, antithetic pairs"),
        (30, 59, Method.PARTIAL, "leave-one-out"),
        (30, 32, Method.PARTIAL, "leave-one-out"),
        (1, 2, Method.EXACT, "all 2 coalitions"),
    ],
)
def test_what_is_chosen_fits_the_limit_and_is_said(players, limit, method, words):
    seen: list[int] = []
    found = hybrid(many(players), max_evaluations=limit, rng=generator(), advance=seen.append)
    assert found.method is method
    assert words in found.choice
    assert found.evaluations == sum(seen) <= limit
    assert found.values.shape == found.standard_errors.shape == (players,)


def test_too_small_a_limit_is_refused():
    with pytest.raises(UsageError, match="max_evaluations=31 is too few: removing up to 1 of 30 players"):
        hybrid(many(30), max_evaluations=31, rng=generator())


def test_another_law_is_followed_exactly_or_drawn():
    game, law = drawn(6), BanzhafLaw()
    truth = CoalitionTable.of(game).semivalue(law.others)[:, 0]
    exact = hybrid(game, max_evaluations=64, rng=generator(), law=law)
    np.testing.assert_allclose(exact.values, truth, atol=1e-12)
    by_draw = hybrid(game, max_evaluations=63, rng=generator(), law=law)
    assert by_draw.method is Method.SEMIVALUE
    assert (np.abs(by_draw.values - truth) < 5 * by_draw.standard_errors).all()


def test_the_best_of_all_sets_is_chosen_where_the_table_fits():
    game = drawn(7, seed=6)
    table = CoalitionTable.of(game)
    for remove in (0, 1, 3, 7):
        found = choose_removal(game, remove=remove, max_evaluations=128, rng=generator())
        everyone = range(7)
        best = max(
            itertools.combinations(everyone, 7 - remove), key=lambda s: table.means()[sum(1 << p for p in s)]
        )
        assert found.best_of_all
        assert (found.kept, sorted(found.kept + found.removed)) == (best, list(everyone))
        assert found.value == table.means()[sum(1 << p for p in best)]


@pytest.mark.parametrize("limit", [16, 40, 120, 400])
def test_choosing_keeps_to_the_limit_and_seeds_decide(limit):
    game = drawn(13)

    def run(seed: int):
        return choose_removal(game, remove=5, max_evaluations=limit, rng=np.random.default_rng(seed))

    found = run(0)
    assert found.evaluations == len(game.asked) == len(set(game.asked)) <= limit
    assert not found.best_of_all
    assert len(found.removed) == 5
    assert found == run(0)
    assert "sets tried" in found.choice


def test_sets_chosen_are_near_the_best_where_a_ranking_alone_is_not():
    ranked, chosen = [], []
    for seed in range(6):
        game = many(12, seed=seed)
        table = CoalitionTable.of(game)
        means, sizes = table.means(), np.array([int(c).bit_count() for c in range(4096)])
        best, middle = means[sizes == 8].max(), np.median(means[sizes == 8])
        removed = np.argsort(table.shapley()[:, 0])[:4]
        ranked.append((means[4095 - (1 << removed).sum()] - middle) / (best - middle))
        found = choose_removal(game, remove=4, max_evaluations=250, rng=generator())
        chosen.append((found.value - middle) / (best - middle))
    assert np.mean(chosen) > 0.9 > np.mean(ranked)


def test_players_are_chosen_by_the_law_that_is_asked_for():
    law = KeptSizeLaw(kept=20)
    found = choose_removal(many(30), remove=10, max_evaluations=400, rng=generator(), law=law)
    assert "by the law 20 kept" in found.choice
    assert found.evaluations <= 400


def test_bad_counts_and_limits_are_refused():
    with pytest.raises(UsageError, match="remove=31 is not accepted for 30 players"):
        choose_removal(many(30), remove=31, max_evaluations=100, rng=generator())
    with pytest.raises(UsageError, match="max_evaluations=32 is too few: choosing among 30 players"):
        choose_removal(many(30), remove=3, max_evaluations=32, rng=generator())


def test_players_that_replace_each_other_are_not_removed_together():
    """Each of a pair is worth half of the pair, less than a single player, so it seems to go first."""

    def worth(coalitions: np.ndarray) -> np.ndarray:
        pairs = coalitions[:, :24].reshape(-1, 12, 2).any(axis=2).sum(axis=1)
        return pairs + 0.6 * coalitions[:, 24:].sum(axis=1)

    game = CoalitionGame(30, worth)
    for limit in (400, 600):
        found = choose_removal(game, remove=12, max_evaluations=limit, rng=generator())
        assert found.value == pytest.approx(12 + 0.6 * 6)
        assert found.evaluations <= limit
