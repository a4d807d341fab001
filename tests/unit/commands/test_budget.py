"""Budgets: their units, where a search aims, and what is known of a candidate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_report import synthetic_budget

from edgeprune.artifacts.budget import Budget, Candidate
from edgeprune.artifacts.latency import LatencyRatio, Provenance
from edgeprune.commands.search.budget_aims import (
    Aims,
    binding_limit,
    budget_used,
    exceeded_limits,
    slower_again,
)
from edgeprune.errors import UsageError
from edgeprune.options.quantities import parse_latency, parse_points


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("40ms", (40.0, None)),
        (" 1.5 s ", (1500.0, None)),
        ("800us", (0.8, None)),
        ("800 µs", (0.8, None)),
        ("2S", (2000.0, None)),
        ("50%", (None, 0.5)),
        (".5 %", (None, 0.005)),
    ],
)
def test_latencies_have_units(text, found):
    assert parse_latency(text, option="--max-latency") == pytest.approx(found)


@pytest.mark.parametrize("text", ["40", "ms", "-4ms", "0ms", "4 minutes", "4,5ms", "1e3ms", "", "nan%"])
def test_latencies_without_a_unit_are_refused(text):
    with pytest.raises(UsageError, match=r"--max-latency .* was given; accepted is a time with its unit"):
        parse_latency(text, option="--max-latency")


@pytest.mark.parametrize(
    ("text", "found"), [("1", 1.0), ("0.5%", 0.5), ("2 points", 2.0), ("0", 0.0), ("1pp", 1.0)]
)
def test_points(text, found):
    assert parse_points(text, option="--max-drop") == found


@pytest.mark.parametrize("text", ["-1", "101", "half", "1 ms", ""])
def test_what_is_no_number_of_points_is_refused(text):
    with pytest.raises(UsageError, match=r"--max-drop .* was given; accepted are percentage points"):
        parse_points(text, option="--max-drop")


def aimed(used_at: Callable[[float], float], *, floor: float = 0.0, tries: int = 7) -> tuple[float, int]:
    """What the best candidate within the budget used, and after how many tries; 0 where there was none."""
    aims, best = Aims(), 0.0
    for number in range(1, tries + 1):
        aim = aims.next
        if aim < floor:
            if not aims.unreachable():
                return best, number
            continue
        used = used_at(aim)
        if used <= 1.0:
            best = max(best, used)
        if aims.found(used):
            return best, number
    return best, tries


@given(factor=st.floats(0.3, 3.0), fixed=st.floats(0.0, 0.5))
def test_the_search_corrects_models_that_are_wrong_by_a_factor_or_a_constant(factor, fixed):
    best, tries = aimed(lambda aim: fixed + factor * aim)
    assert 0.95 <= best <= 1.0
    assert tries <= 7


@given(step=st.floats(0.01, 0.2), factor=st.floats(0.5, 2.0))
def test_on_a_staircase_it_ends_on_the_highest_step_within_the_budget_or_next_to_it(step, factor):
    best, _ = aimed(lambda aim: step * math.ceil(factor * aim / step), tries=12)
    assert best <= 1.0
    assert best >= 1.0 - 2 * step - 0.03


def test_what_cannot_be_selected_is_passed_over():
    best, _ = aimed(lambda aim: 0.5 * aim, floor=1.3)
    assert 0.9 <= best <= 1.0
    assert (
        aimed(lambda aim: 2.0 * aim, floor=0.6) == (0.0, 7)
        or aimed(lambda aim: 2.0 * aim, floor=0.6)[0] == 0.0
    )


def candidate(*, latency: float, size: int, drop: float | None = None) -> Candidate:
    return Candidate(
        name="candidate 1",
        macs_share=0.5,
        latency_ms=20.0 * latency,
        latency_share=latency,
        latency_provenance=Provenance.PREDICTED,
        size_bytes=size,
        memory_bytes=None,
        drop_points=drop,
        exceeded=(),
    )


ORIGINAL = candidate(latency=1.0, size=1000, drop=0.0)


def test_the_limit_that_is_used_most_binds():
    budget = Budget(max_latency_ms=12.0, max_size_bytes=800, max_drop_points=1.0)
    found = candidate(latency=0.5, size=780, drop=0.4)
    assert budget_used(found, ORIGINAL, budget) == pytest.approx(780 / 800)
    assert binding_limit(found, ORIGINAL, budget) == "size"
    assert exceeded_limits(found, budget) == ()
    worse = candidate(latency=0.61, size=780, drop=1.5)
    assert binding_limit(worse, ORIGINAL, budget) == "latency"
    assert exceeded_limits(worse, budget) == ("latency", "drop")


def test_the_stricter_of_two_latency_limits_counts():
    budget = Budget(max_latency_ms=12.0, max_latency_share=0.5)
    assert budget_used(candidate(latency=0.5, size=1), ORIGINAL, budget) == pytest.approx(1.0)


def test_a_budget_of_the_drop_alone_is_bound_by_it():
    budget = Budget(max_drop_points=1.0)
    assert not budget.limits_costs
    assert not budget.is_empty
    assert Budget().is_empty
    assert binding_limit(ORIGINAL, ORIGINAL, budget) == "drop"


@pytest.mark.parametrize(
    ("ratio", "low", "said"),
    [
        (0.90, 0.85, "takes 90.0% [85.0%, 91.0%] of the original's CPU time, more than the 80.0% asked for"),
        (0.82, 0.79, None),
        (0.70, 0.69, None),
    ],
)
def test_a_delivered_model_that_is_surely_slower_than_asked_is_named(
    ratio: float, low: float, said: str | None
) -> None:
    again = LatencyRatio(ratio=ratio, low=low, high=ratio + 0.01, confidence=0.95, pairs=100, threads=1)
    found = slower_again(synthetic_budget(), again)
    assert (found is None) == (said is None)
    if said is not None:
        assert found is not None
        assert said in found
        assert "the search measured 73.0%" in found


def test_without_a_limit_on_latency_no_time_is_too_long() -> None:
    again = LatencyRatio(ratio=3.0, low=2.9, high=3.1, confidence=0.95, pairs=100, threads=1)
    assert slower_again(replace(synthetic_budget(), budget=Budget(max_size_bytes=9)), again) is None
