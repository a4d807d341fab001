"""Baseline criteria: hand-computed values, peers and brute force as oracles, limits and notes."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.pruner.importance import (
    BNScaleImportance,
    FPGMImportance,
    GroupMagnitudeImportance,
)

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.criteria.base import Evidence
from edgeprune.criteria.combining import relative_to_group
from edgeprune.criteria.greedy import rising
from edgeprune.criteria.layer_weights import producers, reading_power
from edgeprune.criteria.registry import criterion
from edgeprune.criteria.residual import unexplained
from edgeprune.errors import UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.graph.activations import channel_activations
from edgeprune.graph.masking import mask_module
from edgeprune.graph.replay import MaskedGame

WEIGHTS = ("l1", "l2", "bn-scale", "fpgm")
PASSES = ("apoz", "activation-weight", "reconstruction-residual")
GRADIENTS = ("taylor", "taylor-abs", "taylor-squared")
MEASURED = ("leave-one-out", "greedy-leave-one-out")
BASELINES = ("random", *WEIGHTS, *PASSES, *GRADIENTS, *MEASURED)


def evidence_of(
    case: nets.Case, *, images: int = 12, max_evaluations: int | None = None, images_at_once: int = 5
) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, *case.captured.input_shape, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=torch.arange(images) % 5)
    masked = mask_module(case.captured, case.coupling)
    count = case.coupling.num_players
    game = MaskedGame(masked, count, batch, reference, images_at_once=images_at_once)
    return Evidence(
        captured=case.captured, coupling=case.coupling, images=batch, game=game, recovery_game=game,
        ratio=0.25, max_evaluations=max_evaluations,
    )  # fmt: skip


def score(name: str, evidence: Evidence, seed: int = 0):
    units: list[int] = []
    chosen = criterion(name)
    announced = chosen.passes(evidence)
    before = evidence.game.evaluations
    found = chosen.score(evidence, rng=np.random.default_rng(seed), advance=units.append)
    assert sum(units) == announced == found.evaluations
    assert evidence.game.evaluations - before in (0, found.evaluations)
    return found


def parameter(case: nets.Case, name: str) -> Tensor:
    return case.captured.graph_module.get_parameter(name).detach()


def tiny(*filters: list[float], reader: list[list[float]]) -> nets.Case:
    """Pixels of one colour through a 1x1 convolution, a ReLU and another 1x1 convolution, then averaged."""
    first = nn.Conv2d(len(filters[0]), len(filters), 1, bias=False)
    second = nn.Conv2d(len(filters), len(reader), 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor(filters)[:, :, None, None])
        second.weight.copy_(torch.tensor(reader)[:, :, None, None])
    module = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nets.make_case(module, (len(filters[0]), 4, 4), trained=True)


TINY = tiny([3.0, -4.0], [1.0, 1.0], [-2.0, 0.0], reader=[[1.0, 2.0, 0.0], [0.0, 2.0, 5.0]])


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("factory", [nets.residual_add, nets.depthwise, nets.concat_flatten_linear])
def test_every_player_gets_a_finite_score_and_the_same_one_again(name, factory):
    case = nets.toy(factory)
    found = score(name, evidence_of(case))
    again = score(name, evidence_of(case))
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
    evidence = evidence_of(nets.toy(nets.chain))
    first, second = score("random", evidence, 1), score("random", evidence, 2)
    assert not np.array_equal(first.values, second.values)
    assert ((first.values >= 0) & (first.values < 1)).all()


def test_filter_norms_by_hand():
    evidence = evidence_of(TINY)
    np.testing.assert_allclose(score("l1", evidence).values, [7, 2, 2])
    found = score("l2", evidence)
    np.testing.assert_allclose(found.values, [5, 2**0.5, 2])
    # Whole: 16 places x (2 x 3 + 3 x 2); without a filter a third less. Squares 25, 2, 4 have mean 31 / 3.
    np.testing.assert_allclose(found.removal_costs, np.array([25, 2, 4]) * 3 / 31 / 3)


def test_geometric_median_by_hand():
    found = score("fpgm", evidence_of(TINY))
    distances = [29**0.5 + 41**0.5, 29**0.5 + 10**0.5, 41**0.5 + 10**0.5]
    np.testing.assert_allclose(found.values, distances)


def test_coupled_layers_add_up():
    case = nets.toy(nets.residual_add)
    stem = case.coupling.parameter_players[("stem.0.weight", 0)]
    evidence = evidence_of(case)
    both = [parameter(case, name).flatten(1) for name in ("stem.0.weight", "second.0.weight")]
    absolute = sum(w.abs().sum(1) for w in both)
    squares = sum(w.square().sum(1) for w in both)
    np.testing.assert_allclose(score("l1", evidence).values[stem], absolute)
    np.testing.assert_allclose(score("l2", evidence).values[stem], squares.sqrt())
    scales = parameter(case, "stem.1.weight").abs() + parameter(case, "second.1.weight").abs()
    np.testing.assert_allclose(score("bn-scale", evidence).values[stem], scales)
    distances = sum(torch.cdist(w, w).sum(1) for w in both)
    np.testing.assert_allclose(score("fpgm", evidence).values[stem], distances, rtol=1e-6)


def test_shared_weights_count_once():
    case = nets.toy(nets.used_twice)
    shared = case.coupling.parameter_players[("shared.0.weight", 0)]
    expected = sum(parameter(case, f"{n}.0.weight").abs().sum((1, 2, 3)) for n in ("stem", "shared"))
    np.testing.assert_allclose(score("l1", evidence_of(case)).values[shared], expected)


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
    ours = score(name, evidence_of(case)).removal_costs
    assert case.coupling.parameter_players[("first.weight", 0)].tolist() == list(range(8))
    np.testing.assert_allclose(ours / ours.mean(), theirs / theirs.mean(), rtol=1e-5)
    if name == "bn-scale":
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_batch_norm_scale_says_where_it_fell_back_and_refuses_where_there_is_none():
    case = nets.toy(nets.grouped_convolution)
    found = score("bn-scale", evidence_of(case))
    assert len(found.notes) == 1
    assert "1 groups have no batch norm with a scale (1)" in found.notes[0]
    lacking = list(next(g for g in case.coupling.groups if g.name == "1").players)
    others = np.delete(found.values, lacking)
    assert found.values[lacking].mean() == pytest.approx(others.mean())
    norms = score("l2", evidence_of(case)).values
    assert np.argsort(found.values[lacking]).tolist() == np.argsort(norms[lacking]).tolist()
    with pytest.raises(UsageError, match=r"bn-scale needs batch norms.*l2 or hybrid"):
        score("bn-scale", evidence_of(nets.toy(nets.chain_without_norm)))


def test_activations_are_reduced_exactly():
    evidence = evidence_of(TINY, images=9)
    pixels = evidence.images.images
    weights = parameter(TINY, "0.weight").flatten(1)
    expected = torch.einsum("oc,nchw->onhw", weights, pixels).relu().flatten(1)
    for at_once in (4, 9, 100):
        (found,) = channel_activations(TINY.captured, TINY.coupling, pixels, images_at_once=at_once).values()
        np.testing.assert_allclose(found.mean_magnitude, expected.abs().mean(1))
        np.testing.assert_allclose(found.mean_square, expected.square().mean(1))
        np.testing.assert_allclose(found.zero_share, (expected == 0).double().mean(1))


def test_apoz_and_activation_weight_by_hand():
    evidence = evidence_of(TINY)
    weights = parameter(TINY, "0.weight").flatten(1)
    maps = torch.einsum("oc,nchw->onhw", weights, evidence.images.images).relu().flatten(1)
    np.testing.assert_allclose(score("apoz", evidence).values, (maps > 0).double().mean(1))
    found = score("activation-weight", evidence)
    costs = maps.square().mean(1).numpy() * np.array([1.0, 8.0, 25.0])
    np.testing.assert_allclose(found.removal_costs, costs)
    np.testing.assert_allclose(found.values, np.sqrt(costs))


def test_apoz_looks_behind_the_rectifier_and_not_behind_the_pooling():
    """The last convolution's channels enter the classifier as means, which are hardly ever zero."""
    case = nets.toy(nets.chain)
    found = score("apoz", evidence_of(case))
    assert found.notes == ()
    assert (found.values < 1.0).all()


def test_apoz_says_where_nothing_is_zero_and_refuses_where_nothing_ever_is():
    found = score("apoz", evidence_of(nets.toy(nets.tokens)))
    assert "1 groups are never zero after a rectifier (up)" in found.notes[0]
    with pytest.raises(UsageError, match="apoz needs activations that are exactly zero"):
        score("apoz", evidence_of(nets.toy(nets.prelu)))


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
    evidence = evidence_of(case)
    (found,) = channel_activations(case.captured, case.coupling, evidence.images.images).values()
    for name in ("activation-weight", "reconstruction-residual"):
        scored = score(name, evidence)
        np.testing.assert_allclose(scored.removal_costs, found.mean_square)
        assert "1 places where channels enter have no weights of their own" in " ".join(scored.notes)
    assert "no layer could take over" in scored.notes[-1]


def test_a_channel_that_others_express_has_hardly_a_residual():
    case = nets.make_case(nets.chain())
    for name in ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"):
        value = case.captured.graph_module.state_dict()[name]
        value[5] = value[4]
    found = score("reconstruction-residual", evidence_of(case, images=40))
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


@pytest.mark.parametrize("factory", [nets.chain, nets.residual_add])
def test_taylor_terms_are_derivatives_by_a_gate_on_every_channel(factory):
    evidence = evidence_of(nets.toy(factory))
    game, count = evidence.game, evidence.coupling.num_players
    step = 1e-5
    slopes = np.empty((count, game.num_images))
    images = torch.arange(game.num_images)
    for player in range(count):
        moved = []
        for sign in (1, -1):
            at = np.ones((game.num_images, count))
            at[:, player] += sign * step
            with torch.no_grad():
                moved.append(-game._loss(images, game._masks(at)).numpy())
        slopes[player] = (moved[0] - moved[1]) / (2 * step)
    expected = {
        "taylor": slopes.mean(1),
        "taylor-abs": np.abs(slopes).mean(1),
        "taylor-squared": np.sqrt(np.square(slopes).mean(1)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(score(name, evidence).values, values, rtol=1e-4, atol=1e-7)
    costs = score("taylor-squared", evidence).removal_costs
    np.testing.assert_allclose(costs, np.square(slopes).mean(1), rtol=1e-4)


def test_taylor_is_activation_times_gradient_by_autograd():
    evidence = evidence_of(TINY)
    weights = parameter(TINY, "0.weight").flatten(1)
    reader = parameter(TINY, "2.weight").flatten(1)
    maps = torch.einsum("oc,nchw->nohw", weights, evidence.images.images).relu().requires_grad_(True)
    outputs = torch.einsum("kc,nchw->nk", reader, maps) / 16
    labels = evidence.images.labels % 2
    loss = nn.functional.cross_entropy(outputs, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, maps)
    expected = -(gradient * maps).sum((2, 3)).detach()
    game = MaskedGame(
        mask_module(TINY.captured, TINY.coupling),
        3,
        ImageBatch(images=evidence.images.images, labels=labels),
        [outputs.detach()],
    )
    narrowed = Evidence(
        captured=TINY.captured, coupling=TINY.coupling, images=evidence.images, game=game,
        recovery_game=game, ratio=0.25,
    )  # fmt: skip
    found = score("taylor", narrowed)
    np.testing.assert_allclose(found.values, expected.mean(0), atol=1e-12)
    np.testing.assert_allclose(
        found.standard_errors, expected.std(0, correction=0) / len(expected) ** 0.5, atol=1e-12
    )


def test_leave_one_out_is_brute_force():
    case = nets.toy(nets.residual_add)
    evidence = evidence_of(case)
    count = case.coupling.num_players
    losses = np.empty((count, 12))
    labels = evidence.images.labels
    for player in range(count):
        with torch.no_grad():
            without = nets.prune(case.captured, case.coupling, (player,))(evidence.images.images)
            whole = case.captured.graph_module(evidence.images.images)
            losses[player] = (
                nn.functional.cross_entropy(without, labels, reduction="none")
                - nn.functional.cross_entropy(whole, labels, reduction="none")
            ).numpy()
    found = score("leave-one-out", evidence)
    np.testing.assert_allclose(found.values, losses.mean(1), atol=1e-10)
    np.testing.assert_allclose(found.standard_errors, losses.std(1) / 12**0.5, atol=1e-9)
    assert found.evaluations == (count + 1) * 3


def test_greedy_removal_is_brute_force():
    case = nets.toy(nets.chain)
    evidence = evidence_of(case)
    found = score("greedy-leave-one-out", evidence)
    assert found.notes == ()
    game = evidence.game
    for group in case.coupling.groups:
        left, present = list(group.players), np.ones((1, 14), dtype=bool)
        order, curve = [], [game.values(present).mean()]
        while left:
            after = {}
            for player in left:
                trial = present.copy()
                trial[0, player] = False
                after[player] = game.values(trial).mean()
            best = max(after, key=after.__getitem__)
            order.append(best)
            left.remove(best)
            present[0, best] = False
            curve.append(after[best])
        players = list(group.players)
        assert [players[i] for i in np.argsort(found.removal_costs[players])] == order
        assert found.removal_costs[players].sum() == pytest.approx(curve[0] - curve[-1], abs=1e-6)
        # Rising costs: never above the true curve of losses, and on it at the end of each run.
        lost = np.cumsum(found.removal_costs[order])
        assert (lost <= curve[0] - np.array(curve[1:]) + 1e-6).all()


def test_greedy_removal_within_a_limit_measures_early_removals_again_and_says_so():
    case = nets.toy(nets.chain)
    needed = 15 * 3
    least = score("greedy-leave-one-out", evidence_of(case, max_evaluations=needed))
    alone = score("leave-one-out", evidence_of(case))
    for group in case.coupling.groups:
        players = list(group.players)
        assert (
            np.argsort(least.values[players]).tolist()
            == np.argsort(alone.values[players], kind="stable").tolist()
        )
    assert "max_evaluations=45 allows 1 to 1 measurements" in least.notes[0]
    more = score("greedy-leave-one-out", evidence_of(case, max_evaluations=needed + 3 * (7 + 5 + 6)))
    assert more.evaluations == needed + 3 * (7 + 5 + 6)
    assert "allows 2 to 3 measurements of each of 2 of 2 groups" in more.notes[0]


def test_costs_rise_and_runs_keep_their_sums():
    np.testing.assert_allclose(rising(np.array([1.0, 3.0, 2.0, 2.5, 5.0])), [1, 2.5, 2.5, 2.5, 5])
    np.testing.assert_allclose(rising(np.array([3.0, 2.0, 1.0])), [2, 2, 2])
    np.testing.assert_allclose(rising(np.array([-1.0, 0.0, 4.0])), [-1, 0, 4])
    assert rising(np.array([])).shape == (0,)


@pytest.mark.parametrize("name", [*PASSES, *GRADIENTS, *MEASURED])
@pytest.mark.parametrize("limit", [1, 2, 14, 15, 16, 31, 60, 1000])
def test_the_limit_holds_or_is_refused_with_what_is_needed(name, limit):
    least = {"reconstruction-residual": 2, **dict.fromkeys(MEASURED, 15)}.get(name, 1)
    evidence = evidence_of(nets.toy(nets.chain), images=150, max_evaluations=limit, images_at_once=64)
    if limit < least:
        with pytest.raises(UsageError, match=rf"max_evaluations={limit} is too few.*at least {least}"):
            score(name, evidence)
        return
    found = score(name, evidence)
    assert 0 < found.evaluations <= limit
    assert (found.images < 150) == any("of the 150 images" in note for note in found.notes)


def test_costs_relative_to_a_group_have_the_same_mean_price_of_a_mac_everywhere():
    coupling = nets.toy(nets.chain).coupling
    costs = relative_to_group(np.arange(14.0) + 1.0, coupling)
    whole = coupling.total_macs()
    for group in coupling.groups:
        players = list(group.players)
        saved = 1 - coupling.total_macs(coupling.removed_mask(players[:1])) / whole
        assert costs[players].mean() / saved == pytest.approx(1.0)
    np.testing.assert_array_equal(relative_to_group(np.zeros(14), coupling), np.zeros(14))
