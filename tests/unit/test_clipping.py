"""Least squares behind an activation that cuts off."""

from __future__ import annotations

import math

import networks as nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recovery import trial
from torch import Tensor, nn

from edgeprune.fx import op_name
from edgeprune.graph.capture import capture
from edgeprune.recovery.clipping import Clip, Rows, following_clip, refit
from edgeprune.recovery.least_squares import NormalEquations, predicted
from edgeprune.recovery.reconstruction import RecoveryOptions

RELU = Clip(low=0.0, high=math.inf)
RELU6 = Clip(low=0.0, high=6.0)


def numbers(count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(-20, 20, width=32), min_size=count, max_size=count)


@given(prediction=numbers(8), target=numbers(8), clip=st.sampled_from([RELU, RELU6]))
def test_reachable_targets_look_the_same_behind_the_activation_and_are_nearest(prediction, target, clip):
    p, t = torch.tensor(prediction), torch.tensor(target)
    found = clip.reachable(p, t)
    assert torch.equal(clip.cut(found), clip.cut(t))
    assert ((found - p).abs() <= (t - p).abs()).all()
    same = clip.cut(p) == clip.cut(t)
    cut_off = (t <= clip.low) | (t >= clip.high)
    assert torch.equal(found[same & cut_off], p[same & cut_off])


def whole(x: Tensor, t: Tensor, shortcut: Tensor | None = None) -> tuple[NormalEquations, list[Rows]]:
    """Normal equations of all rows and the rows in two parts."""
    equations = NormalEquations(x.shape[1], x.shape[2], t.shape[2])
    half = len(x) // 2
    parts = []
    for part in (slice(None, half), slice(half, None)):
        parts.append(
            Rows(inputs=x[part], target=t[part], shortcut=None if shortcut is None else shortcut[part])
        )
        equations.add(parts[-1].inputs, parts[-1].own(parts[-1].target))
    return equations, parts


def rounds_of(x: Tensor, t: Tensor, clip: Clip, *, rounds: int, shortcut: Tensor | None = None):
    equations, parts = whole(x, t, shortcut)
    start = torch.zeros(x.shape[1], x.shape[2], t.shape[2])

    def solve(system: NormalEquations) -> tuple[Tensor, Tensor]:
        return system.solve(start, ridge=1e-9, intercept=True)

    nothing = (torch.zeros_like(start), torch.zeros(t.shape[1:]))
    return refit(equations, lambda: parts, clip, (nothing, solve(equations)), solve=solve, rounds=rounds)


@pytest.mark.parametrize("with_shortcut", [False, True])
def test_what_a_relu_hides_does_not_matter(with_shortcut):
    """Targets are linear where they are positive and anything below zero elsewhere: the line is found."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(2000, 1, 4, generator=rng)
    weights, bias = torch.randn(1, 4, 3, generator=rng).double(), torch.tensor([[0.2, -0.1, 0.5]]).double()
    shortcut = torch.randn(2000, 1, 3, generator=rng) if with_shortcut else None
    line = predicted(x, weights, bias) + (0.0 if shortcut is None else shortcut)
    hidden = torch.where(line > 0, line, -5 * torch.rand(line.shape, generator=rng))
    found = rounds_of(x, hidden, RELU, rounds=60, shortcut=shortcut)
    assert found[1].error > 0.01
    assert found[-1].error < 1e-6
    assert torch.allclose(found[-1].weights, weights, atol=1e-2)
    assert torch.allclose(found[-1].bias, bias, atol=1e-2)


@given(seed=st.integers(0, 10_000), clip=st.sampled_from([RELU, RELU6]), groups=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_errors_are_those_behind_the_activation(seed, clip, groups):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(300, groups, 3, generator=rng)
    t = 4 * torch.randn(300, groups, 2, generator=rng) + 3 * x[..., :2]
    wanted = clip.cut(t).double()
    power = (wanted - wanted.mean(0)).square().sum()
    found = rounds_of(x, t, clip, rounds=4)
    assert len(found) == 6
    for fit in found:
        told = clip.cut(torch.einsum("rgd,gdo->rgo", x.double(), fit.weights.double()) + fit.bias)
        assert fit.error == pytest.approx(float((told - wanted).square().sum() / power), rel=1e-4)
    assert min(fit.error for fit in found[2:]) <= found[1].error * 1.001


def test_nothing_changes_where_nothing_is_cut_off():
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(400, 2, 3, generator=rng)
    found = rounds_of(x, 1 + x.sum(2, keepdim=True) + 0.1 * x[..., :1] ** 2, RELU, rounds=2)
    for fit in found[2:]:
        assert torch.allclose(fit.weights, found[1].weights, atol=1e-6)


class Fork(nn.Module):
    """One convolution read by a ReLU, one by a ReLU6, one by both a ReLU and a pool, one by a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 3, 1) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d = (convolution(x) for convolution in self.convolutions)
        forked = torch.relu(c) + nn.functional.avg_pool2d(c, 3, 1, 1)
        return torch.relu(a) + nn.functional.relu6(b) + forked + nn.functional.gelu(d)


def test_a_cut_counts_only_where_every_reader_applies_it():
    graph = capture(Fork().eval(), (3, 8, 8)).graph_module.graph
    convolutions = [n for n in graph.nodes if op_name(n) == "conv2d"]
    assert [following_clip(n) for n in convolutions] == [RELU, RELU6, None, None]


def test_hard_tanh_is_taken_with_its_bounds():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Hardtanh(-0.5, 2.0), nn.Conv2d(3, 3, 1), nn.Hardtanh())
    graph = capture(network.eval(), (3, 8, 8)).graph_module.graph
    convolutions = [n for n in graph.nodes if op_name(n) == "conv2d"]
    assert [following_clip(n) for n in convolutions] == [Clip(low=-0.5, high=2.0), Clip(low=-1.0, high=1.0)]


def test_a_network_says_which_layers_were_judged_behind_their_activation():
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    case = trial(nets.residual_add(), images)
    _, report = case.recover()
    _, before = case.recover(options=RecoveryOptions(clip_rounds=0))
    flags = {step.layer: step.behind_activation for step in report.steps}
    assert flags == {"first.0": True, "second.0": True, "head.2": False}
    assert not any(step.behind_activation for step in before.steps)
