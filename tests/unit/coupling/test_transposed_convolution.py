"""Transposed convolutions (weights are in x out / groups) lose channels exactly, and recovery leaves them."""

from __future__ import annotations

import more_networks as more
import networks as nets
import numpy as np
import pytest
import torch
from networks import Case, Network, conv_bn, head, make_case, toy
from torch import nn
from torch.nn import functional

from edgeprune.artifacts.coupling import NO_PLAYER, WeightedLayer
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.pruning.surgery import prune, surgery_recipe
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.selection import select

ALL = pytest.mark.parametrize("factory", more.TRANSPOSED, ids=lambda f: f.__name__)


def players(case: Case, parameter: str, dim: int = 0) -> list[int]:
    return case.coupling.parameter_players[(parameter, dim)].tolist()


def layer(case: Case, name: str) -> WeightedLayer:
    return next(x for x in case.coupling.layers if x.name == name)


@ALL
def test_number_of_players_and_groups(factory):
    coupling = toy(factory).coupling
    assert (coupling.num_players, len(coupling.groups)) == more.TRANSPOSED[factory]
    assert {(f.op, f.reason) for f in coupling.frozen} == {("output", "output of the model")}
    assert coupling.unruled_ops == ()


@ALL
def test_masked_equals_pruned_and_macs_are_those_counted(factory):
    more.check_pruning(toy(factory))


def test_input_channels_are_dimension_0_and_output_channels_dimension_1():
    case = toy(more.decoder)
    assert players(case, "1.weight", 0) == players(case, "0.0.weight") == list(range(8))
    assert players(case, "1.weight", 1) == players(case, "1.bias") == list(range(8, 14))
    up = layer(case, "1")
    assert (up.out_players.tolist(), up.in_players.tolist()) == (list(range(8, 14)), list(range(8)))
    assert up.macs_per_weight == 4 * 4 * 2 * 2
    assert case.coupling.groups[1].layers == ("1",)
    assert case.coupling.groups[1].consumers == ("3",)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_passes_each_channel_and_counts_its_groups_anew(multiplier):
    case = toy(more.transposed_depthwise if multiplier == 1 else more.transposed_depthwise_multiplier)
    stem = players(case, "0.0.weight")
    wide = [p for p in stem for _ in range(multiplier)]
    assert players(case, "1.weight", 0) == stem
    assert players(case, "1.bias") == players(case, "3.weight", 1) == wide
    up = layer(case, "1")
    assert (up.out_players.tolist(), up.in_players.tolist()) == (wide, [NO_PLAYER])
    pruned = prune(case.captured, case.coupling, (1, 4))
    assert next(n for n in pruned.graph.nodes if "conv_transpose" in n.name).args[6] == 4
    assert pruned.get_parameter("1.weight").shape[:2] == (4, multiplier)


def test_groups_lose_the_same_place_and_stay_as_many():
    case = toy(more.transposed_grouped)
    entering, out = players(case, "0.0.weight"), players(case, "3.weight", 1)
    assert entering[:4] == entering[4:]
    assert out[:6] == out[6:] == players(case, "1.weight", 1)
    up = layer(case, "1")
    assert (up.out_players.size, up.in_players.size) == (12, 4)
    pruned = prune(case.captured, case.coupling, (entering[0], out[1], out[2]))
    assert next(n for n in pruned.graph.nodes if "conv_transpose" in n.name).args[6] == 2
    assert pruned.get_parameter("1.weight").shape[:2] == (6, 4)


def test_the_general_op_is_rewritten_too():
    case = toy(more.transposed_by_its_general_op)
    pruned = prune(case.captured, case.coupling, (7,))
    assert [n.args[8] for n in pruned.graph.nodes if n.name.startswith("convolution")] == [1, 3]


def test_depthwise_on_the_image_stays():
    up = nn.ConvTranspose2d(3, 6, 2, 2, groups=3)
    case = make_case(nn.Sequential(up, nn.Tanh(), conv_bn(6, 5), head(5)))
    frozen = {f.layer: (f.channels, f.op, f.reason) for f in case.coupling.frozen}
    assert frozen["0"] == (6, "conv_transpose2d", "its input channels cannot go")
    assert case.coupling.num_players == 5
    more.check_pruning(case)


def test_a_computed_weight_holds_what_it_touches():
    case = make_case(
        Network(
            lambda m, x: m.head(functional.conv_transpose2d(m.stem(x), m.up.weight * x.mean())),
            stem=conv_bn(3, 8), up=nn.ConvTranspose2d(8, 6, 2, bias=False), head=head(6),
        )
    )  # fmt: skip
    frozen = {f.layer: (f.op, f.reason) for f in case.coupling.frozen}
    assert frozen["stem.0"] == ("conv_transpose2d", "its weight is computed")
    assert case.coupling.num_players == 0


def test_a_recipe_replays_on_a_narrower_decoder():
    module = more.decoder()
    nets.randomise(module, nets.IMAGE)
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    removed = (0, 3, 8, 11, 12, 18)
    recipe = surgery_recipe(coupling, removed)["kept_indices"]
    assert recipe["1.weight"] == {"0": [1, 2, 4, 5, 6, 7], "1": [1, 2, 5]}
    assert recipe["1.bias"] == {"0": [1, 2, 5]}
    state = module.state_dict()
    for name, dims in recipe.items():
        for dim, keep in dims.items():
            state[name] = state[name].index_select(int(dim), torch.tensor(keep))
    narrow = nn.Sequential(
        conv_bn(3, 6, stride=2), nn.ConvTranspose2d(6, 3, 2, 2), nn.GELU(),
        nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1, bias=False), nn.BatchNorm2d(4), nn.GELU(),
        nn.Conv2d(4, 2, 1),
    ).eval()  # fmt: skip
    narrow.load_state_dict(state)
    images = torch.randn(2, *nets.IMAGE)
    with torch.no_grad():
        expected = prune(captured, coupling, removed)(images)
        torch.testing.assert_close(narrow(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "factory",
    [more.decoder, more.decoder_with_skip, more.transposed_grouped, more.transposed_across_branches],
    ids=lambda f: f.__name__,
)
def test_selection_counts_the_same_macs(factory):
    coupling = toy(factory).coupling
    values = np.random.default_rng(0).uniform(0.1, 1.0, coupling.num_players)
    plan = select(values, coupling, ratio=0.3, min_channels=1)
    assert plan.removed
    assert plan.macs_after == coupling.total_macs(coupling.removed_mask(plan.removed))


@pytest.mark.parametrize(
    ("factory", "left", "solved"),
    [
        (more.decoder, ["1", "3"], ["6"]),
        (more.decoder_with_skip, ["up", "last"], ["down.0", "joined.0"]),
        (more.transposed_depthwise_multiplier, [], ["3", "4.2"]),
        (more.transposed_grouped, ["1"], ["3", "4.2"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_recovery_leaves_transposed_layers_alone_and_mends_what_follows(factory, left, solved):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = factory()
        nets.randomise(module, nets.IMAGE)
        images = functional.interpolate(torch.randn(300, 3, 4, 4), size=8, mode="bilinear")
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    removed = tuple(sorted(p for g in coupling.groups for p in g.players[::2][: len(g.players) - 1]))
    pruned = prune(captured, coupling, removed)
    recovered, report = reconstruct(
        captured.graph_module, pruned, coupling, removed, nets.split(images[:200]),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    note = "{} (conv_transpose2d) is of a kind that recovery leaves as it is"
    assert list(report.notes) == [note.format(name) for name in left]
    assert [s.layer for s in report.steps] == solved
    for name, value in pruned.named_parameters():
        if name.removesuffix(".weight") in left:
            assert torch.equal(recovered.get_parameter(name), value)
    with torch.no_grad():
        wanted = captured.graph_module(images[200:])
        before, after = ((m(images[200:]) - wanted).square().mean() for m in (pruned, recovered))
    assert after < before
