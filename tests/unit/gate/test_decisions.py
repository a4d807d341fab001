"""Decisions from intervals, and intervals of differences."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.gate.decisions import decide, difference, judged, quotient
from edgeprune.gate.outcomes import (
    LIMIT_KINDS,
    Check,
    Decision,
    GateLimits,
    GateResult,
    Interval,
    OnInconclusive,
)

NUMBERS = st.floats(0.01, 100)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    return Interval.of(value, low, high)


@given(intervals(), NUMBERS)
def test_a_limit_inside_the_interval_decides_nothing(found: Interval, limit: float) -> None:
    decision = decide(found, limit, at_most=True)
    expected = Decision.INCONCLUSIVE
    if found.high <= limit:
        expected = Decision.PASSED
    elif found.low > limit:
        expected = Decision.FAILED
    assert decision is expected


@given(intervals(), NUMBERS)
def test_a_lower_limit_is_the_mirror_of_an_upper_one(found: Interval, limit: float) -> None:
    mirrored = Interval.of(-found.value, -found.high, -found.low)
    assert decide(found, limit, at_most=False) is decide(mirrored, -limit, at_most=True)


@given(NUMBERS, NUMBERS)
def test_an_exact_value_is_always_decided(value: float, limit: float) -> None:
    assert decide(Interval.exact(value), limit, at_most=True) is not Decision.INCONCLUSIVE


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_open(value: float) -> None:
    assert decide(Interval.exact(value), 1.0, at_most=True) is Decision.INCONCLUSIVE


@given(intervals(), intervals())
def test_a_difference_is_no_narrower_than_either_and_turns_around(a: Interval, b: Interval) -> None:
    one, other = difference(a, b), difference(b, a)
    assert one.high - one.low >= max(a.high - a.low, b.high - b.low) - 1e-9
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@given(intervals(), intervals())
def test_a_quotient_times_its_inverse_is_one(a: Interval, b: Interval) -> None:
    one, other = quotient(a, b), quotient(b, a)
    assert one.value * other.value == pytest.approx(1.0)
    assert one.low * other.high == pytest.approx(1.0)


def test_a_quotient_needs_positive_ends() -> None:
    with pytest.raises(ValueError, match="positive"):
        quotient(Interval.exact(1.0), Interval.of(1.0, 0.0, 2.0))


def test_every_limit_has_a_kind() -> None:
    assert set(LIMIT_KINDS) == {field.name for field in dataclasses.fields(GateLimits)}
    with pytest.raises(KeyError):
        judged("max_nothing", Interval.exact(1.0), 1.0, "")


def result(*decisions: Decision, asked: OnInconclusive = OnInconclusive.REPORT) -> GateResult:
    limits = {
        Decision.PASSED: 2.0,
        Decision.FAILED: 0.5,
        Decision.INCONCLUSIVE: 1.0,
    }
    checks: list[Check] = []
    for decision in decisions:
        found = Interval.of(1.0, 0.9, 1.1)
        checks.append(judged("max_latency_ratio", found, limits[decision], "made up"))
    return GateResult(subject="a", baseline=None, checks=tuple(checks), on_inconclusive=asked)


PASSED, FAILED, OPEN = Decision.PASSED, Decision.FAILED, Decision.INCONCLUSIVE


@pytest.mark.parametrize(
    ("decisions", "asked", "status"),
    [
        ((PASSED, PASSED), OnInconclusive.REPORT, 0),
        ((PASSED, OPEN), OnInconclusive.REPORT, 3),
        ((PASSED, OPEN), OnInconclusive.PASS, 0),
        ((PASSED, OPEN), OnInconclusive.FAIL, 1),
        ((PASSED, OPEN, FAILED), OnInconclusive.PASS, 1),
        ((FAILED, OPEN), OnInconclusive.REPORT, 1),
    ],
)
def test_the_status_is_that_of_the_worst_check(
    decisions: tuple[Decision, ...], asked: OnInconclusive, status: int
) -> None:
    assert result(*decisions, asked=asked).exit_status == status
