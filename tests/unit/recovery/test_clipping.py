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

from edgeprune.capture.capture import capture
from edgeprune.fx import op_name
from edgeprune.recovery.solving.clipping import Clip, Rows, Smooth, following_activation, refitted
from edgeprune.recovery.solving.deciding import LayerProblem, decide
from edgeprune.recovery.solving.layers import RecoveryOptions
from edgeprune.recovery.solving.least_squares import NormalEquations, predicted

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


def solved(system: NormalEquations, groups: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    return system.solve(torch.zeros(groups, inputs, outputs), ridge=1e-9, intercept=True)


def error(x: Tensor, t: Tensor, activation, weights: Tensor, bias: Tensor, shortcut: Tensor | None) -> float:
    total = torch.einsum("rgd,gdo->rgo", x.double(), weights.double()) + bias
    total = total if shortcut is None else total + shortcut
    wanted = activation.cut(t).double()
    power = (wanted - wanted.mean(0)).square().sum()
    return float((activation.cut(total) - wanted).square().sum() / power)


def errors_of(x: Tensor, t: Tensor, activation, *, rounds: int, shortcut: Tensor | None = None):
    """Weights and errors of plain least squares and of every round behind the activation."""
    equations, parts = whole(x, t, shortcut)
    sizes = (x.shape[1], x.shape[2], t.shape[2])
    first = solved(equations, *sizes)
    later = refitted(
        equations, lambda: parts, activation, *first, solve=lambda s: solved(s, *sizes), rounds=rounds
    )
    fits = [first, *later]
    return fits, [error(x, t, activation, *fit, shortcut) for fit in fits]


@pytest.mark.parametrize("with_shortcut", [False, True])
def test_what_a_relu_hides_does_not_matter(with_shortcut):
    """Targets are linear where they are positive and anything below zero elsewhere: the line is found."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(2000, 1, 4, generator=rng)
    weights, bias = torch.randn(1, 4, 3, generator=rng).double(), torch.tensor([[0.2, -0.1, 0.5]]).double()
    shortcut = torch.randn(2000, 1, 3, generator=rng) if with_shortcut else None
    line = predicted(x, weights, bias) + (0.0 if shortcut is None else shortcut)
    hidden = torch.where(line > 0, line, -5 * torch.rand(line.shape, generator=rng))
    fits, errors = errors_of(x, hidden, RELU, rounds=60, shortcut=shortcut)
    assert errors[0] > 0.01
    assert errors[-1] < 1e-6
    assert torch.allclose(fits[-1][0], weights, atol=1e-2)
    assert torch.allclose(fits[-1][1], bias, atol=1e-2)


@pytest.mark.parametrize("name", ["silu", "hardswish", "gelu"])
def test_rounds_behind_a_smooth_activation_lower_the_error_behind_it(name):
    """Targets far below zero, where all three are flat, are of no use to anyone."""
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(3000, 1, 4, generator=rng)
    line = predicted(x, torch.randn(1, 4, 3, generator=rng).double(), torch.zeros(1, 3).double())
    hidden = torch.where(line > -4, line, line - 10 * torch.rand(line.shape, generator=rng)) * 2
    _, errors = errors_of(x, hidden, Smooth(name=name), rounds=20)
    assert errors[-1] < 0.8 * errors[0]


@given(prediction=numbers(8), target=numbers(8), name=st.sampled_from(["silu", "hardswish", "gelu"]))
def test_targets_behind_a_smooth_activation_lie_between_prediction_and_target(prediction, target, name):
    p, t = torch.tensor(prediction), torch.tensor(target)
    found = Smooth(name=name).reachable(p, t)
    assert (found >= torch.minimum(p, t) - 1e-4).all()
    assert (found <= torch.maximum(p, t) + 1e-4).all()


def test_nothing_changes_where_nothing_is_cut_off():
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(400, 2, 3, generator=rng)
    fits, _ = errors_of(x, 1 + x.sum(2, keepdim=True) + 0.1 * x[..., :1] ** 2, RELU, rounds=2)
    for weights, _ in fits[1:]:
        assert torch.allclose(weights, fits[0][0], atol=1e-6)


@given(seed=st.integers(0, 10_000), activation=st.sampled_from([None, RELU, RELU6]), groups=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_the_error_of_a_choice_is_that_on_the_deciding_rows_and_never_above_what_was_there(
    seed, activation, groups
):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(200, groups, 3, generator=rng)
    t = torch.randn(200, groups, 2, generator=rng) + x[..., :2] * float(torch.randn((), generator=rng))
    before = (torch.randn(groups, 3, 2, generator=rng).double(), torch.zeros(groups, 2).double())
    fitting, deciding = ([Rows(inputs=x[s], target=t[s], shortcut=None)] for s in (slice(8), slice(8, None)))
    problem = LayerProblem(
        fitting=lambda: fitting, deciding=lambda: deciding, before=before, merged=[before[0]], metrics=[],
        activation=activation, intercept=True, repairable=False, ridges=(1e-3, 1.0), rounds=2,
    )  # fmt: skip
    choice = decide(problem, NormalEquations(groups, 3, 2))
    seen = activation or Clip(low=-math.inf, high=math.inf)
    judged = {False: choice.error_before, True: choice.taken.error}
    for taken, told in ((False, before), (True, (choice.taken.weights, choice.taken.bias))):
        assert judged[taken] == pytest.approx(error(x[8:], t[8:], seen, *told, None), rel=1e-4)
    assert choice.taken.error <= choice.error_before


def test_noise_is_not_fitted_and_a_layer_that_nothing_helps_stays():
    """Eight rows, seven unknowns, targets without any pattern: nothing but a strong ridge or none at all."""
    rng = torch.Generator().manual_seed(5)
    x, t = torch.randn(400, 1, 7, generator=rng), torch.randn(400, 1, 3, generator=rng)
    true = torch.randn(1, 7, 3, generator=rng).double()
    t = t + predicted(x, true, torch.zeros(1, 3))
    fitting, deciding = ([Rows(inputs=x[s], target=t[s], shortcut=None)] for s in (slice(8), slice(8, None)))
    before = (true, torch.zeros(1, 3).double())
    problem = LayerProblem(
        fitting=lambda: fitting, deciding=lambda: deciding, before=before, merged=[true], metrics=[],
        activation=None, intercept=False, repairable=False, ridges=(1e-3, 1e-2), rounds=0,
    )  # fmt: skip
    choice = decide(problem, NormalEquations(1, 7, 3))
    assert not choice.taken.changed or choice.taken.ridge is None
    assert torch.equal(choice.taken.weights, true)


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
    assert [following_activation(n) for n in convolutions] == [RELU, RELU6, None, Smooth(name="gelu")]


def test_hard_tanh_is_taken_with_its_bounds():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Hardtanh(-0.5, 2.0), nn.Conv2d(3, 3, 1), nn.Hardtanh())
    graph = capture(network.eval(), (3, 8, 8)).graph_module.graph
    convolutions = [n for n in graph.nodes if op_name(n) == "conv2d"]
    assert [following_activation(n) for n in convolutions] == [
        Clip(low=-0.5, high=2.0),
        Clip(low=-1.0, high=1.0),
    ]


def test_a_network_says_which_layers_were_judged_behind_their_activation():
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    case = trial(nets.residual_add(), images)
    _, report = case.recover()
    _, before = case.recover(options=RecoveryOptions(clip_rounds=0))
    flags = {step.layer: step.behind_activation for step in report.steps}
    assert flags == {"first.0": True, "second.0": True, "head.2": False}
    assert not any(step.behind_activation for step in before.steps)
