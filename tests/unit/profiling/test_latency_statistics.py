"""The interval of the paired comparison, on synthetic ratios."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgeprune.errors import UsageError
from edgeprune.profiling.timing import bootstrap_median, student_quantile


def ratios(seed: int, size: int = 200, middle: float = 0.8) -> np.ndarray:
    return middle * np.exp(0.1 * np.random.default_rng(seed).standard_normal(size))


def test_median_lies_in_its_interval_and_equals_numpys() -> None:
    samples = ratios(0)
    median, low, high = bootstrap_median(samples)
    assert median == np.median(samples)
    assert low <= median <= high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        _, low, high = bootstrap_median(ratios(seed, size=100), seed=seed)
        hits += low <= 0.8 <= high
    assert 86 <= hits <= 100


def test_more_samples_narrow_it_and_more_confidence_widens_it() -> None:
    def width(samples: np.ndarray, confidence: float = 0.95) -> float:
        _, low, high = bootstrap_median(samples, confidence=confidence)
        return high - low

    assert width(ratios(1, size=5000)) < width(ratios(1, size=100))
    assert width(ratios(1), confidence=0.99) > width(ratios(1), confidence=0.5)


def test_same_seed_same_interval() -> None:
    samples = ratios(2)
    assert bootstrap_median(samples, seed=3) == bootstrap_median(samples, seed=3)
    assert bootstrap_median(samples, seed=3) != bootstrap_median(samples, seed=4)


def test_an_outlier_does_not_move_it() -> None:
    samples = ratios(5)
    spoiled = samples.copy()
    spoiled[0] = 1e6
    assert bootstrap_median(spoiled)[2] < 1.0


def test_rounds_that_differ_widen_it_however_many_samples_each_has() -> None:
    rounds = np.stack([ratios(6, middle=middle) for middle in (0.8, 0.8, 0.8, 1.6, 1.6)])
    median, low, high = bootstrap_median(rounds)
    assert low < median < 1.0
    assert high > 1.5
    assert bootstrap_median(np.tile(ratios(7), (5, 1)))[2] < 0.83


def test_equal_samples_give_a_point() -> None:
    assert bootstrap_median(np.full(100, 0.7)) == (0.7, 0.7, 0.7)


@pytest.mark.parametrize(
    "samples", [np.array([]), np.array([1.0, np.nan]), np.array([np.inf]), np.array([0.0, 1.0])]
)
def test_bad_samples_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(UsageError, match="only positive, finite ones"):
        bootstrap_median(samples)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_bad_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError, match="give a share between 0 and 1"):
        bootstrap_median(np.ones(3), confidence=confidence)


def test_few_rounds_that_scatter_still_cover_the_truth() -> None:
    """Sessions that differ by 3% each, as small networks on several threads do."""
    hits = 0
    for seed in range(200):
        sessions = np.random.default_rng(1000 + seed).normal(scale=0.03, size=(5, 1))
        within = np.random.default_rng(seed).normal(scale=0.02, size=(5, 20))
        _, low, high = bootstrap_median(0.8 * np.exp(sessions + within), seed=seed)
        hits += low <= 0.8 <= high
    assert 186 <= hits <= 199


@pytest.mark.parametrize("freedom", [1, 2, 4, 30])
@pytest.mark.parametrize("probability", [0.75, 0.95, 0.975, 0.995])
def test_quantiles_of_students_t_are_scipys(freedom: int, probability: float) -> None:
    expected = stats.t.ppf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-6)
