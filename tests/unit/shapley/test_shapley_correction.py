"""Derivatives of a bent game are biased; exact gains at common coalitions take that away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.artifacts.pruning import Aggregate
from edgeprune.errors import UsageError
from edgeprune.shapley.estimators.correction import PASS_WITH_GRADIENT, corrected
from edgeprune.shapley.estimators.exact import exact
from edgeprune.shapley.estimators.multilinear import DerivativeWeights, draw_memberships, multilinear
from edgeprune.shapley.estimators.semivalue import SHAPLEY, BetaLaw, semivalue


class Bent:
    """One hidden layer of ReLUs for every image, the inputs of which are the players."""

    shared_coalition = False

    def __init__(self, players: int = 7, images: int = 12, bend: float = 1.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._into = rng.standard_normal((images, players, 6))
        self._bias, self._out = rng.standard_normal((2, images, 6))
        self._bend = bend
        self.num_players, self.num_images = players, images

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        hidden = np.einsum("mn,knh->mkh", coalitions.astype(float), self._into) + self._bias
        return (self._after(hidden) * self._out).sum(axis=2)

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        hidden = np.einsum("bn,bnh->bh", memberships, self._into[images]) + self._bias[images]
        slope = 1.0 - self._bend * (hidden < 0)
        return np.einsum("bh,bnh->bn", slope * self._out[images], self._into[images])

    def _after(self, hidden: np.ndarray) -> np.ndarray:
        return np.where(hidden < 0, (1.0 - self._bend) * hidden, hidden)


EVERYONE = np.arange(7)


def start_of(game, seed, passes=60, q_low=0.0, aggregate=Aggregate.MEAN, weights=DerivativeWeights.EQUAL):
    rng, fixed = np.random.default_rng(seed), aggregate is Aggregate.MEAN
    return multilinear(
        game, passes=passes, q_low=q_low, aggregate=aggregate, batch=12, rng=rng, fixed_images=fixed,
        weights=weights,
    )  # fmt: skip


def run(game, seed, coalitions, **options):
    options = {"players": EVERYONE, "q_low": 0.0, **options}
    rng = np.random.default_rng(1000 + seed)
    return corrected(game, start_of(game, seed), coalitions=coalitions, rng=rng, **options)


class Saturating:
    """The logarithm of what is there, for every image: bends the more the less there is."""

    shared_coalition = False

    def __init__(self, seed: int, players: int = 7, images: int = 12) -> None:
        self._worth = np.random.default_rng(seed).gamma(2.0, 0.2, size=(images, players))
        self.num_players, self.num_images = players, images

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        return np.log1p(coalitions.astype(float) @ self._worth.T)

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        worth = self._worth[images]
        return worth / (1.0 + (memberships * worth).sum(axis=1, keepdims=True))

    def gains(self, q_low: float, q_high: float) -> np.ndarray:
        """Expected gains (n,), the inclusion probability integrated by a fine grid."""
        sets = (np.arange(128)[:, None] >> EVERYONE) & 1 == 1
        value = self.values(sets).mean(axis=1)
        q = q_low + (q_high - q_low) * (np.arange(400)[:, None] + 0.5) / 400
        found = []
        for player in EVERYONE:
            without = np.flatnonzero(~sets[:, player])
            size = sets[without].sum(axis=1)
            chance = (q**size * (1 - q) ** (6 - size)).mean(axis=0)
            found.append(chance @ (value[without + 2**player] - value[without]))
        return np.array(found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("q_low", "q_high", "most"), [(0.0, 1.0, 0.8), (0.8, 1.0, 0.75)])
def test_both_ends_of_a_step_alike_leave_less_bias_than_whichever_is_drawn(q_low, q_high, most, seed):
    game = Saturating(seed)
    truth = game.gains(q_low, q_high)
    alike, drawn = (
        np.linalg.norm(
            multilinear(
                game, passes=800, q_low=q_low, q_high=q_high, aggregate=Aggregate.MEAN, batch=12, weights=w,
                rng=np.random.default_rng(1),
            ).values - truth
        )
        for w in (DerivativeWeights.TRAPEZOIDAL, DerivativeWeights.EQUAL)
    )  # fmt: skip
    assert alike < most * drawn


class Squared(Saturating):
    """Minus the square of how far what is there is from enough, image by image."""

    def values(self, coalitions: np.ndarray) -> np.ndarray:
        return -np.square(3.0 - coalitions.astype(float) @ self._worth.T)

    def marginals(self, memberships: np.ndarray, images: np.ndarray) -> np.ndarray:
        worth = self._worth[images]
        return 2.0 * worth * (3.0 - (memberships * worth).sum(axis=1, keepdims=True))


def test_squares_are_told_without_bias_where_no_factor_is_limited():
    """The trapezoidal rule is exact for them; what is drawn more often at one end is not."""
    game = Squared(0)
    truth = game.gains(0.35, 0.45)
    for weights, is_right in ((DerivativeWeights.TRAPEZOIDAL, True), (DerivativeWeights.EQUAL, False)):
        found = multilinear(
            game, passes=800, q_low=0.35, q_high=0.45, aggregate=Aggregate.MEAN, batch=12, weights=weights,
            fixed_images=True, rng=np.random.default_rng(1),
        )  # fmt: skip
        off = np.abs(found.values - truth) / found.standard_errors
        assert bool(off.max() < 4.0) is is_right


def test_means_by_the_shapley_law_add_up_where_the_ends_are_measured():
    game = Bent()
    options = {"passes": 4, "aggregate": Aggregate.MEAN, "batch": 12, "measure_ends": True}
    found = multilinear(game, q_low=0.0, rng=np.random.default_rng(0), **options)
    assert found.values.sum() == pytest.approx(found.grand_value - found.empty_value, abs=1e-12)
    assert found.evaluations == 4 + 2
    part = multilinear(game, q_low=0.5, rng=np.random.default_rng(0), **options)
    bare = multilinear(game, q_low=0.5, rng=np.random.default_rng(0), **{**options, "measure_ends": False})
    np.testing.assert_array_equal(part.values, bare.values)


@pytest.mark.parametrize(("q_low", "q_high"), [(0.0, 1.0), (0.8, 1.0), (0.2, 0.6), (1.0, 1.0), (0.0, 0.0)])
def test_weights_are_one_on_average_and_antithetic_coalitions_follow_the_same_law(q_low, q_high):
    shape = (4000, 6, q_low, q_high)
    one = draw_memberships(*shape, np.random.default_rng(0))
    other = draw_memberships(*shape, np.random.default_rng(0), antithetic=True)
    for drawn in (one, other):
        np.testing.assert_allclose(drawn.weights.mean(axis=0), 1.0, atol=0.05)
        np.testing.assert_allclose(drawn.memberships.mean(axis=0), (q_low + q_high) / 2, atol=0.04)
    if (q_low, q_high) == (0.0, 1.0):
        np.testing.assert_array_equal(one.memberships + other.memberships, 1.0)


@pytest.mark.parametrize(
    "coalitions", [3, *(pytest.param(count, marks=pytest.mark.wide) for count in (12, 32))]
)
def test_the_bias_of_the_derivatives_is_gone_and_the_error_stated(coalitions):
    game = Bent()
    truth = exact(game).mean(axis=1)
    before = np.array([start_of(game, seed).values for seed in range(60)])
    found = [run(game, seed, coalitions) for seed in range(150)]
    values = np.array([f.values for f in found])
    stated = np.sqrt(np.mean([np.square(f.standard_errors) for f in found]))
    biased = np.abs(before.mean(axis=0) - truth) / (before.std(axis=0) / np.sqrt(60))
    assert biased.max() > 10.0
    assert (np.abs(values.mean(axis=0) - truth) < 4.0 * values.std(axis=0) / np.sqrt(150)).all()
    assert 0.8 < stated / np.sqrt(np.square(values - truth).mean()) < 1.25


def test_the_variance_is_not_above_that_of_exact_gains_alone():
    game = Bent()
    ours = np.array([run(game, seed, 24).values for seed in range(60)])
    plain = np.array(
        [
            semivalue(game, law=SHAPLEY, max_evaluations=2 + 24 * 8, rng=np.random.default_rng(s)).values
            for s in range(60)
        ]
    )
    assert ours.var(axis=0).sum() < 1.1 * plain.var(axis=0).sum()


def test_where_the_game_hardly_bends_derivatives_save_a_third_of_the_variance_of_few_coalitions():
    game = Bent(bend=0.1)
    truth = exact(game).mean(axis=1)
    ours = np.array([run(game, seed, 8).values for seed in range(60)])
    plain = np.array(
        [
            semivalue(game, law=SHAPLEY, max_evaluations=2 + 8 * 8, rng=np.random.default_rng(s)).values
            for s in range(60)
        ]
    )
    assert np.square(ours - truth).sum() < 0.8 * np.square(plain - truth).sum()


def test_a_game_that_does_not_bend_needs_no_correction():
    game = Bent(bend=0.0)
    np.testing.assert_allclose(run(game, 0, 6).values, exact(game).mean(axis=1), atol=1e-10)


def test_other_players_stay_and_groups_share_a_coefficient():
    game = Bent()
    start = start_of(game, 0)
    some = np.array([5, 2])
    found = run(game, 0, 8, players=some, groups=(np.array([2, 3]), np.array([5])))
    others = np.setdiff1d(EVERYONE, some)
    np.testing.assert_array_equal(found.values[others], start.values[others])
    np.testing.assert_array_equal(found.standard_errors[others], start.standard_errors[others])
    assert (found.values[some] != start.values[some]).all()
    together = run(game, 0, 8, players=some)
    assert not np.array_equal(found.values[some], together.values[some])


def test_the_law_of_coalitions_is_followed():
    game = Bent()
    # Uniform inclusion probabilities in [0.5, 1], integrated by a fine grid.
    grid = (np.arange(400) + 0.5) / 800 + 0.5
    table = game.values((np.arange(128)[:, None] >> EVERYONE) & 1 == 1).mean(axis=1)
    expected = np.zeros(7)
    for player in range(7):
        for code in range(128):
            if not code >> player & 1:
                others = code.bit_count()
                weight = (grid**others * (1 - grid) ** (6 - others)).mean()
                expected[player] += weight * (table[code | 1 << player] - table[code])
    values = np.array(
        [
            corrected(
                game, start_of(game, s, q_low=0.5), players=EVERYONE, coalitions=30, q_low=0.5,
                rng=np.random.default_rng(s),
            ).values
            for s in range(60)
        ]
    )  # fmt: skip
    assert (np.abs(values.mean(axis=0) - expected) < 4.5 * values.std(axis=0) / np.sqrt(60)).all()


def test_evaluations_are_counted_as_forward_passes():
    seen: list[int] = []
    found = run(Bent(), 0, 5, players=np.array([1, 4]), advance=seen.append)
    # A coalition may be a neighbour of another and is not asked again.
    assert 5 * PASS_WITH_GRADIENT < found.evaluations <= 5 * (3 + PASS_WITH_GRADIENT)
    assert seen == [1] * 5
    assert "then 2 players corrected by exact gains at 5 coalitions" in found.choice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"players": np.array([0, 0])}, "give different players from 0 to 6"),
        ({"players": np.array([7])}, "give different players from 0 to 6"),
        ({"players": np.array([], dtype=int)}, "give different players"),
        ({"coalitions": 1}, "coalitions=1 is too few"),
        ({"groups": (np.array([0, 1]),)}, "groups must hold every one"),
        ({"q_low": 0.7, "q_high": 0.6}, "from 0.7 to 0.6 are not accepted"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    game = Bent()
    options = {"players": EVERYONE, "coalitions": 4, "q_low": 0.0, **change}
    with pytest.raises(UsageError, match=message):
        corrected(game, start_of(game, 0, passes=1), rng=np.random.default_rng(0), **options)


def test_only_means_by_gradients_can_be_corrected():
    game = Bent()
    other = semivalue(game, law=BetaLaw(a=1, b=2), max_evaluations=50, rng=np.random.default_rng(0))
    squared = start_of(game, 0, aggregate=Aggregate.RMS)
    short = start_of(Bent(players=5), 0)
    weighted = start_of(game, 0, weights=DerivativeWeights.TRAPEZOIDAL)
    for start, message in (
        (other, "by semivalue"),
        (weighted, "equal weights"),
        (squared, "rms over images"),
        (short, "has 5 players"),
    ):
        with pytest.raises(UsageError, match=message):
            corrected(game, start, players=EVERYONE, coalitions=4, q_low=0.0, rng=np.random.default_rng(0))
    assert replace(squared, aggregate=Aggregate.MEAN).aggregate is Aggregate.MEAN
