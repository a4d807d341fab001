"""How sure a small drop is: against the exact binomial, simulation, and the order that it must have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.artifacts.report import AnswerCounts
from edgeprune.commands.search.paired_drop import confidence_within, drawn_drop, paired_drop, points_of


def counts(images: int, lost: int, gained: int = 0, kept_from: int | None = None) -> AnswerCounts:
    right = images if kept_from is None else kept_from
    return AnswerCounts(images=images, kept_from=right, lost=lost, gained=gained)


@st.composite
def any_counts(draw: st.DrawFn) -> AnswerCounts:
    images = draw(st.integers(1, 3000))
    right = draw(st.integers(0, images))
    return counts(images, draw(st.integers(0, right)), draw(st.integers(0, images - right)), kept_from=right)


def test_125_images_without_a_loss_do_not_show_a_point() -> None:
    found = paired_drop(counts(125, 0), 1.0)
    assert found.confidence == pytest.approx(1 - 0.99**125)
    assert found.confidence == pytest.approx(0.715, abs=0.001)
    assert (found.low_points, found.high_points) == pytest.approx((0.0, 2.98), abs=0.01)
    assert found.images_to_decide is not None
    assert 1 - 0.99**found.images_to_decide >= 0.95
    assert found.images_to_decide < 400


def test_one_of_125_is_less_than_a_point_and_rather_not_sure() -> None:
    one = counts(125, 1)
    assert points_of(one) == 0.8
    exact = 1 - 0.99**125 - 125 * 0.01 * 0.99**124
    assert confidence_within(one, 1.0) == pytest.approx(exact)
    more = paired_drop(one, 1.0).images_to_decide
    assert more is not None
    assert more > 2000


def test_one_of_a_hundred_is_a_point_and_no_number_of_images_decides() -> None:
    found = paired_drop(counts(100, 1), 1.0)
    assert points_of(counts(100, 1)) == 1.0
    assert found.images_to_decide is None
    assert found.confidence is not None
    assert 0.2 < found.confidence < 0.5


def test_what_is_settled_needs_no_more_images() -> None:
    for settled, high in ((counts(2000, 4), True), (counts(200, 40), False)):
        found = paired_drop(settled, 1.0)
        assert found.images_to_decide is None
        assert found.confidence is not None
        assert (found.confidence > 0.95) is high
        assert found.confidence > 0.95 or found.confidence < 0.05


def test_answers_gained_count_against_those_lost() -> None:
    both = paired_drop(counts(1000, 12, gained=10, kept_from=900), 1.0)
    lost = paired_drop(counts(1000, 12, kept_from=900), 1.0)
    assert both.confidence is not None
    assert lost.confidence is not None
    assert lost.confidence < both.confidence < 0.99
    assert both.low_points < 0.2 < both.high_points
    assert points_of(counts(1000, 12, gained=10, kept_from=900)) == 0.2


def test_without_a_limit_there_is_nothing_to_be_sure_of() -> None:
    found = paired_drop(counts(100, 3), None)
    assert (found.confidence, found.images_to_decide) == (None, None)
    assert 0 < found.low_points < 3 < found.high_points


@pytest.mark.parametrize(("lost_share", "gained_share"), [(0.01, 0.0), (0.06, 0.05), (0.03, 0.02)])
def test_a_confidence_of_95_is_wrong_for_a_drop_at_the_limit_in_at_most_a_twentieth(
    lost_share: float, gained_share: float
) -> None:
    """The true drop is just one point in 400 images, of which the original has 70% right."""
    rng = np.random.default_rng(0)
    wrong = 0
    for lost, gained in zip(
        rng.binomial(280, lost_share / 0.7, 400), rng.binomial(120, gained_share / 0.3, 400), strict=True
    ):
        wrong += confidence_within(counts(400, int(lost), int(gained), kept_from=280), 1.0) >= 0.95
    assert wrong / 400 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


@settings(deadline=None, max_examples=60)
@given(found=any_counts(), limit=st.floats(0.0, 20.0))
def test_the_interval_holds_the_drop_and_confidence_is_one(found: AnswerCounts, limit: float) -> None:
    drop = paired_drop(found, limit)
    assert drop.low_points - 1e-9 <= points_of(found) <= drop.high_points + 1e-9
    assert drop.low_points >= -100 - 1e-9
    assert drop.high_points <= 100 + 1e-9
    assert drop.confidence is not None
    assert 0.0 <= drop.confidence <= 1.0 + 1e-12
    assert confidence_within(found, limit + 5.0) >= drop.confidence - 1e-9
    if found.lost < found.kept_from:
        worse = counts(found.images, found.lost + 1, found.gained, kept_from=found.kept_from)
        assert confidence_within(worse, limit) <= drop.confidence + 1e-9


def drawn(lost: np.ndarray, draws: int = 400, seed: int = 0) -> np.ndarray:
    """Mean points lost by images (n,), then in draws of them."""
    weights = np.random.default_rng(seed).multinomial(
        len(lost), np.full(len(lost), 1 / len(lost)), size=draws
    )
    return np.concatenate([[lost.mean()], weights @ lost / len(lost)])


def test_images_that_lose_nothing_are_as_sure_as_answers_that_are_all_kept() -> None:
    found = drawn_drop(drawn(np.zeros(125)), 125, 1.0)
    counted = paired_drop(counts(125, 0), 1.0)
    assert found is not None
    assert found.confidence == pytest.approx(counted.confidence)
    assert (found.low_points, found.high_points, found.lost, found.gained) == (0.0, 0.0, None, None)
    assert found.images_to_decide is not None
    assert 1 - 0.99**found.images_to_decide >= 0.95
    assert found.images_to_decide < 400


def test_a_drop_far_from_the_limit_is_settled() -> None:
    lost = np.random.default_rng(0).exponential(1.0, 500)
    for limit, sure in ((3.0, True), (0.3, False)):
        found = drawn_drop(drawn(lost), 500, limit)
        assert found is not None
        assert found.confidence is not None
        assert (found.confidence > 0.95) is sure
        assert found.images_to_decide is None
        assert found.low_points < float(lost.mean()) < found.high_points


def test_more_images_are_asked_for_the_nearer_the_limit_is() -> None:
    lost = np.random.default_rng(1).exponential(1.0, 60) * 5
    limits = [float(lost.mean()) + apart for apart in (0.9, 0.6, 0.3)]
    found = [drawn_drop(drawn(lost), 60, limit) for limit in limits]
    asked = [each.images_to_decide or 0 for each in found if each is not None]
    assert asked == sorted(asked)
    assert asked[-1] > 4 * asked[0] > 0


def test_draws_without_a_value_are_left_out() -> None:
    values = drawn(np.random.default_rng(2).exponential(1.0, 50))
    holes = values.copy()
    holes[1:200] = np.nan
    found = drawn_drop(holes, 50, 1.0)
    assert found is not None
    assert found.low_points == pytest.approx(float(np.quantile(values[200:], 0.025)))
    assert drawn_drop(np.array([np.nan, 1.0]), 50, 1.0) is None
    assert drawn_drop(np.array([1.0]), 50, 1.0) is None


def test_a_drawn_confidence_of_95_is_seldom_wrong_at_the_limit() -> None:
    """The true drop is the limit of one point; images lose nothing, or 5 points at once."""
    rng = np.random.default_rng(3)
    sure = 0
    for seed in range(300):
        found = drawn_drop(drawn(5.0 * (rng.random(200) < 0.2), seed=seed), 200, 1.0)
        assert found is not None
        assert found.confidence is not None
        sure += found.confidence >= 0.95
    assert sure / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


@settings(deadline=None, max_examples=60)
@given(
    lost=st.lists(st.floats(-100, 100), min_size=1, max_size=40).map(np.array),
    limit=st.one_of(st.none(), st.floats(0.0, 100.0)),
)
def test_any_draws_give_an_interval_that_holds_the_drop(lost: np.ndarray, limit: float | None) -> None:
    found = drawn_drop(drawn(lost, draws=50), len(lost), limit)
    assert found is not None
    assert found.low_points <= float(lost.mean()) <= found.high_points
    assert (found.confidence is None) is (limit is None)
    assert found.confidence is None or 0.0 <= found.confidence <= 1.0
    assert found.images_to_decide is None or found.images_to_decide > 0
