"""The axioms of Shapley (1953) hold for every game, and those of the aggregates for every sample."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.shapley.aggregate import aggregate
from edgeprune.shapley.exact import shapley_from_table
from edgeprune.shapley.game import all_coalitions

WORTH = st.floats(-1e3, 1e3, allow_subnormal=False)
TABLES = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (2**n, 2), elements=WORTH))
PAIRS = st.integers(1, 5).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, (2**n, 1), elements=WORTH) for _ in range(2)])
)
CLOSE = {"rtol": 1e-9, "atol": 1e-8}


def relabelled(table: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The same game where new player ``j`` plays the part of old player ``order[j]``."""
    new = all_coalitions(len(order))
    old = np.zeros_like(new)
    old[:, order] = new
    return table[old @ (1 << np.arange(len(order)))]


@given(TABLES)
def test_efficiency(table):
    np.testing.assert_allclose(shapley_from_table(table).sum(axis=0), table[-1] - table[0], **CLOSE)


@given(TABLES, st.randoms(use_true_random=False))
def test_anonymity_which_implies_symmetry(table, random):
    order = list(range(len(table).bit_length() - 1))
    random.shuffle(order)
    found = shapley_from_table(relabelled(table, np.array(order)))
    np.testing.assert_allclose(found, shapley_from_table(table)[order], **CLOSE)


@given(TABLES)
def test_symmetric_players_get_the_same(table):
    players = len(table).bit_length() - 1
    sizes = all_coalitions(players).sum(axis=1)
    by_size = shapley_from_table(table[sizes])
    np.testing.assert_allclose(by_size, np.broadcast_to(by_size[0], by_size.shape), **CLOSE)


@given(TABLES, WORTH)
def test_a_dummy_gets_what_it_is_worth_alone_and_changes_nothing_for_others(table, alone):
    with_dummy = np.concatenate([table, table + alone])
    values = shapley_from_table(with_dummy)
    np.testing.assert_allclose(values[-1], alone, **CLOSE)
    np.testing.assert_allclose(values[:-1], shapley_from_table(table), **CLOSE)


@given(PAIRS, st.floats(-10, 10), st.floats(-10, 10))
def test_linearity(tables, a, b):
    left, right = tables
    together = shapley_from_table(a * left + b * right)
    np.testing.assert_allclose(
        together, a * shapley_from_table(left) + b * shapley_from_table(right), **CLOSE
    )


@given(TABLES)
def test_images_do_not_mix(table):
    np.testing.assert_allclose(shapley_from_table(table)[:, :1], shapley_from_table(table[:, :1]), **CLOSE)


SAMPLES = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=WORTH)


@given(SAMPLES, st.sampled_from(Aggregate))
def test_aggregates_are_finite_and_ordered(samples, kind):
    values, errors = aggregate(samples, kind)
    assert np.isfinite(values).all()
    assert np.isfinite(errors).all()
    assert (errors >= 0).all()
    mean, rms = aggregate(samples, Aggregate.MEAN)[0], aggregate(samples, Aggregate.RMS)[0]
    assert (rms >= np.abs(mean) - 1e-6).all()
    assert (aggregate(samples, Aggregate.MEAN_PLUS_2STD)[0] >= mean - 1e-6).all()


@given(SAMPLES, st.sampled_from(Aggregate), st.floats(0.01, 100))
def test_aggregates_scale_with_the_game(samples, kind, factor):
    values, errors = aggregate(samples, kind)
    scaled, scaled_errors = aggregate(factor * samples, kind)
    scale = max(1.0, float(np.abs(samples).max())) * factor
    np.testing.assert_allclose(scaled, factor * values, rtol=1e-6, atol=1e-5 * scale)
    # Errors of a spread near zero are quotients of rounding; they are only compared where there is one.
    spread = samples.std(axis=1) > 1e-3 * np.abs(samples).max(axis=1)
    np.testing.assert_allclose(scaled_errors[spread], factor * errors[spread], rtol=1e-4, atol=1e-5 * scale)
