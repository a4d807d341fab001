"""Patches gathered at a few positions are those that unfolding everything gives."""

from __future__ import annotations

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from edgeprune.recovery.structure import Geometry, rows_of

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    groups=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_rows_are_unfolded_patches(kernel, stride, dilation, padding, size, groups, seed):
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2 * groups, *size, generator=rng)
    unfolded = functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2)
    everything = unfolded.reshape(-1, groups, unfolded.shape[2] // groups)
    picked = torch.randperm(len(everything), generator=rng)[:5]
    shape = Geometry(
        groups=groups, kernel=kernel, stride=stride, padding=padding, dilation=dilation, is_linear=False
    )
    assert torch.equal(rows_of(x, shape, picked), everything[picked])
