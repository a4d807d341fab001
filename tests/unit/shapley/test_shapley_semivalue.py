"""Semivalues: their laws of coalition sizes, exact and drawn."""

from __future__ import annotations

import numpy as np
import pytest
from shapley_games import by_orders, drawn, layered

from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.exact import CoalitionTable, exact_estimate
from edgeprune.shapley.estimators.semivalue import (
    SHAPLEY,
    BanzhafLaw,
    BetaLaw,
    KeptSizeLaw,
    draw_coalitions,
    gains_at,
    semivalue,
)
from edgeprune.shapley.game import CountedGame, all_coalitions

LAWS = [SHAPLEY, BanzhafLaw(), BetaLaw(a=4.0, b=1.0), KeptSizeLaw(kept=3), KeptSizeLaw(kept=4, width=2)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("players", [5, 9])
def test_laws_are_laws_and_those_of_the_others_follow(law, players):
    sizes, others = law.sizes(players), law.others(players)
    assert (sizes >= 0).all()
    assert (others >= 0).all()
    assert (len(sizes), len(others)) == (players + 1, players)
    assert sizes.sum() == pytest.approx(1.0)
    assert others.sum() == pytest.approx(1.0)
    drawn_ = draw_coalitions(law, players, 40_000, np.random.default_rng(0))
    counts = np.bincount(drawn_.sum(axis=1), minlength=players + 1) / 40_000
    np.testing.assert_allclose(counts, sizes, atol=0.01)
    np.testing.assert_allclose(drawn_.mean(axis=0), sizes @ np.arange(players + 1) / players, atol=0.012)
    seen = np.bincount(drawn_[:, 1:].sum(axis=1), minlength=players) / 40_000
    np.testing.assert_allclose(seen, others, atol=0.01)


def test_known_laws_of_the_others():
    np.testing.assert_allclose(SHAPLEY.others(6), 1 / 6)
    np.testing.assert_allclose(BanzhafLaw().others(4), np.array([1, 3, 3, 1]) / 8)
    np.testing.assert_allclose(KeptSizeLaw(kept=3).others(5), [0, 0, 3 / 5, 2 / 5, 0])
    np.testing.assert_allclose(KeptSizeLaw(kept=5).others(5), [0, 0, 0, 0, 1])
    # Kwon and Zou's Beta(1, 4) leans to large coalitions, Beta(4, 1) to small ones.
    assert BetaLaw(a=4.0, b=1.0).others(6)[-1] == pytest.approx(BetaLaw(a=1.0, b=4.0).others(6)[0])
    assert (np.diff(BetaLaw(a=4.0, b=1.0).others(6)) > 0).all()


def test_exact_semivalues_are_their_definition():
    game = drawn(5, seed=3)
    np.testing.assert_allclose(
        exact_estimate(game, max_evaluations=32, law=SHAPLEY.others).values, by_orders(game), atol=1e-12
    )
    law = KeptSizeLaw(kept=2)
    found = exact_estimate(game, max_evaluations=32, law=law.others).values
    pairs = [c for c in all_coalitions(5) if c.sum() == 2]
    counted = CountedGame(game)
    np.testing.assert_allclose(found, np.mean([gains_at(counted, c) for c in pairs], axis=0), atol=1e-12)
    leave_one_out = exact_estimate(game, max_evaluations=32, law=KeptSizeLaw(kept=5).others).values
    expected = [game.table[31, 0] - game.table[31 - 2**i, 0] for i in range(5)]
    np.testing.assert_allclose(leave_one_out, expected, atol=1e-12)


def test_exact_banzhaf_agrees_with_shapiq():
    shapiq = pytest.importorskip("shapiq")
    game = drawn(6)
    oracle = shapiq.ExactComputer(game=lambda c: game.values(np.asarray(c, dtype=bool))[:, 0], n_players=6)
    expected = oracle("BV").get_n_order_values(1)
    found = CoalitionTable.of(game).semivalue(BanzhafLaw().others)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_drawn_semivalues_are_unbiased_and_covered_by_their_error(law):
    game = drawn(6, seed=8)
    truth = CoalitionTable.of(game).semivalue(law.others)[:, 0]
    runs = [
        semivalue(game, law=law, max_evaluations=280, rng=np.random.default_rng(seed)) for seed in range(150)
    ]
    values = np.array([r.values for r in runs])
    z = (values.mean(axis=0) - truth) / (values.std(axis=0, ddof=1) / np.sqrt(150))
    assert np.abs(z).max() < 3.5
    covered = np.abs(values - truth) < 1.96 * np.array([r.standard_errors for r in runs])
    assert 0.91 < covered.mean() < 0.98


@pytest.mark.parametrize("limit", [9, 16, 17, 100])
def test_the_limit_holds_and_seeds_decide(limit):
    game = drawn(6)

    def run(seed: int):
        return semivalue(game, law=SHAPLEY, max_evaluations=limit, rng=np.random.default_rng(seed))

    found = run(0)
    assert found.evaluations == len(game.asked) <= limit
    assert np.isinf(found.standard_errors).all() == (limit < 16)
    np.testing.assert_array_equal(found.values, run(0).values)
    assert not np.array_equal(found.values, run(1).values)


def test_gains_at_a_coalition_are_exact_differences_of_neighbours():
    game = layered(5)
    coalition = np.array([True, False, True, True, False])
    code = 0b01101
    expected = [game.table[code | 1 << i, 0] - game.table[code & ~(1 << i), 0] for i in range(5)]
    counted = CountedGame(game)
    np.testing.assert_allclose(gains_at(counted, coalition), expected, atol=1e-15)
    np.testing.assert_allclose(
        gains_at(counted, coalition, np.array([4, 0])), [expected[4], expected[0]], atol=1e-15
    )
    assert counted.evaluations == 6


def test_bad_laws_and_limits_are_refused():
    with pytest.raises(UsageError, match=r"Beta\(0.0, 1.0\) is no distribution"):
        BetaLaw(a=0.0, b=1.0)
    with pytest.raises(UsageError, match="kept=7 with width=0 is not accepted for 6 players"):
        KeptSizeLaw(kept=7).sizes(6)
    with pytest.raises(UsageError, match=r"max_evaluations=8 is too few: .* at least 9"):
        semivalue(drawn(6), law=SHAPLEY, max_evaluations=8, rng=np.random.default_rng(0))
