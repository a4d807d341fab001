"""The default criterion: limits, scores, and what it says of itself."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
from criteria_cases import context_of

from edgeprune.errors import UsageError
from edgeprune.importance.criteria.hybrid import Hybrid


@pytest.mark.parametrize("limit", [2, 3, 7, 40])
def test_a_limit_holds_for_values_and_costs_together(limit):
    context = context_of(nets.toy(nets.chain), max_evaluations=limit)
    units: list[int] = []
    found = Hybrid().score(context, rng=np.random.default_rng(0), advance=units.append)
    assert found.evaluations <= limit
    assert sum(units) == Hybrid().passes(context) == found.evaluations
    assert np.isfinite(found.values).all()
    assert (found.removal_costs >= 0).all()


def test_too_low_a_limit_says_how_many_are_needed():
    context = context_of(nets.toy(nets.chain), images=40, max_evaluations=2)
    with pytest.raises(UsageError, match=r"max_evaluations=2 is too few for 40 images.*need 3"):
        Hybrid().score(context, rng=np.random.default_rng(0), advance=lambda _units: None)


def test_the_same_seed_gives_the_same_scores_and_another_other_ones():
    context = context_of(nets.toy(nets.residual_add), max_evaluations=6)

    def run(seed: int) -> np.ndarray:
        scores = Hybrid().score(context, rng=np.random.default_rng(seed), advance=lambda _units: None)
        return np.concatenate([scores.values, scores.removal_costs])

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_it_says_what_it_did():
    context = context_of(nets.toy(nets.chain), max_evaluations=5)
    found = Hybrid().score(context, rng=np.random.default_rng(0), advance=lambda _units: None)
    assert "second moments" in found.choice
    assert "cross-entropy with the labels" in found.choice
    assert found.criterion == "hybrid"
