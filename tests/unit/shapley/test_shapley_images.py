"""Aggregates over images of each image's own value: the noise of sampling is no scatter of images."""

from __future__ import annotations

import numpy as np
import pytest
from shapley_games import drawn

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.aggregate import aggregate
from edgeprune.shapley.estimators.exact import exact, exact_estimate
from edgeprune.shapley.estimators.hybrid import hybrid
from edgeprune.shapley.estimators.least_squares import least_squares
from edgeprune.shapley.estimators.permutation import Orders, permutation
from edgeprune.shapley.estimators.semivalue import SHAPLEY, KeptSizeLaw, semivalue
from edgeprune.shapley.image_units import ImageUnits

PESSIMISTIC = [Aggregate.RMS, Aggregate.MEAN_PLUS_2STD]


def game():
    """Six players; what an image makes of them differs as much as what coalitions do."""
    own = drawn(6, seed=4, images=40)
    slopes = np.random.default_rng(1).standard_normal((6, 40)) + 0.5
    members = (np.arange(64)[:, None] >> np.arange(6)) & 1
    own.table = 0.7 * own.table + members @ slopes
    return own


def by_orders(limit, kind, orders=Orders.ANTITHETIC):
    def run(seed):
        rng = np.random.default_rng(seed)
        return permutation(game(), max_evaluations=limit, rng=rng, orders=orders, aggregate=kind)

    return run


def by_coalitions(limit, kind):
    def run(seed):
        rng = np.random.default_rng(seed)
        return semivalue(game(), law=SHAPLEY, max_evaluations=limit, rng=rng, aggregate=kind)

    return run


def check(run, kind, seeds=60):
    truth = aggregate(exact(game()), kind)[0]
    found = [run(seed) for seed in range(seeds)]
    values = np.array([f.values for f in found])
    stated = np.sqrt(np.mean([np.square(f.standard_errors) for f in found]))
    scatter = np.sqrt(np.square(values - values.mean(axis=0)).mean())
    off = np.sqrt(np.square(values.mean(axis=0) - truth).mean())
    assert off < 0.4 * scatter
    assert 0.7 < stated / scatter < 1.4
    assert {f.aggregate for f in found} == {kind}


@pytest.mark.parametrize("kind", PESSIMISTIC)
@pytest.mark.parametrize("limit", [2 + 12 * 5, 2 + 100 * 5])
def test_orders_give_the_aggregate_of_exact_values_and_its_error(kind, limit):
    check(by_orders(limit, kind), kind)


@pytest.mark.parametrize("kind", PESSIMISTIC)
def test_coalitions_do_too(kind):
    check(by_coalitions(2 + 20 * 7, kind), kind)


def test_taking_noise_for_scatter_of_images_would_be_far_off():
    """What the estimator avoids: the root mean square of noisy values is too large."""
    truth = aggregate(exact(game()), Aggregate.RMS)[0]
    naive = []
    for seed in range(20):
        single = [
            permutation(drawn_image(image), max_evaluations=2 + 4 * 5, rng=np.random.default_rng(seed)).values
            for image in range(40)
        ]
        naive.append(aggregate(np.array(single).T, Aggregate.RMS)[0])
    ours = np.mean([by_orders(2 + 4 * 5, Aggregate.RMS)(seed).values for seed in range(60)], axis=0)
    assert (np.mean(naive, axis=0) - truth).mean() > 4 * abs((ours - truth).mean())


def drawn_image(image):
    own = game()
    table = own.table[:, image]
    return type(own)(table)


@pytest.mark.parametrize("kind", Aggregate)
def test_all_coalitions_give_it_without_error(kind):
    found = exact_estimate(game(), max_evaluations=64, aggregate=kind)
    np.testing.assert_allclose(found.values, aggregate(exact(game()), kind)[0], atol=1e-12)
    np.testing.assert_array_equal(found.standard_errors, 0.0)
    assert found.aggregate is kind


@pytest.mark.parametrize("kind", PESSIMISTIC)
def test_units_without_noise_give_the_aggregate_of_their_values_and_no_error(kind):
    values = np.random.default_rng(0).standard_normal((3, 25))
    for count in (2, 3, 50):
        collected = ImageUnits(kind, count)
        for _ in range(count):
            collected.add(values)
        found, errors = collected.result()
        np.testing.assert_allclose(found, aggregate(values, kind)[0], rtol=1e-10)
        if count > 2:
            np.testing.assert_allclose(errors, 0.0, atol=1e-7)
        else:
            assert np.isinf(errors).all()


def test_one_unit_gives_a_value_without_an_error():
    found = by_orders(2 + 2 * 5, Aggregate.RMS)(0)
    assert np.isfinite(found.values).all()
    assert np.isinf(found.standard_errors).all()


def test_an_aggregate_asks_no_more_coalitions_than_the_mean():
    counts = {kind: by_orders(60, kind)(3).evaluations for kind in Aggregate}
    assert len(set(counts.values())) == 1


def test_one_player_has_its_aggregate():
    own = drawn(1, images=9)
    gain = own.table[1] - own.table[0]
    found = permutation(own, max_evaluations=2, rng=np.random.default_rng(0), aggregate=Aggregate.RMS)
    np.testing.assert_allclose(found.values, np.sqrt(np.square(gain).mean()))


def test_ending_orders_early_is_about_means():
    with pytest.raises(UsageError, match=r"tolerance=0\.1 ends orders by the mean: leave it out for rms"):
        permutation(
            game(), max_evaluations=60, rng=np.random.default_rng(0), tolerance=0.1, aggregate=Aggregate.RMS
        )


def test_hybrid_keeps_to_what_can_give_the_aggregate():
    rng = np.random.default_rng(0)
    for limit, law, choice in (
        (64, SHAPLEY, "all 64 coalitions"),
        (60, SHAPLEY, "orders, antithetic"),
        (60, KeptSizeLaw(kept=3), "by the law 3 kept"),
    ):
        found = hybrid(game(), max_evaluations=limit, rng=rng, law=law, aggregate=Aggregate.RMS)
        assert choice in found.choice
        assert found.aggregate is Aggregate.RMS
    with pytest.raises(UsageError, match="needs at least 12"):
        hybrid(game(), max_evaluations=11, rng=rng, aggregate=Aggregate.RMS)
    assert least_squares(game(), max_evaluations=60, rng=rng).aggregate is Aggregate.MEAN
