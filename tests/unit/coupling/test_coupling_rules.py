"""What each op couples, what enters where, and what is held by whom, on networks counted by hand."""

from __future__ import annotations

import math

import networks as nets
import numpy as np
import pytest
import torch
from networks import Case, Network, conv_bn, head, make_case, toy
from torch import nn
from torch.nn import functional

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, kept_count, kept_positions
from edgeprune.coupling.rules.reductions import BY_CHOICE
from edgeprune.pruning.surgery import prune


def players(case: Case, parameter: str, dim: int) -> list[int]:
    """Players of a parameter's dimension, none where it is not listed."""
    size = case.captured.graph_module.get_parameter(parameter).shape[dim]
    found = case.coupling.parameter_players.get((parameter, dim))
    return [NO_PLAYER] * size if found is None else found.tolist()


def layer(case: Case, name: str):
    return next(x for x in case.coupling.layers if x.name == name)


def held(case: Case) -> dict[str, tuple[int, str, str]]:
    return {f.layer: (f.channels, f.op, f.reason) for f in case.coupling.frozen}


@pytest.mark.parametrize("factory", nets.PLAYERS, ids=lambda f: f.__name__)
def test_number_of_players_and_groups(factory):
    coupling = toy(factory).coupling
    assert (coupling.num_players, len(coupling.groups)) == nets.PLAYERS[factory]
    assert sorted(p for g in coupling.groups for p in g.players) == list(range(coupling.num_players))
    assert coupling.unruled_ops == ()


@pytest.mark.parametrize("factory", nets.PLAYERS, ids=lambda f: f.__name__)
def test_only_the_outputs_of_the_model_stay(factory):
    reasons = {(f.op, f.reason) for f in toy(factory).coupling.frozen}
    assert reasons == {("output", "output of the model")}


@pytest.mark.parametrize("factory", nets.PLAYERS, ids=lambda f: f.__name__)
def test_index_maps_fit_together(factory):
    case = toy(factory)
    coupling = case.coupling
    owner = coupling.group_of_player()
    for number, group in enumerate(coupling.groups):
        assert (owner[list(group.players)] == number).all()
        assert group.layers
    for (name, dim), found in coupling.parameter_players.items():
        assert len(found) == nets_size(case, name, dim)
    masked = {p for point in coupling.mask_points for p in point.players.tolist()} - {NO_PLAYER}
    assert masked == set(range(coupling.num_players))
    for weighted in coupling.layers:
        shape = case.captured.graph_module.get_parameter(weighted.weight).shape
        assert (weighted.out_players.size, weighted.in_players.size) == tuple(shape[:2])


def nets_size(case: Case, name: str, dim: int) -> int:
    value = case.captured.graph_module
    for part in name.split("."):
        value = getattr(value, part)
    return value.shape[dim]


def test_chain_filter_its_norm_and_the_next_layers_input_are_one_player():
    case = toy(nets.chain)
    assert players(case, "0.0.weight", 0) == list(range(8))
    assert players(case, "0.0.weight", 1) == [NO_PLAYER] * 3
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert case.coupling.parameter_players[(f"0.1.{name}", 0)].tolist() == list(range(8))
    assert players(case, "1.0.weight", 1) == list(range(8))
    assert players(case, "2.2.weight", 1) == list(range(8, 14))
    assert players(case, "2.2.weight", 0) == [NO_PLAYER] * 5
    assert [(g.name, g.layers, g.consumers) for g in case.coupling.groups] == [
        ("0.0", ("0.0",), ("1.0",)),
        ("1.0", ("1.0",), ("2.2",)),
    ]


def test_bias_of_a_layer_leaves_with_its_filter():
    case = toy(nets.chain_without_norm)
    assert players(case, "2.bias", 0) == players(case, "2.weight", 0) == list(range(8, 14))


def test_residual_add_couples_both_operands():
    case = toy(nets.residual_add)
    stem = players(case, "stem.0.weight", 0)
    assert stem == players(case, "second.0.weight", 0) == players(case, "first.0.weight", 1)
    assert not set(stem) & set(players(case, "first.0.weight", 0))


def test_padded_shortcut_couples_the_middle_of_the_wider_block():
    case = toy(nets.padded_shortcut)
    narrow, wide = players(case, "0.0.weight", 0), players(case, "1.conv2.weight", 0)
    assert wide[2:8] == narrow
    assert players(case, "2.conv2.weight", 0) == wide
    assert len(set(wide)) == 10


def test_concatenation_joins_in_order():
    case = toy(nets.concat)
    joined = players(case, "left.0.weight", 0) + players(case, "right.0.weight", 0)
    assert players(case, "joined.0.weight", 1) == joined
    assert len(set(joined)) == 10


def test_an_image_in_a_concatenation_has_no_players():
    case = toy(nets.concat_of_image)
    assert players(case, "joined.0.weight", 1) == [*players(case, "left.0.weight", 0), *[NO_PLAYER] * 3]


def test_flatten_gives_each_channel_its_positions():
    case = toy(nets.concat_flatten_linear)
    joined = players(case, "left.0.weight", 0) + players(case, "right.0.weight", 0)
    assert players(case, "classifier.weight", 1) == [p for p in joined for _ in range(16)]


def test_depthwise_passes_each_channel_through():
    case = toy(nets.depthwise)
    stem = players(case, "0.0.weight", 0)
    assert players(case, "1.weight", 0) == players(case, "1.bias", 0) == players(case, "4.weight", 1) == stem
    assert players(case, "1.weight", 1) == [NO_PLAYER]


def test_depthwise_multiplier_keeps_its_filters_together():
    case = toy(nets.depthwise_multiplier)
    stem = players(case, "0.0.weight", 0)
    assert players(case, "4.weight", 1) == [p for p in stem for _ in range(2)]


def test_grouped_convolution_loses_the_same_place_in_every_group():
    case = toy(nets.grouped_convolution)
    entering, out = players(case, "0.0.weight", 0), players(case, "1.weight", 0)
    assert entering[:4] == entering[4:] == players(case, "1.weight", 1)
    assert len(set(entering)) == 4
    assert out[:6] == out[6:] == players(case, "3.0.weight", 1)[:6]
    assert len(set(out)) == 6


def test_channel_shuffle_couples_halves_and_interleaves():
    case = toy(nets.channel_shuffle)
    stem = players(case, "stem.0.weight", 0)
    assert stem[:6] == stem[6:]
    assert players(case, "last.0.weight", 1) == [p for p in stem[:6] for _ in range(2)]


def test_split_and_chunk_follow_their_pieces():
    case = toy(nets.uneven_split)
    stem = players(case, "stem.0.weight", 0)
    assert players(case, "left.0.weight", 1) == stem[:3]
    assert players(case, "right.0.weight", 1) == stem[3:]
    case = toy(nets.chunk_and_concat)
    stem = players(case, "stem.0.weight", 0)
    assert players(case, "last.0.weight", 1) == stem[:6] + players(case, "branch.0.weight", 0)


def test_gate_of_squeeze_and_excitation_belongs_to_its_channels():
    case = toy(nets.squeeze_excitation)
    assert players(case, "stem.0.weight", 0) == players(case, "expand.weight", 0)
    assert players(case, "squeeze.weight", 1) == players(case, "stem.0.weight", 0)
    assert len({p.source for p in case.coupling.mask_points}) == len(case.coupling.mask_points) == 4


def test_a_shared_layer_is_one_player_and_counted_twice():
    case = toy(nets.used_twice)
    assert [x.name for x in case.coupling.layers] == ["stem.0", "shared.0", "shared.0@2", "head.2"]
    assert players(case, "shared.0.weight", 0) == players(case, "shared.0.weight", 1)


def test_pixel_shuffle_needs_all_filters_of_a_new_channel():
    case = toy(nets.pixel_shuffle)
    out = players(case, "0.0.weight", 0)
    assert out == [p for p in out[::4] for _ in range(4)]
    assert players(case, "2.0.weight", 1) == out[::4]


def test_scale_parameters_and_prelu_slopes_leave_with_their_channels():
    case = toy(nets.layer_scale)
    assert players(case, "scale", 0) == players(case, "stem.0.weight", 0)
    case = toy(nets.prelu)
    assert players(case, "1.weight", 0) == players(case, "0.weight", 0)
    assert players(case, "3.weight", 0) == [NO_PLAYER]


def test_channels_padded_with_a_constant_stay():
    case = toy(nets.channel_padding_with_a_constant)
    entering = players(case, "last.0.weight", 1)
    assert entering == [NO_PLAYER, *players(case, "stem.0.weight", 0), NO_PLAYER, NO_PLAYER]


def test_linear_layers_on_the_last_dimension():
    case = toy(nets.tokens)
    assert players(case, "up.weight", 1) == players(case, "stem.0.weight", 0)
    assert players(case, "head.weight", 1) == players(case, "up.weight", 0)


def test_channels_used_in_two_ways_are_two_groups_of_one_layer():
    groups = [g for g in toy(nets.half_of_the_channels).coupling.groups if g.layers == ("stem.0",)]
    assert [(g.name, len(g.players)) for g in groups] == [("stem.0", 4), ("stem.0#2", 4)]


def middle(op, channels: int = 8, **layers: nn.Module) -> Case:
    """A network with ``op`` on the channels between two convolutions."""
    return make_case(
        Network(
            lambda m, x: m.head(m.last(op(m, m.stem(x)))),
            stem=conv_bn(3, channels),
            last=conv_bn(channels, 6),
            head=head(6),
            **layers,
        )
    )


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda m, x: x.cumsum(1), "cumsum"),
        (lambda m, x: functional.softmax(x, dim=1), "softmax"),
        (lambda m, x: functional.local_response_norm(x, 3), None),
        (lambda m, x: functional.group_norm(x, 2), "group_norm"),
        (lambda m, x: x.roll(1, 1), "roll"),
        (lambda m, x: x.sort(dim=1).values, "sort"),
    ],
    ids=["cumsum", "softmax", "local_response_norm", "group_norm", "roll", "sort"],
)
def test_an_op_that_mixes_channels_holds_them_and_is_never_silently_wrong(op, name):
    case = middle(op)
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
    assert players(case, "last.0.weight", 0) != [NO_PLAYER] * 6
    if name is None or name not in str(case.coupling.unruled_ops):
        return
    channels, op_name, reason = held(case)["stem.0"]
    assert (channels, reason) == (8, "no rule for this op")
    assert name in op_name


def test_an_op_without_a_rule_is_listed_with_its_node_and_reason():
    case = middle(lambda m, x: x.cumsum(1))
    assert case.coupling.unruled_ops == ("cumsum (cumsum)",)
    frozen = next(f for f in case.coupling.frozen if f.layer == "stem.0")
    assert (frozen.op, frozen.node, frozen.reason) == ("cumsum", "cumsum", "no rule for this op")
    assert case.coupling.num_players == 6


def test_an_op_without_a_rule_on_the_image_is_not_listed():
    case = make_case(Network(lambda m, x: m.head(m.stem(x.cumsum(1))), stem=conv_bn(3, 8), head=head(8)))
    assert case.coupling.unruled_ops == ()
    assert case.coupling.num_players == 8


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (lambda m, x: x + x.mean(1, keepdim=True), f"mean over it: {BY_CHOICE}"),
        (lambda m, x: x.flip(1) + x, None),
        (lambda m, x: m.up(x), None),
        (lambda m, x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])], None),
        (lambda m, x: x * torch.linspace(0.5, 1, 8).view(1, 8, 1, 1), None),
        (lambda m, x: torch.stack([x, -x], 1).amax(1), None),
        (lambda m, x: x - x[:, :1], None),
        (lambda m, x: torch.where(x > 0.3, x, x.new_full((), 0.3)), None),
        (lambda m, x: x * m.weight(x.mean((2, 3)).mean(0)).view(1, 8, 1, 1), None),
    ],
    ids=[
        "mean over channels",
        "flip",
        "transposed convolution",
        "index",
        "constant scale",
        "stack",
        "one channel of all",
        "where",
        "mixed images",
    ],
)
def test_awkward_ops_stay_exact(op, reason):
    case = middle(op, up=nn.ConvTranspose2d(8, 8, 1), weight=nn.Linear(8, 8))
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10
    if reason is not None:
        assert held(case)["stem.0"][2] == reason


def test_rows_that_are_positions_of_all_images_can_be_masked():
    """A linear layer over the positions of all images at once: each row gets its image's mask."""
    case = make_case(
        Network(
            lambda m, x: m.head(m.up(m.stem(x).permute(0, 2, 3, 1).reshape(-1, 8)).view(-1, 64, 12).mean(1)),
            stem=conv_bn(3, 8),
            up=nn.Linear(8, 12),
            head=nn.Linear(12, 5),
        )
    )
    assert case.coupling.num_players == 8 + 12
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10


def test_channels_folded_into_the_batch_stay():
    case = make_case(
        Network(
            lambda m, x: m.head(m.single(m.stem(x).reshape(-1, 1, 8, 8)).view(-1, 16, 8, 8)),
            stem=conv_bn(3, 8),
            single=conv_bn(1, 2),
            head=head(16),
        )
    )
    assert held(case)["stem.0"][2] == "channels are folded into the batch"
    for row in nets.compare(case, case.removals()):
        assert row.deviation < 1e-10


def test_a_network_without_players_is_described_and_pruned_by_nothing():
    case = make_case(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    assert case.coupling.num_players == 0
    assert case.coupling.groups == case.coupling.mask_points == ()
    assert case.coupling.total_macs() == 192 * 5
    assert held(case) == {"1": (5, "output", "output of the model")}
    with torch.no_grad():
        expected = case.captured.graph_module(case.images)
        torch.testing.assert_close(prune(case.captured, case.coupling, ())(case.images), expected)


def test_a_layer_whose_output_is_never_consumed_by_another_stays():
    case = make_case(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    assert held(case) == {"2": (2, "output", "output of the model")}


def test_kept_positions_and_counts_agree_with_counting_by_hand():
    indices = np.array([NO_PLAYER, 0, 1, 1, NO_PLAYER, 2])
    removed = np.array([False, True, False])
    assert kept_positions(indices, removed).tolist() == [0, 1, 4, 5]
    assert kept_count(indices, removed) == 4
    nobody = np.zeros(0, dtype=bool)
    frozen = np.full(3, NO_PLAYER)
    assert kept_positions(frozen, nobody).tolist() == [0, 1, 2]
    assert kept_count(frozen, nobody) == 3


def parameters_left(coupling: CouplingGraph, case: Case, removed: tuple[int, ...]) -> int:
    return sum(p.numel() for p in prune(case.captured, coupling, removed).parameters())


@pytest.mark.parametrize(
    ("factory", "layer_name"),
    [
        (nets.chain, "0.0"),
        (nets.chain, "1.0"),
        (nets.residual_add, "stem.0"),
        (nets.residual_add, "first.0"),
        (nets.concat, "left.0"),
        (nets.concat, "right.0"),
        (nets.depthwise, "0.0"),
        (nets.squeeze_excitation, "squeeze"),
        (nets.two_outputs, "stem.0"),
        (nets.fixed_view, "first"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_as_many_parameters_go_as_with_torch_pruning(factory, layer_name):
    oracle = pytest.importorskip("torch_pruning")
    case = toy(factory)
    channels = [1, 3]
    chosen = case.coupling.layers[[x.name for x in case.coupling.layers].index(layer_name)]
    removed = tuple(int(p) for p in chosen.out_players[channels])
    module = factory().eval()
    graph = oracle.DependencyGraph().build_dependency(module, torch.randn(2, *nets.IMAGE))
    target = module.get_submodule(layer_name)
    kind = (
        oracle.prune_linear_out_channels if isinstance(target, nn.Linear) else oracle.prune_conv_out_channels
    )
    graph.get_pruning_group(target, kind, idxs=channels).prune()
    expected = sum(math.prod(p.shape) for p in module.parameters())
    assert parameters_left(case.coupling, case, removed) == expected
