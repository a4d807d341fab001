"""Games, recovery and training count errors of outputs as reports do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.outputs.errors import OutputErrors
from edgeprune.outputs.units import relative_errors, units_of

SHAPES = ((9, 5), (9, 4, 7), (9, 6, 3), (9, 3, 4, 2), (9,))


def outputs(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(SHAPES), generator=generator)[:count]
    units = 10.0 ** torch.randint(-6, 6, (count,), generator=generator).float()
    return [torch.randn(SHAPES[c], generator=generator) * u for c, u in zip(chosen, units, strict=True)]


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 3), noise=st.floats(0.0, 3.0))
@settings(max_examples=60, deadline=None)
def test_squared_errors_are_those_of_reports(seed: int, count: int, noise: float) -> None:
    wanted = outputs(seed, count)
    given_outputs = [w + noise * w.std() * torch.randn_like(w) for w in wanted]
    found = OutputErrors(wanted).squared(given_outputs, wanted)
    as_arrays = [[o.numpy() for o in each] for each in (wanted, given_outputs)]
    expected = relative_errors(*as_arrays, [units_of(w) for w in as_arrays[0]])
    assert found.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@given(seed=st.integers(0, 2**31 - 1), count=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_the_expected_squared_gradient_of_the_projection_is_what_an_error_adds(seed: int, count: int) -> None:
    """With r of ones and signs, the expectation is exact: each squared gradient is a squared scale."""
    wanted = outputs(seed, count)
    errors = OutputErrors(wanted)
    leaves = [w.clone().requires_grad_(True) for w in wanted]
    errors.projection(leaves, torch.ones_like).backward()
    for place, leaf in enumerate(leaves):
        assert leaf.grad is not None
        moved = [w.clone() for w in wanted]
        step = float(wanted[place].std())
        moved[place].reshape(len(leaf), -1)[:, 0] += step
        added = errors.squared(moved, wanted).double() * count / step**2
        squares = leaf.grad.double().square().reshape(len(leaf), -1)[:, 0]
        assert added.numpy() == pytest.approx(squares.numpy(), rel=1e-3)


def test_outputs_without_a_gradient_are_left_out_of_the_projection() -> None:
    wanted = [torch.randn(4, 3), torch.randn(4, 2)]
    errors = OutputErrors(wanted)
    leaf = wanted[0].clone().requires_grad_(True)
    errors.projection([leaf, wanted[1]], torch.ones_like).backward()
    assert leaf.grad is not None
    assert np.isfinite(leaf.grad).all()
    assert not errors.projection(wanted, torch.ones_like).requires_grad
