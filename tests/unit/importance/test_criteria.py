"""Baseline criteria from weights and activations: hand-computed values, and peers as oracles."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
import torch_pruning
from criteria_cases import BASELINES, context_of, parameter, score, three_filters
from torch import Tensor, nn
from torch_pruning.pruner.importance import (
    BNScaleImportance,
    FPGMImportance,
    GroupMagnitudeImportance,
)

from edgeprune.errors import UsageError
from edgeprune.games.channel_activity import channel_activations
from edgeprune.importance.combining import relative_to_group
from edgeprune.importance.criteria.residual import unexplained
from edgeprune.importance.layer_weights import producers, reading_power


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("factory", [nets.residual_add, nets.depthwise, nets.concat_flatten_linear])
def test_every_player_gets_a_finite_score_and_the_same_one_again(name, factory):
    case = nets.toy(factory)
    found = score(name, context_of(case))
    again = score(name, context_of(case))
    for numbers in (found.values, found.removal_costs):
        assert numbers.shape == (case.coupling.num_players,)
        assert np.isfinite(numbers).all()
    np.testing.assert_array_equal(found.values, again.values)
    np.testing.assert_array_equal(found.removal_costs, again.removal_costs)
    assert found.criterion == name
    assert found.choice
    assert np.unique(found.values).size > 1
    for group in case.coupling.groups:
        players = list(group.players)
        assert np.argsort(found.values[players]).tolist() == np.argsort(found.removal_costs[players]).tolist()


def test_random_scores_follow_the_generator():
    context = context_of(nets.toy(nets.chain))
    first, second = score("random", context, 1), score("random", context, 2)
    assert not np.array_equal(first.values, second.values)
    assert ((first.values >= 0) & (first.values < 1)).all()


def test_filter_norms_by_hand():
    context = context_of(three_filters())
    np.testing.assert_allclose(score("l1", context).values, [7, 2, 2])
    found = score("l2", context)
    np.testing.assert_allclose(found.values, [5, 2**0.5, 2])
    # Whole: 16 places x (2 x 3 + 3 x 2); without a filter a third less. Squares 25, 2, 4 have mean 31 / 3.
    np.testing.assert_allclose(found.removal_costs, np.array([25, 2, 4]) * 3 / 31 / 3)


def test_geometric_median_by_hand():
    found = score("fpgm", context_of(three_filters()))
    distances = [29**0.5 + 41**0.5, 29**0.5 + 10**0.5, 41**0.5 + 10**0.5]
    np.testing.assert_allclose(found.values, distances)


def test_coupled_layers_add_up():
    case = nets.toy(nets.residual_add)
    stem = case.coupling.parameter_players[("stem.0.weight", 0)]
    context = context_of(case)
    both = [parameter(case, name).flatten(1) for name in ("stem.0.weight", "second.0.weight")]
    absolute = sum(w.abs().sum(1) for w in both)
    squares = sum(w.square().sum(1) for w in both)
    np.testing.assert_allclose(score("l1", context).values[stem], absolute)
    np.testing.assert_allclose(score("l2", context).values[stem], squares.sqrt())
    scales = parameter(case, "stem.1.weight").abs() + parameter(case, "second.1.weight").abs()
    np.testing.assert_allclose(score("bn-scale", context).values[stem], scales)
    distances = sum(torch.cdist(w, w).sum(1) for w in both)
    np.testing.assert_allclose(score("fpgm", context).values[stem], distances, rtol=1e-6)


def test_shared_weights_count_once():
    case = nets.toy(nets.used_twice)
    shared = case.coupling.parameter_players[("shared.0.weight", 0)]
    expected = sum(parameter(case, f"{n}.0.weight").abs().sum((1, 2, 3)) for n in ("stem", "shared"))
    np.testing.assert_allclose(score("l1", context_of(case)).values[shared], expected)


class _PlainChain(nn.Module):
    """Positive weights: Torch-Pruning measures FPGM's distances between magnitudes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 5, 3, bias=False)
        for weight in (self.first.weight, self.second.weight):
            nn.init.uniform_(weight, 0.01, 1.0)
        nn.init.uniform_(self.norm.weight, 0.1, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)).relu()).mean((2, 3))


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("l1", GroupMagnitudeImportance(p=1, group_reduction="first", normalizer="mean")),
        ("l2", GroupMagnitudeImportance(p=2, group_reduction="first", normalizer="mean")),
        ("bn-scale", BNScaleImportance(normalizer=None)),
        ("fpgm", FPGMImportance(p=1, group_reduction="first", normalizer="mean")),
    ],
)
def test_torch_pruning_finds_the_same(name, peer):
    module = _PlainChain().eval()
    graph = torch_pruning.DependencyGraph().build_dependency(module, torch.randn(1, *nets.IMAGE))
    group = graph.get_pruning_group(module.first, torch_pruning.prune_conv_out_channels, idxs=range(8))
    theirs = peer(group).numpy()
    case = nets.make_case(module, trained=True)
    ours = score(name, context_of(case)).removal_costs
    assert case.coupling.parameter_players[("first.weight", 0)].tolist() == list(range(8))
    np.testing.assert_allclose(ours / ours.mean(), theirs / theirs.mean(), rtol=1e-5)
    if name == "bn-scale":
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_batch_norm_scale_says_where_it_fell_back_and_refuses_where_there_is_none():
    case = nets.toy(nets.grouped_convolution)
    found = score("bn-scale", context_of(case))
    assert len(found.notes) == 1
    assert "1 groups have no batch norm with a scale (1)" in found.notes[0]
    lacking = list(next(g for g in case.coupling.groups if g.name == "1").players)
    others = np.delete(found.values, lacking)
    assert found.values[lacking].mean() == pytest.approx(others.mean())
    norms = score("l2", context_of(case)).values
    assert np.argsort(found.values[lacking]).tolist() == np.argsort(norms[lacking]).tolist()
    with pytest.raises(UsageError, match=r"bn-scale needs batch norms.*l2 or hybrid"):
        score("bn-scale", context_of(nets.toy(nets.chain_without_norm)))


def test_activations_are_reduced_exactly():
    context = context_of(three_filters(), images=9)
    pixels = context.images.images
    weights = parameter(three_filters(), "0.weight").flatten(1)
    expected = torch.einsum("oc,nchw->onhw", weights, pixels).relu().flatten(1)
    for at_once in (4, 9, 100):
        (found,) = channel_activations(
            three_filters().captured, three_filters().coupling, pixels, images_at_once=at_once
        ).values()
        np.testing.assert_allclose(found.mean_magnitude, expected.abs().mean(1))
        np.testing.assert_allclose(found.mean_square, expected.square().mean(1))
        np.testing.assert_allclose(found.zero_share, (expected == 0).double().mean(1))


def test_apoz_and_activation_weight_by_hand():
    context = context_of(three_filters())
    weights = parameter(three_filters(), "0.weight").flatten(1)
    maps = torch.einsum("oc,nchw->onhw", weights, context.images.images).relu().flatten(1)
    np.testing.assert_allclose(score("apoz", context).values, (maps > 0).double().mean(1))
    found = score("activation-weight", context)
    costs = maps.square().mean(1).numpy() * np.array([1.0, 8.0, 25.0])
    np.testing.assert_allclose(found.removal_costs, costs)
    np.testing.assert_allclose(found.values, np.sqrt(costs))


def test_apoz_looks_behind_the_rectifier_and_not_behind_the_pooling():
    """The last convolution's channels enter the classifier as means, which are hardly ever zero."""
    case = nets.toy(nets.chain)
    found = score("apoz", context_of(case))
    assert found.notes == ()
    assert (found.values < 1.0).all()


def test_apoz_says_where_nothing_is_zero_and_refuses_where_nothing_ever_is():
    found = score("apoz", context_of(nets.toy(nets.tokens)))
    assert "1 groups are never zero after a rectifier (up)" in found.notes[0]
    with pytest.raises(UsageError, match="apoz needs activations that are exactly zero"):
        score("apoz", context_of(nets.toy(nets.prelu)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 12, 3, padding=1, bias=False),
        nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(8, 16, 3, padding=1, groups=8, bias=False),
        nn.ConvTranspose2d(8, 12, 3, padding=1, bias=False),
        nn.ConvTranspose2d(8, 12, 3, padding=1, groups=2, bias=False),
        nn.ConvTranspose2d(8, 16, 3, padding=1, groups=8, bias=False),
    ],
    ids=str,
)
def test_weights_that_make_and_read_a_channel_are_those_an_impulse_meets(layer):
    """Whatever the weight's layout, found by what comes out for a one at a place of one channel."""
    layer.double()
    outputs = layer.out_channels
    case = nets.make_case(
        nn.Sequential(nn.Conv2d(3, 8, 1), layer, nn.ReLU(), nets.head(outputs)).float(), trained=True
    )
    layer.double()
    impulses = torch.zeros(8, 8, 5, 5, dtype=torch.float64)
    impulses[torch.arange(8), torch.arange(8), 2, 2] = 1.0
    with torch.no_grad():
        power = layer(impulses).square().sum((2, 3))
    made = next(f for w, f in producers(case.captured, case.coupling) if w.name == "1")
    np.testing.assert_allclose(made.square().sum(1), power.sum(0), rtol=1e-6)
    points = [p for p in case.coupling.mask_points if p.consumer == "conv2d_1" or "transpose" in p.consumer]
    assert len(points) == (layer.groups != 8)
    for point in points:
        found = reading_power(case.captured, case.coupling, point)
        np.testing.assert_allclose(found, power.sum(1), rtol=1e-6)


def test_a_consumer_without_weights_reads_with_weight_one():
    network = nets.Network(
        lambda m, x: m.head(m.stem(x).sum(1).flatten(1)), stem=nets.conv_bn(3, 8), head=nn.Linear(64, 5)
    )
    case = nets.make_case(network)
    context = context_of(case)
    (found,) = channel_activations(case.captured, case.coupling, context.images.images).values()
    for name in ("activation-weight", "reconstruction-residual"):
        scored = score(name, context)
        np.testing.assert_allclose(scored.removal_costs, found.mean_square)
        assert "1 places where channels enter have no weights of their own" in " ".join(scored.notes)
    assert "no layer could take over" in scored.notes[-1]


def test_a_channel_that_others_express_has_hardly_a_residual():
    case = nets.make_case(nets.chain())
    for name in ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"):
        value = case.captured.graph_module.state_dict()[name]
        value[5] = value[4]
    found = score("reconstruction-residual", context_of(case, images=40))
    first = list(case.coupling.groups[0].players)
    assert set(np.argsort(found.values[first])[:2]) == {4, 5}
    assert found.removal_costs[[4, 5]].max() < 0.1 * np.delete(found.removal_costs[first], [4, 5]).min()


def test_unexplained_variance_is_that_of_regression_on_other_players():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((400, 4)) @ rng.standard_normal((4, 4))
    samples -= samples.mean(0)
    covariance = torch.from_numpy(samples.T @ samples / 400)

    def residual(channel: int, others: list[int]) -> float:
        fit = np.linalg.lstsq(samples[:, others], samples[:, channel], rcond=None)[0]
        return float(np.square(samples[:, channel] - samples[:, others] @ fit).mean())

    alone = unexplained(covariance, np.arange(4), ridge=0.0)
    np.testing.assert_allclose(alone, [residual(i, [j for j in range(4) if j != i]) for i in range(4)])
    paired = unexplained(covariance, np.array([0, 0, 1, -1]), ridge=0.0)
    expected = [residual(0, [2, 3]), residual(1, [2, 3]), residual(2, [0, 1, 3]), residual(3, [0, 1, 2])]
    np.testing.assert_allclose(paired, expected)


def test_costs_relative_to_a_group_have_the_same_mean_price_of_a_mac_everywhere():
    coupling = nets.toy(nets.chain).coupling
    costs = relative_to_group(np.arange(14.0) + 1.0, coupling)
    whole = coupling.total_macs()
    for group in coupling.groups:
        players = list(group.players)
        saved = 1 - coupling.total_macs(coupling.removed_mask(players[:1])) / whole
        assert costs[players].mean() / saved == pytest.approx(1.0)
    np.testing.assert_array_equal(relative_to_group(np.zeros(14), coupling), np.zeros(14))
