"""What normalisation lets go, what it holds and why, on networks counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import more_networks as more
import networks as nets
import pytest
import torch
from networks import Case, Network, compare, conv_bn, head, make_case, toy
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.pruning.surgery import prune, surgery_recipe
from edgeprune.recovery.reconstruction import reconstruct

ALL = pytest.mark.parametrize("factory", more.NORMS, ids=lambda f: f.__name__)
TOGETHER = "normalised together with all other channels: removing some changes the rest"
BY_CHOICE = f"{TOGETHER} (--prune-normalized lets them go)"


def players(case: Case, parameter: str, dim: int = 0) -> list[int]:
    return case.coupling.parameter_players[(parameter, dim)].tolist()


def held(case: Case) -> dict[str, tuple[int, str, str]]:
    return {f.layer: (f.channels, f.op, f.reason) for f in case.coupling.frozen}


@ALL
def test_number_of_players_and_groups(factory):
    coupling = toy(factory).coupling
    assert (coupling.num_players, len(coupling.groups)) == more.NORMS[factory]
    assert {(f.op, f.reason) for f in coupling.frozen} == {("output", "output of the model")}
    assert coupling.unruled_ops == ()


@ALL
def test_masked_equals_pruned_and_macs_are_those_counted(factory):
    more.check_pruning(toy(factory))


def test_a_norm_group_is_one_player_with_its_scale_and_shift():
    case = toy(more.group_norms)
    assert players(case, "0.weight") == players(case, "1.weight") == [0, 0, 1, 1, 2, 2, 3, 3]
    assert players(case, "1.bias") == players(case, "3.weight", 1) == players(case, "0.weight")
    assert players(case, "4.weight") == [4, 4, 5, 5, 6, 6]


@pytest.mark.parametrize("factory", [more.group_norms, more.native_group_norm], ids=lambda f: f.__name__)
def test_the_number_of_norm_groups_becomes_what_remains(factory):
    case = toy(factory)
    pruned = prune(case.captured, case.coupling, (0, 2))
    norm = next(n for n in pruned.graph.nodes if "group_norm" in n.name)
    if "native" in norm.name:
        assert (norm.args[4], norm.args[6]) == (4, 2)
    else:
        assert norm.args[1] == 2


def test_a_norm_group_may_straddle_branches():
    case = toy(more.group_norm_across_branches)
    left, right = players(case, "left.0.weight"), players(case, "right.0.weight")
    assert left == [0, 0, 0, 1, 1]
    assert right == [1, 2, 2, 2, 3, 3, 3]
    assert [len(g.players) for g in case.coupling.groups] == [1, 1, 2, 6]


def test_norms_of_different_groups_that_meet_leave_in_whole_groups_of_both():
    case = toy(more.group_norms_that_meet)
    assert players(case, "stem.weight") == players(case, "second.weight") == [0, 0, 0, 0, 1, 1, 1, 1]


def test_norm_groups_and_convolution_groups_agree_on_what_leaves():
    case = toy(more.group_norm_and_grouped_convolution)
    assert players(case, "0.weight") == [0, 0, 1, 1, 0, 0, 1, 1]
    assert players(case, "3.weight", 1) == [0, 0, 1, 1]


def test_one_channel_that_stays_holds_its_norm_group():
    case = make_case(
        Network(
            lambda m, x: m.head(m.norm(torch.cat([x, m.left(x)], dim=1))),
            left=conv_bn(3, 7), norm=more.group_norm(5, 10), head=head(10),
        )
    )  # fmt: skip
    assert players(case, "left.0.weight") == [NO_PLAYER, 0, 0, 1, 1, 2, 2]
    assert players(case, "norm.weight") == [NO_PLAYER] * 4 + [0, 0, 1, 1, 2, 2]
    more.check_pruning(case)


def test_running_statistics_of_an_instance_norm_leave_with_their_channel():
    case = toy(more.instance_norms)
    assert players(case, "7.running_mean") == players(case, "7.weight") == players(case, "6.weight")
    assert players(case, "10.running_var") == players(case, "9.weight")
    assert not any(name.startswith("1.") for name, _ in case.coupling.parameter_players)


def between(op: Callable[[Network, Tensor], Tensor], **layers: nn.Module) -> Case:
    """Something between two convolutions; the first has 8 channels on 8 x 8 positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_case(
            Network(
                lambda m, x: m.head(m.last(op(m, m.stem(x)))),
                stem=conv_bn(3, 8), last=conv_bn(8, 6), head=head(6), **layers,
            )
        )  # fmt: skip


def on_last(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("op", "layer", "name", "reason"),
    [
        (lambda m, x: m.norm(x), nn.GroupNorm(1, 8), "group_norm", BY_CHOICE),
        (lambda m, x: m.norm(x), nn.LayerNorm([8, 8, 8]), "layer_norm", TOGETHER),
        (lambda m, x: on_last(m.norm, x), nn.LayerNorm(8), "layer_norm", BY_CHOICE),
        (lambda m, x: on_last(m.norm, x), nn.LayerNorm(8, elementwise_affine=False), "layer_norm", BY_CHOICE),
        (lambda m, x: on_last(m.norm, x), nn.RMSNorm(8), "rms_norm", BY_CHOICE),
        (
            lambda m, x: x * x.norm(p=float("inf"), dim=1, keepdim=True),
            nn.Identity(), "linalg_vector_norm", "reduced over",
        ),
        (lambda m, x: m.norm(x), nn.LocalResponseNorm(3), "avg_pool3d", "pooling mixes along this dimension"),
    ],
    ids=["group norm of one group", "layer norm of all", "layer norm of channels", "layer norm without scale",
         "rms norm", "largest of all", "local response norm"],
)  # fmt: skip
def test_channels_normalised_together_stay_and_the_report_says_why(op, layer, name, reason):
    case = between(op, norm=layer)
    assert held(case)["stem.0"] == (8, name, reason)
    assert case.coupling.unruled_ops == ()
    assert case.coupling.num_players == 6
    for row in compare(case, case.removals()):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


def test_statistics_shared_by_a_batch_hold_what_they_touch():
    case = between(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(8, track_running_stats=False))
    assert held(case)["stem.0"][2] == "normalised with the statistics of whichever images share a batch"
    assert case.coupling.num_players == 6


def test_statistics_that_are_used_themselves_hold_the_channels():
    def run(m: Network, x: Tensor) -> Tensor:
        y, mean, _ = torch.ops.aten.native_group_norm(x, None, None, x.shape[0], 8, 64, 4, 1e-5)
        return y + mean.sum(1).view(-1, 1, 1, 1)

    case = between(run)
    assert held(case)["stem.0"] == (8, "native_group_norm", "its statistics are used as well")
    for row in compare(case, case.removals()):
        assert row.deviation < 1e-10


@pytest.mark.parametrize("op", ["native_layer_norm", "layer_norm"])
def test_other_dimensions_than_the_normalised_ones_pass(op):
    def run(m: Network, x: Tensor) -> Tensor:
        if op == "layer_norm":
            return functional.layer_norm(x, [8], m.norm.weight, m.norm.bias)
        return torch.ops.aten.native_layer_norm(x, [8], m.norm.weight, m.norm.bias, 1e-5)[0]

    case = between(run, norm=more.varied(nn.LayerNorm(8)))
    assert case.coupling.num_players == 8 + 6
    more.check_pruning(case)


def test_positions_that_an_instance_norm_would_need_stay():
    """Features of a linear layer as the positions of an instance norm."""
    case = make_case(
        Network(
            lambda m, x: m.last(functional.instance_norm(m.up(m.stem(x).flatten(2))).mean(1)),
            stem=conv_bn(3, 8), up=nn.Linear(64, 12), last=nn.Linear(12, 5),
        )
    )  # fmt: skip
    assert held(case)["up"] == (
        12, "instance_norm", "normalised over this dimension: removing a part changes the rest",
    )  # fmt: skip


def test_a_recipe_replays_on_a_class_with_fewer_norm_groups():
    module = more.group_norms().eval()
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    removed = (1, 6)
    state = module.state_dict()
    for name, dims in surgery_recipe(coupling, removed)["kept_indices"].items():
        for dim, keep in dims.items():
            state[name] = state[name].index_select(int(dim), torch.tensor(keep))
    narrow = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.GELU(), nn.Conv2d(6, 4, 3), nn.GroupNorm(2, 4), nn.GELU(),
        head(4),
    ).eval()  # fmt: skip
    narrow.load_state_dict(state)
    images = torch.randn(2, *nets.IMAGE)
    with torch.no_grad():
        pruned = prune(captured, coupling, removed)(images)
        torch.testing.assert_close(narrow(images), pruned, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(module(images), pruned, atol=1e-3)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6, affine=False), nn.InstanceNorm2d(6), nn.GroupNorm(3, 6)])
def test_layers_before_norms_that_cannot_take_a_shift_are_recovered(norm):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 6, 3), norm, nn.GELU(), head(6)).eval()
        images = functional.interpolate(torch.randn(300, 3, 4, 4), size=8, mode="bilinear")
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    removed = (1, 4, 6)
    pruned = prune(captured, coupling, removed)
    recovered, report = reconstruct(
        captured.graph_module, pruned, coupling, removed, nets.split(images[:200]),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert report.steps[0].layer == "1"
    with torch.no_grad():
        wanted = captured.graph_module(images[200:])
        before, after = ((m(images[200:]) - wanted).square().mean() for m in (pruned, recovered))
    assert after < before
