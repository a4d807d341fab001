"""The sequential test: exact properties of its e-values, and its error rates on simulated rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.gate.outcomes import Decision
from edgeprune.gate.sequential import FALSE_FAILURE, MISSED, SequentialRatio, evidence, hits_to_reject

LIMIT = 1.05


@given(st.integers(0, 60))
def test_the_evidence_of_a_fair_coin_is_one_on_average(rounds: int) -> None:
    mean = sum(math.comb(rounds, k) * evidence(k, rounds) for k in range(rounds + 1)) / 2**rounds
    assert mean == pytest.approx(1.0)


@given(st.integers(0, 60), st.data())
def test_the_evidence_is_a_martingale_of_a_fair_coin(rounds: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, rounds))
    after = (evidence(hits + 1, rounds + 1) + evidence(hits, rounds + 1)) / 2
    assert after == pytest.approx(evidence(hits, rounds))


@given(st.integers(0, 80), st.sampled_from([FALSE_FAILURE, MISSED]))
def test_the_fewest_hits_are_those_of_the_evidence(rounds: int, alpha: float) -> None:
    enough = [hits for hits in range(rounds + 1) if evidence(hits, rounds) >= 1 / alpha]
    assert hits_to_reject(rounds, alpha) == min(enough, default=None)


def test_seven_rounds_pass_and_nine_fail_at_the_least() -> None:
    passing, failing = SequentialRatio(limit=LIMIT), SequentialRatio(limit=LIMIT)
    assert [passing.add(0.9) for _ in range(7)] == [Decision.INCONCLUSIVE] * 6 + [Decision.PASSED]
    assert [failing.add(1.2) for _ in range(9)] == [Decision.INCONCLUSIVE] * 8 + [Decision.FAILED]


def test_rounds_at_the_limit_decide_nothing() -> None:
    state = SequentialRatio(limit=LIMIT)
    assert {state.add(LIMIT) for _ in range(100)} == {Decision.INCONCLUSIVE}


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="a ratio of"):
        SequentialRatio(limit=LIMIT).add(ratio)
    with pytest.raises(ValueError, match="hits of"):
        evidence(3, 2)


def outcomes(true: float, *, count: int, most: int, seed: int, drift: float = 0.0) -> list[Decision]:
    """Comparisons of rounds with heavy tails, of which one in ten is in a session of twice or half the time.

    ``drift``: share of the noise that a round takes over from the one before.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        state, noise = SequentialRatio(limit=LIMIT), 0.0
        for _ in range(most):
            noise = drift * noise + 0.04 * float(rng.standard_t(2))
            session = float(rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05])) * math.log(2)
            if state.add(true * math.exp(noise + session)) is not Decision.INCONCLUSIVE:
                break
        found.append(state.decision)
    return found


def test_the_same_model_passes_and_a_slower_one_fails() -> None:
    same, slower = (outcomes(true, count=80, most=150, seed=1) for true in (1.0, 1.10))
    assert same.count(Decision.FAILED) == slower.count(Decision.PASSED) == 0
    assert same.count(Decision.PASSED) >= 76
    assert slower.count(Decision.FAILED) >= 76


def test_at_the_limit_itself_errors_stay_within_what_is_stated() -> None:
    found = outcomes(LIMIT, count=200, most=60, seed=2)
    assert found.count(Decision.FAILED) <= 6  # 2 expected at most
    assert found.count(Decision.PASSED) <= 19  # 10 expected at most


def test_the_ends_hold_the_true_ratio_at_every_round() -> None:
    rng, outside = np.random.default_rng(3), 0
    for _ in range(100):
        state, left = SequentialRatio(limit=LIMIT), False
        for ratio in np.exp(0.05 * rng.standard_normal(60)):
            state.add(float(ratio))
            left = left or not state.low <= 1.0 <= state.high
        outside += left
    assert outside <= 13  # at most 6 of 100 are expected


def test_noise_that_lingers_costs_decisions_but_not_many_errors() -> None:
    found = outcomes(1.0, count=60, most=100, seed=4, drift=0.3)
    assert found.count(Decision.FAILED) <= 2
