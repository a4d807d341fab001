"""Whether a program computes the same for another batch, whatever values it gives: NaN and infinity, too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.loading.batches import agree

VALUES = st.lists(
    st.sampled_from([0.0, 1.0, -3.5, 1e30, 1e-30, *map(float, ("nan", "inf", "-inf"))]), max_size=6
)


@given(values=VALUES)
def test_the_same_values_agree(values: list[float]) -> None:
    assert agree(torch.tensor(values), torch.tensor(values))


@given(values=VALUES, change=st.sampled_from([float("nan"), float("inf"), 1e37, -1e37]))
def test_another_value_does_not_whatever_stands_beside(values: list[float], change: float) -> None:
    assert not agree(torch.tensor([*values, 1.0]), torch.tensor([*values, change]))


@pytest.mark.parametrize("beside", [float("nan"), float("inf")])
def test_what_stands_beside_brings_no_tolerance(beside: float) -> None:
    assert not agree(torch.tensor([beside, 1.0]), torch.tensor([beside, 2.0]))
