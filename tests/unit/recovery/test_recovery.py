"""Closed-form recovery on digits: it lowers the error, is exact where it can be, and never blows up."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import networks as nets
import numpy as np
import pytest
import torch
from networks import Network, conv_bn, head
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.artifacts.pruning import RecoveryReport
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fake_quant import round_layers
from edgeprune.fx import tensor_leaves
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.activations import ActivationStore
from edgeprune.recovery.evaluation import LazyGraph
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.solving.layers import RecoveryOptions
from edgeprune.recovery.solving.least_squares import ChannelMoments, NormalEquations
from edgeprune.system.data import data_dir

SHARP = RecoveryOptions(ridges=(1e-6,), merge_ridges=(1e-9,))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """(400, 3, 8, 8): each digit upright, transposed and mirrored, so that channels differ."""
    with np.load(data_dir("calibration") / "digits.npz") as archive:
        grey = torch.from_numpy(archive["images"]).float() / 255
    colours = torch.stack([grey, grey.mT, grey.flip(-1)], dim=1)
    return (colours - colours.mean()) / colours.std()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A float32 network with some players gone, to be recovered on the first 300 images."""

    captured: CapturedModel
    coupling: CouplingGraph
    removed: tuple[int, ...]
    pruned: GraphModule
    images: Tensor

    def recover(
        self,
        *,
        seed: int = 0,
        options: RecoveryOptions | None = None,
        stored_as: IntegerFormat | None = None,
    ) -> tuple[GraphModule, RecoveryReport]:
        return reconstruct(
            self.captured.graph_module,
            self.pruned,
            self.coupling,
            self.removed,
            nets.split(self.images[:300]),
            generator=torch.Generator().manual_seed(seed),
            options=options,
            stored_as=stored_as,
        )

    @torch.no_grad()
    def error(self, module: GraphModule) -> float:
        """Squared error of the outputs on the other 100 images, relative to their spread."""
        unseen = self.images[300:]
        pairs = zip(
            tensor_leaves(self.captured.graph_module(unseen)), tensor_leaves(module(unseen)), strict=True
        )
        return max(
            float((a - b).square().sum() / (a - a.mean(0)).square().sum().clamp_min(1e-12)) for a, b in pairs
        )


def trial(
    module: nn.Module,
    images: Tensor,
    removed: tuple[int, ...] | None = None,
    *,
    change: Callable[[nn.Module], None] = lambda _m: None,
) -> Trial:
    """Randomise, let ``change`` have its way, capture and prune (every second player where not said)."""
    nets.randomise(module, tuple(images.shape[1:]))
    with torch.no_grad():
        change(module)
    captured = capture(module.eval(), tuple(images.shape[1:]))
    coupling = couple(captured)
    if removed is None:
        removed = tuple(sorted(p for g in coupling.groups for p in g.players[::2][: len(g.players) - 1]))
    pruned = prune(captured, coupling, removed)
    return Trial(captured=captured, coupling=coupling, removed=removed, pruned=pruned, images=images)


@pytest.mark.parametrize(
    ("factory", "share"),
    [
        (nets.chain, 0.5),
        (nets.chain_without_norm, 0.5),
        (nets.residual_add, 0.5),
        (nets.padded_shortcut, 0.5),
        (nets.concat, 0.5),
        (nets.concat_flatten_linear, 0.5),
        (nets.depthwise, 0.8),
        (nets.grouped_convolution, 0.5),
        (nets.squeeze_excitation, 0.5),
        (nets.channels_last, 0.5),
        (nets.pooling, 0.5),
        (nets.two_outputs, 0.5),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_error_on_images_not_seen_falls(digits, factory, share):
    given = trial(factory(), digits)
    recovered, report = given.recover()
    assert given.error(recovered) < share * given.error(given.pruned)
    assert (report.images, report.deciding_images) == (240, 60)
    for step in report.steps:
        assert 0.0 <= step.error_after <= step.error_before
        assert step.rows > 0


def test_a_copy_of_a_channel_is_recovered_exactly(digits):
    """Channels 5 to 7 are the same as 0 to 2: removing them loses nothing."""

    def copy_channels(module: nn.Module) -> None:
        state = module.state_dict()
        for name in ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"):
            state[name][5:] = state[name][:3]

    given = trial(nets.chain(), digits, (5, 6, 7), change=copy_channels)
    assert given.error(given.pruned) > 1e-2
    recovered, report = given.recover(options=SHARP)
    assert given.error(recovered) < 1e-8
    # The default ridge costs a little, not much.
    assert given.error(given.recover()[0]) < 1e-3
    assert all(step.error_after < 1e-6 for step in report.steps)


def test_channels_that_are_linear_in_the_kept_ones_are_recovered_exactly(digits):
    """Ten 1 x 1 filters of three colours span three dimensions (and a constant): four of them tell all."""
    module = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Conv2d(10, 6, 3), nn.ReLU(), head(6))
    given = trial(module, digits, (0, 2, 4, 6, 8, 9))
    assert given.error(given.pruned) > 1e-2
    recovered, _ = given.recover(options=SHARP)
    assert given.error(recovered) < 1e-6


def test_merging_alone_is_exact_without_enough_rows_for_least_squares(digits):
    """The map between channels needs few images; least squares then has nothing to correct."""
    module = nn.Sequential(
        nn.Conv2d(3, 10, 1, bias=False), nn.Conv2d(10, 6, 3, padding=1), nn.ReLU(), head(6)
    )
    given = trial(module, digits - digits.mean((0, 2, 3), keepdim=True), tuple(range(3, 10)))
    few = RecoveryOptions(ridges=(1e6,), merge_ridges=(1e-9,), residual_repair=False)
    recovered, _ = given.recover(options=few)
    assert given.error(recovered) < 1e-5


@pytest.mark.parametrize("removed", [(2, 3), (0, 1), (0, 2, 4)])
def test_constant_and_dead_channels_never_blow_up(digits, removed):
    """Channel 0 never fires, channel 1 is constant, channels 2 and 3 differ by a hair."""

    def degenerate(module: nn.Module) -> None:
        conv = module[0]
        conv.weight[:2] = 0.0
        conv.bias[0], conv.bias[1] = -100.0, 50.0
        conv.weight[3] = conv.weight[2] * (1 + 1e-7)
        conv.bias[3] = conv.bias[2]

    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), head(5))
    given = trial(module, digits, removed, change=degenerate)
    recovered, _ = given.recover()
    state = recovered.state_dict()
    assert all(torch.isfinite(v).all() for v in state.values())
    # Biases may grow: the constant channel's share goes there.
    for name, before in given.pruned.state_dict().items():
        if name.endswith("weight"):
            assert float(state[name].abs().max()) < 10 * float(before.abs().max())
    assert given.error(recovered) <= max(given.error(given.pruned), 1e-6)


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize(
    "factory", [nets.chain, nets.residual_add, nets.grouped_convolution], ids=lambda f: f.__name__
)
def test_images_without_any_content_do_no_harm(factory, level):
    given = trial(factory(), torch.full((400, *nets.IMAGE), level))
    recovered, _ = given.recover()
    assert all(torch.isfinite(v).all() for v in recovered.state_dict().values())


def test_a_norm_with_scale_zero_is_left_alone(digits):
    def dead_norm(module: nn.Module) -> None:
        module[1][1].weight[1] = 0.0

    given = trial(nets.chain(), digits, (0, 3), change=dead_norm)
    recovered, _ = given.recover()
    assert torch.equal(recovered.get_parameter("1.0.weight")[1], given.pruned.get_parameter("1.0.weight")[1])
    assert torch.isfinite(recovered(digits[:4])).all()
    assert given.error(recovered) < given.error(given.pruned)


def test_few_images_do_no_harm_on_those_images(digits):
    """Fewer rows than unknowns: the ridge towards the merged weights keeps the solution tame."""
    given = trial(nets.concat_flatten_linear(), digits)
    recovered, _ = reconstruct(
        given.captured.graph_module, given.pruned, given.coupling, given.removed, nets.split(digits[:8]),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert given.error(recovered) < 1.5 * given.error(given.pruned)


def same(left: GraphModule, right: GraphModule) -> bool:
    state = right.state_dict()
    return all(torch.equal(v, state[k]) for k, v in left.state_dict().items())


def test_same_generator_same_weights(digits):
    given = trial(nets.residual_add(), digits)
    options = RecoveryOptions(min_rows=200, rows_per_unknown=2)
    first, report = given.recover(options=options)
    again, _ = given.recover(options=options)
    other, _ = given.recover(seed=1, options=options)
    assert same(first, again)
    assert not same(first, other)
    assert all(step.rows <= 500 for step in report.steps)


def test_neither_network_is_changed(digits):
    given = trial(nets.residual_add(), digits)
    before = [
        {k: v.clone() for k, v in m.state_dict().items()} for m in (given.captured.graph_module, given.pruned)
    ]
    given.recover()
    for module, state in zip((given.captured.graph_module, given.pruned), before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_nothing_removed_nothing_to_recover(digits):
    given = trial(nets.residual_add(), digits, ())
    recovered, report = given.recover()
    assert report.steps == ()
    assert same(recovered, given.pruned)
    assert given.error(recovered) == 0.0


def test_steps_are_the_layers_behind_what_went_in_order_and_each_is_announced(digits):
    given = trial(nets.chain(), digits, (8, 9))
    seen: list[int] = []
    _, report = reconstruct(
        given.captured.graph_module, given.pruned, given.coupling, given.removed, nets.split(digits[:50]),
        generator=torch.Generator().manual_seed(0), advance=seen.append,
    )  # fmt: skip
    assert [s.layer for s in report.steps] == ["2.2"]
    assert seen == [1]
    given = trial(nets.chain(), digits, (0,))
    assert [s.layer for s in given.recover()[1].steps] == ["1.0", "2.2"]


def test_a_residual_sum_is_repaired_by_the_layer_that_feeds_it(digits):
    module = Network(
        lambda m, x: m.head(functional.relu(m.second(m.first(y := m.middle(m.stem(x)))) + y)),
        stem=conv_bn(3, 8),
        middle=conv_bn(8, 8),
        first=conv_bn(8, 6),
        second=nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
        head=head(8),
    )
    given = trial(module, digits, tuple(range(0, 8, 2)))
    recovered, report = given.recover()
    flags = {s.layer: s.repaired_residual for s in report.steps}
    assert flags == {"middle.0": False, "first.0": False, "second.0": True, "head.2": False}
    unrepaired, plain = given.recover(options=RecoveryOptions(residual_repair=False))
    assert given.error(recovered) < given.error(unrepaired)
    assert not any(s.repaired_residual for s in plain.steps)


def test_layers_of_other_kinds_are_left_and_named(digits, caplog):
    given = trial(nets.volumes(), digits)
    with caplog.at_level("WARNING", logger="edgeprune.recovery"):
        recovered, report = given.recover()
    assert "line (conv1d) is of a kind that recovery leaves as it is" in report.notes
    assert "line (conv1d)" in caplog.text
    assert torch.equal(recovered.get_parameter("line.weight"), given.pruned.get_parameter("line.weight"))
    assert [s.layer for s in report.steps] == ["head"]


def test_all_images_count_and_where_memory_is_short_they_wait_on_disk(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = trial(nets.residual_add(), digits)
    roomy, report = given.recover()
    tight, other = given.recover(options=RecoveryOptions(memory_limit_bytes=1000))
    assert same(roomy, tight)
    assert report.images == other.images == 240
    assert other.notes == ()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_changes_nothing(digits, tmp_path, monkeypatch):
    given = trial(nets.chain(), digits)
    roomy, _ = given.recover()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    held, report = given.recover(options=RecoveryOptions(memory_limit_bytes=1000))
    assert same(roomy, held)
    assert len(report.notes) == 1
    assert "the temporary folder does not take them" in report.notes[0]


def rows(count: int, groups: int, width: int) -> Tensor:
    return torch.randn(count, groups, width, generator=torch.Generator().manual_seed(0)) + 0.5


def relative_error(x: Tensor, t: Tensor, weights: Tensor, bias: Tensor) -> float:
    """||X W + b - T||^2 over the power of T about its mean."""
    told = torch.einsum("rgd,gdo->rgo", x.double(), weights.double()) + bias
    power = (t.double() - t.double().mean(0)).square().sum()
    return float((told - t.double()).square().sum() / power.clamp_min(1e-12))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_normal_equations_are_least_squares(groups, intercept):
    x = rows(200, groups, 4)
    t = torch.randn(200, groups, 2)
    equations = NormalEquations(groups, 4, 2)
    for start in (0, 50, 51):
        end = {0: 50, 50: 51, 51: 200}[start]
        equations.add(x[start:end], t[start:end])
    weights, bias = equations.solve(torch.zeros(groups, 4, 2), ridge=1e-12, intercept=intercept)
    total, power = 0.0, 0.0
    for g in range(groups):
        design = torch.cat([x[:, g], torch.ones(200, int(intercept))], dim=1).double()
        expected = torch.linalg.lstsq(design, t[:, g].double()).solution
        torch.testing.assert_close(weights[g], expected[:4], atol=1e-5, rtol=1e-4)
        wanted = expected[4] if intercept else torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(bias[g], wanted, atol=1e-5, rtol=1e-4)
        total += float((design @ expected - t[:, g]).square().sum())
        power += float((t[:, g] - t[:, g].mean(0)).square().sum())
    assert relative_error(x, t, weights, bias) == pytest.approx(total / power, rel=1e-4)
    assert equations.rows == 200


def test_the_ridge_draws_towards_the_start():
    x, t = rows(100, 1, 3), torch.randn(100, 1, 2)
    equations = NormalEquations(1, 3, 2)
    equations.add(x, t)
    start = torch.randn(1, 3, 2)
    free, _ = equations.solve(start, ridge=1e-9, intercept=True)
    bound, bias = equations.solve(start, ridge=1e9, intercept=True)
    torch.testing.assert_close(bound, start.double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(bias, equations.bias(start, True))
    distances = [
        float((equations.solve(start, ridge=r, intercept=True)[0] - start).norm())
        for r in (1e-9, 0.1, 1, 10, 100)
    ]
    assert distances == sorted(distances, reverse=True)
    assert float((free - start).norm()) == distances[0]


@pytest.mark.parametrize("content", ["zeros", "constant", "duplicate"])
def test_singular_systems_are_solved_and_stay_small(content):
    x = rows(50, 1, 4)
    if content == "zeros":
        x = torch.zeros_like(x)
    elif content == "constant":
        x = torch.ones_like(x)
    else:
        x[:, :, 3] = x[:, :, 2]
    t = torch.randn(50, 1, 2)
    equations = NormalEquations(1, 4, 2)
    equations.add(x, t)
    start = torch.full((1, 4, 2), 0.25)
    weights, bias = equations.solve(start, ridge=1e-2, intercept=True)
    assert torch.isfinite(weights).all()
    assert float(weights.abs().max()) < 2.0
    assert relative_error(x, t, weights, bias) <= 1.0 + 1e-6


@pytest.mark.parametrize("with_metric", [False, True])
@pytest.mark.parametrize("width", [60, 1280])
def test_few_rows_of_many_correlated_unknowns_are_solved(width, with_metric):
    """Rounding leaves such a system indefinite; the solution stays finite and fits its rows."""
    rng = torch.Generator().manual_seed(0)
    common = 100 * torch.randn(14, 1, 1, generator=rng)
    x = common + 0.01 * torch.randn(14, 1, width, generator=rng)
    t = common + 0.1 * torch.randn(14, 1, 3, generator=rng)
    metric = None
    if with_metric:
        directions = torch.randn(5, width, generator=rng).double()
        metric = directions.T @ directions
    equations = NormalEquations(1, width, 3)
    for part in (slice(None, 6), slice(6, None)):
        equations.add(x[part], t[part])
    start = torch.zeros(1, width, 3)
    for ridge in (1e-12, 1e-6, 1e-3):
        weights, bias = equations.solve(start, ridge=ridge, intercept=True, metric=metric)
        assert torch.isfinite(weights).all()
        assert relative_error(x, t, weights, bias) < 0.05


def test_channel_map_finds_linear_dependence_and_ignores_means():
    kept = rows(300, 1, 3).squeeze(1)
    mixing = torch.randn(5, 3)
    wanted = kept @ mixing.T + 7.0
    moments = ChannelMoments(3, 5)
    for part in (slice(None, 100), slice(100, 120), slice(120, None)):
        moments.add(kept[part], wanted[part])
    exact, heavy = moments.maps([1e-10, 1e6])
    torch.testing.assert_close(exact, mixing.double(), atol=1e-4, rtol=1e-4)
    centred = (kept - kept.mean(0)).double()
    torch.testing.assert_close(moments.covariance(), centred.T @ centred / 300, atol=1e-5, rtol=1e-5)
    assert float(heavy.abs().max()) < 1e-3
    moments = ChannelMoments(2, 3)
    moments.add(torch.ones(50, 2), torch.randn(50, 3))
    (constant,) = moments.maps([1e-3])
    torch.testing.assert_close(constant, torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("limit", [2**30, 0], ids=["memory", "disk"])
def test_lazy_graph_computes_once_and_frees_after_the_last_reader(digits, limit):
    given = trial(nets.chain(), digits)
    module = given.captured.graph_module
    relu = next(n.name for n in module.graph.nodes if n.name.startswith("relu"))
    output = next(n for n in module.graph.nodes if n.op == "output").args[0].name
    chunks = [torch.arange(0, 4), torch.arange(4, 10)]
    with ActivationStore(memory_limit_bytes=limit) as store:
        graph = LazyGraph(module, digits, chunks, Counter({relu: 1, output: 1}), store, "network")
        first = graph.chunk(relu, 0)
        found = torch.cat([graph.chunk(output, 0), graph.chunk(output, 1)])
        torch.testing.assert_close(found, module(digits[:10]))
        assert torch.equal(graph.chunk(relu, 0), first)
        graph.release(relu)
        with pytest.raises(RuntimeError, match="was freed; it needed another pin"):
            graph.chunk(relu, 1)


def test_large_activations_wait_in_half_precision_where_their_range_allows_it():
    fits, beyond = torch.full((4, 4), 1000.123), torch.full((4, 4), 1e6)
    with ActivationStore() as store:
        store.put(("a", "b", 0), fits, half=True)
        store.put(("a", "b", 1), beyond, half=True)
        store.put(("a", "b", 2), fits)
        assert torch.equal(store.get(("a", "b", 0)), fits.half().float())
        assert torch.equal(store.get(("a", "b", 1)), beyond)
        assert torch.equal(store.get(("a", "b", 2)), fits)


@pytest.mark.parametrize("half", [False, True])
def test_large_activations_have_pages_of_their_own(half):
    """No part of another's memory stays because of them, and what changes it does not change them."""
    whole = (torch.arange(2.0**20) % 1000).view(2, 2**19)
    with ActivationStore() as store:
        store.put(("a", "b", 0), whole[1], half=half)
        held = store._held["a", "b", 0]
        wanted = whole[1].half().float() if half else whole[1].clone()
        assert held.untyped_storage().nbytes() == held.numel() * held.element_size()
        assert held.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()
        whole.zero_()
        found = store.get(("a", "b", 0))
        assert torch.equal(found, wanted)


def test_a_bias_before_a_norm_is_counted_once(digits):
    def copy_channels(module: nn.Module) -> None:
        state = module.state_dict()
        for name in ("0.0.weight", "0.1.weight", "0.1.bias", "0.1.running_mean", "0.1.running_var"):
            state[name][5:] = state[name][:3]

    module = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), head(6))
    given = trial(module, digits, (5, 6, 7), change=copy_channels)
    recovered, _ = given.recover(options=SHARP)
    assert given.error(recovered) < 1e-8


def test_recovery_makes_up_for_rounded_weights_ahead(digits, monkeypatch):
    """Layers solved behind coarse weights fit those, on the whole; what is given back is not rounded."""
    monkeypatch.setattr("edgeprune.fake_quant.STEPS", 7)
    form = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")
    errors = {"plain": 0.0, "aware": 0.0}
    for factory, seed in itertools.product((nets.chain, nets.concat), range(3)):
        torch.manual_seed(seed)
        given = trial(factory(), digits)
        for name, stored_as in (("plain", None), ("aware", form)):
            recovered, _ = given.recover(stored_as=stored_as)
            first = given.coupling.layers[0].weight
            assert torch.equal(recovered.get_parameter(first), given.pruned.get_parameter(first))
            assert round_layers(recovered, given.coupling, form)
            errors[name] += given.error(recovered)
    assert errors["aware"] < 0.9 * errors["plain"]


def test_transposed_convolutions_are_not_rounded_by_their_inputs():
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3), nn.ReLU(), head(4))
    captured = capture(module.eval(), nets.IMAGE)
    exact = round_layers(
        captured.graph_module,
        couple(captured),
        IntegerFormat(signed_activations=False, reduce_range=True, reason="a test"),
    )
    assert sorted(exact) == ["0.weight", "4.2.weight"]
    for path, weight in exact.items():
        found = captured.graph_module.get_parameter(path).flatten(1)
        steps = found / (weight.flatten(1).abs().amax(1, keepdim=True) / 64)
        assert torch.allclose(steps, steps.round(), atol=1e-3)
        assert not torch.equal(found, weight.flatten(1))


class Flat(nn.Module):
    """A linear layer that reads flattened maps: 8 channels, 64 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = conv_bn(3, 8)
        self.head = nn.Linear(8 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return self.head(self.maps(x).flatten(1))


@pytest.mark.parametrize("most_unknowns", [10_000, 16])
def test_a_layer_of_flattened_maps_takes_over_by_channel(digits, most_unknowns):
    """Copies of channels are merged exactly, with more unknowns than images or too many to solve for."""

    def copy_channels(module: nn.Module) -> None:
        state = module.state_dict()
        for name in ("maps.0.weight", "maps.1.weight", "maps.1.bias"):
            state[name][5:] = state[name][:3]
        for name in ("maps.1.running_mean", "maps.1.running_var"):
            state[name][5:] = state[name][:3]

    given = trial(Flat(), digits, (5, 6, 7), change=copy_channels)
    assert given.error(given.pruned) > 1e-2
    options = RecoveryOptions(merge_ridges=(1e-9,), most_unknowns=most_unknowns)
    recovered, report = given.recover(options=options)
    assert given.error(recovered) < 1e-6
    assert report.steps[-1].changed
    assert report.steps[-1].error_after < 1e-6


def test_averages_of_maps_are_merged_at_the_maps(digits):
    """Twelve images tell nothing of forty averages; their positions do."""
    module = nn.Sequential(nn.Conv2d(3, 40, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 20))
    given = trial(module, digits, tuple(range(6, 40)))
    recovered, report = reconstruct(
        given.captured.graph_module, given.pruned, given.coupling, given.removed, nets.split(digits[:12]),
        generator=torch.Generator().manual_seed(0), options=SHARP,
    )  # fmt: skip
    assert given.error(recovered) < 0.01 * given.error(given.pruned)
    assert report.steps[-1].error_after < 1e-4
