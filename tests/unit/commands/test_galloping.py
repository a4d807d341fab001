"""Where the search that nobody asked for cuts next: mild first, deep only where mild held, few candidates."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.commands.search.galloping import FIRST_CUT, LEAST_CUT, gallop

CANDIDATES = 5


def tried(spare: float, most: float, *, candidates: int = CANDIDATES, beyond: float = 2.0) -> list[float]:
    """Cuts that are built for a network which holds up to a cut of ``spare`` of its latency.

    A deeper one loses ``beyond`` times the limit.
    """
    cuts: list[float] = []

    def attempt(cut: float) -> float | None:
        cuts.append(cut)
        return 0.5 if cut <= spare else beyond

    gallop(most, attempt, lambda: len(cuts) < candidates)
    return cuts


def test_a_network_that_can_spare_nothing_is_asked_for_ever_less() -> None:
    assert tried(0.0, 0.9) == pytest.approx([0.15, 0.075, 0.0375, 0.01875, LEAST_CUT])


def test_a_loss_far_beyond_the_limit_takes_the_next_cut_far_down() -> None:
    losses = iter([4.8, 3.0, 0.0, 1.6])
    cuts: list[float] = []

    def attempt(cut: float) -> float | None:
        cuts.append(cut)
        return next(losses)

    gallop(0.9, attempt, lambda: len(cuts) < CANDIDATES)
    assert cuts == pytest.approx([0.15, 0.03125, LEAST_CUT, 0.020625])


def test_no_loss_however_large_takes_it_down_to_less_than_a_fifth() -> None:
    assert tried(0.0, 0.9, beyond=90.0) == pytest.approx([0.15, 0.03, LEAST_CUT])


@given(most=st.floats(0.021, 1.0), share=st.floats(0.0, 1.0), beyond=st.floats(1.0001, 100.0))
def test_what_can_spare_a_cut_is_cut_and_else_the_least_comes_last(
    most: float, share: float, beyond: float
) -> None:
    spare = share * most
    cuts = tried(spare, most, candidates=100, beyond=beyond)
    held = [c for c in cuts if c <= spare]
    assert len(set(cuts)) == len(cuts)
    if not held:
        assert cuts[-1] == LEAST_CUT
    assert spare < LEAST_CUT or held


def test_a_network_that_can_spare_a_third_is_cut_deeper_first_and_then_bisected() -> None:
    assert tried(0.33, 0.9) == pytest.approx([0.15, 0.3, 0.6, 0.45, 0.375])


def test_cuts_are_bisected_toward_the_narrowest_network() -> None:
    assert tried(1.0, 0.5) == pytest.approx([0.15, 0.3, 0.4, 0.45, 0.475])


def test_a_network_with_little_to_prune_is_asked_for_half_of_that() -> None:
    assert tried(1.0, 0.06)[0] == pytest.approx(0.03)
    assert tried(1.0, 0.015) == []
    assert tried(1.0, 0.0) == []


def test_what_cannot_be_planned_counts_as_too_deep() -> None:
    cuts: list[float] = []

    def attempt(cut: float) -> float | None:
        cuts.append(cut)
        return None if cut > 0.2 else 0.0

    gallop(0.9, attempt, lambda: len(cuts) < CANDIDATES)
    assert cuts == pytest.approx([0.15, 0.3, 0.225, 0.1875, 0.20625])


def test_nothing_is_tried_where_nothing_may_be() -> None:
    assert tried(0.5, 0.9, candidates=0) == []


@given(spare=st.floats(0.0, 1.0), most=st.floats(0.0, 1.0), beyond=st.floats(1.0001, 100.0))
def test_cuts_are_few_apart_from_each_other_and_no_deeper_than_what_held_allows(
    spare: float, most: float, beyond: float
) -> None:
    cuts = tried(spare, most, candidates=100, beyond=beyond)
    assert all(0.0 < cut < most for cut in cuts)
    if cuts:
        assert cuts[0] <= FIRST_CUT
    held = 0.0
    for cut in cuts:
        assert cut <= max(FIRST_CUT, 2 * held + 1e-12)
        held = max(held, cut if cut <= spare else 0.0)
    searched = [c for c in cuts if c != LEAST_CUT]  # the least one comes last, where none of these held
    steps = [b - a for a, b in itertools.pairwise(sorted([0.0, *searched, most]))]
    assert all(step >= LEAST_CUT - 1e-12 for step in steps) or not cuts
    # Had it gone on until nothing was left to find out, it would have ended next to the deepest that holds.
    if cuts:
        assert min(spare, most) - held <= 2 * LEAST_CUT + 1e-12
    assert len(cuts) <= 14
