"""Pruning equals masking, costs what was counted, leaves the original alone, and can be replayed by hand."""

from __future__ import annotations

import json

import networks as nets
import numpy as np
import pytest
import torch
from networks import Network, compare, conv_bn, counted_macs, distance, head, make_case, toy
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.pruning.masking import ChannelReconstruction, full_masks, mask_module
from edgeprune.pruning.surgery import prune, surgery_recipe

ALL = pytest.mark.parametrize("factory", nets.PLAYERS, ids=lambda f: f.__name__)


@ALL
def test_masked_equals_pruned_for_every_group_and_all_together(factory):
    case = toy(factory)
    removals = case.removals()
    assert len(removals) == len(case.coupling.groups) + 1
    for row in compare(case, removals):
        assert row.deviation < 1e-10
        assert row.effect > 1e-6


@ALL
def test_macs_are_those_that_torch_counts(factory):
    case = toy(factory)
    for removed in ((), *case.removals()):
        gone = case.coupling.removed_mask(removed)
        pruned = prune(case.captured, case.coupling, removed)
        assert case.coupling.total_macs(gone) == counted_macs(pruned, case.images)
    assert case.coupling.total_macs() == case.coupling.total_macs(case.coupling.removed_mask(()))


@ALL
def test_one_channel_of_a_group_is_enough_to_go_on_with(factory):
    case = toy(factory)
    removals = [g.players[1:] for g in case.coupling.groups if len(g.players) > 1]
    for row in compare(case, removals):
        assert row.deviation < 1e-10


@ALL
def test_a_pruned_network_takes_any_batch_size(factory):
    case = toy(factory)
    pruned = prune(case.captured, case.coupling, case.removals()[-1])
    with torch.no_grad():
        two = tensor_leaves(pruned(case.images))
        five = tensor_leaves(pruned(case.images.repeat(3, 1, 1, 1)[:5]))
    assert distance(two, [t[:2] for t in five]) < 1e-10
    assert all(len(t) == 5 for t in five)


@ALL
def test_removing_nobody_changes_nothing(factory):
    case = toy(factory)
    with torch.no_grad():
        original = tensor_leaves(case.captured.graph_module(case.images))
        pruned = tensor_leaves(prune(case.captured, case.coupling, ())(case.images))
        masks = full_masks(len(case.images), case.coupling.num_players, dtype=torch.float64)
        masked = tensor_leaves(mask_module(case.captured, case.coupling)(case.images, masks))
    assert distance(original, pruned) == 0.0
    assert distance(original, masked) < 1e-14


def test_the_captured_network_is_not_changed():
    case = toy(nets.residual_add)
    module = case.captured.graph_module
    state = {k: v.clone() for k, v in module.state_dict().items()}
    code = module.code
    pruned = prune(case.captured, case.coupling, case.removals()[-1])
    for value in pruned.state_dict().values():
        value.zero_()
    mask_module(case.captured, case.coupling)
    assert module.code == code
    assert module.state_dict().keys() == state.keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_change_of_the_captured_network_does_not_show_in_the_pruned_one():
    case = make_case(nets.residual_add())  # not the one that all tests share
    pruned = prune(case.captured, case.coupling, case.removals()[-1])
    state = {k: v.clone() for k, v in pruned.state_dict().items()}
    module = case.captured.graph_module
    kept_whole = [k for k, v in module.state_dict().items() if v.shape == state[k].shape]
    assert kept_whole
    for value in module.state_dict().values():
        value.zero_()
    assert all(torch.equal(v, state[k]) for k, v in pruned.state_dict().items())


def test_shared_tensors_are_those_that_lose_nothing():
    case = toy(nets.residual_add)
    removed = case.removals()[-1]
    copied = prune(case.captured, case.coupling, removed)
    shared = prune(case.captured, case.coupling, removed, share_unchanged=True)
    images = torch.randn((2, *case.captured.input_shape), dtype=torch.float64)
    assert torch.equal(copied(images), shared(images))
    original = dict(case.captured.graph_module.named_parameters())
    for name, value in shared.named_parameters():
        assert (value is original[name]) == (value.shape == original[name].shape)


def test_what_leaves_is_never_copied():
    case = toy(nets.chain)
    before = sum(p.numel() for p in case.captured.graph_module.parameters())

    class Made(TorchDispatchMode):
        """Counts the elements of every new tensor."""

        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if function._schema.name in ("aten::clone", "aten::index_select"):
                self.elements += found.numel()
            return found

    with Made() as made:
        pruned = prune(case.captured, case.coupling, case.removals()[-1])
    assert sum(p.numel() for p in pruned.parameters()) <= made.elements < 0.8 * before


def test_each_image_has_its_own_mask():
    case = toy(nets.concat)
    removed = [case.removal(0), case.removal(2)]
    masks = full_masks(2, case.coupling.num_players, dtype=torch.float64)
    masks[0, list(removed[0])] = 0
    masks[1, list(removed[1])] = 0
    with torch.no_grad():
        together = mask_module(case.captured, case.coupling)(case.images, masks)
        alone = [prune(case.captured, case.coupling, r)(case.images) for r in removed]
    assert distance([together[0]], [alone[0][0]]) < 1e-10
    assert distance([together[1]], [alone[1][1]]) < 1e-10


def test_kept_weights_are_the_original_ones():
    case = toy(nets.chain)
    removed = (0, 3, 9)
    pruned = prune(case.captured, case.coupling, removed).state_dict()
    state = case.captured.graph_module.state_dict()
    keep = [1, 2, 4, 5, 6, 7]
    assert torch.equal(pruned["0.0.weight"], state["0.0.weight"][keep])
    assert torch.equal(pruned["0.1.running_var"], state["0.1.running_var"][keep])
    assert torch.equal(pruned["1.0.weight"], state["1.0.weight"][[0, 2, 3, 4, 5]][:, keep])


def test_a_recipe_replays_on_the_users_own_class():
    """Kept indices applied to the user's state_dict fit the same class with fewer channels."""
    module = nets.chain()
    nets.randomise(module, nets.IMAGE)
    captured = capture(module, nets.IMAGE)
    coupling = couple(captured)
    removed = (1, 4, 10)
    recipe = json.loads(json.dumps(surgery_recipe(coupling, removed)))
    assert recipe["schema_version"] == "1.2"
    assert recipe["kept_indices"]["0.0.weight"] == {"0": [0, 2, 3, 5, 6, 7]}
    assert recipe["kept_indices"]["1.0.weight"] == {"0": [0, 1, 3, 4, 5], "1": [0, 2, 3, 5, 6, 7]}
    state = module.state_dict()
    for name, dims in recipe["kept_indices"].items():
        for dim, keep in dims.items():
            state[name] = state[name].index_select(int(dim), torch.tensor(keep))
    narrow = nn.Sequential(conv_bn(3, 6), conv_bn(6, 5), head(5)).eval()
    narrow.load_state_dict(state)
    images = torch.randn(2, *nets.IMAGE)
    with torch.no_grad():
        expected = prune(captured, coupling, removed)(images)
        torch.testing.assert_close(narrow(images), expected, rtol=1e-5, atol=1e-6)


def test_a_recipe_names_only_what_changes():
    case = toy(nets.chain)
    assert surgery_recipe(case.coupling, ())["kept_indices"] == {}
    assert set(surgery_recipe(case.coupling, (8,))["kept_indices"]) == {
        "1.0.weight", "1.1.weight", "1.1.bias", "1.1.running_mean", "1.1.running_var", "2.2.weight",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["channel_shuffle", "chunk_and_concat", "padded_shortcut", "fixed_view"])
def test_random_subsets_of_players(name, seed):
    case = toy(getattr(nets, name))
    rng = np.random.default_rng(seed)
    removed = []
    for group in case.coupling.groups:
        count = int(rng.integers(0, len(group.players)))
        removed += rng.choice(group.players, count, replace=False).tolist()
    (row,) = compare(case, [tuple(sorted(removed))])
    assert row.deviation < 1e-10


def test_a_strided_slice_of_channels_keeps_the_right_ones():
    case = make_case(
        Network(
            lambda m, x: m.head(m.last(torch.cat([(y := m.stem(x))[:, ::2], m.branch(y)], 1))),
            stem=conv_bn(3, 8), branch=conv_bn(8, 4), last=conv_bn(8, 6), head=head(6),
        )
    )  # fmt: skip
    removals = [*case.removals(), (1,), (0, 1, 2), (2, 5, 7)]
    for row in compare(case, removals):
        assert row.deviation < 1e-10


def test_a_value_read_by_several_layers_is_masked_for_each():
    case = make_case(
        Network(
            lambda m, x: m.head(torch.cat([m.left(y := m.stem(x)), m.right(y)], 1)),
            stem=conv_bn(3, 8), left=conv_bn(8, 4), right=nn.Conv2d(8, 3, 3, padding=1), head=head(7),
        )
    )  # fmt: skip
    for row in compare(case, case.removals()):
        assert row.deviation < 1e-10


@pytest.mark.parametrize("absent", [[], [2], [2, 4], [0, 2, 4], [0, 1, 3, 4]], ids=str)
def test_a_reconstructing_point_tells_the_leave_one_out_residual(absent: list[int]) -> None:
    """Absent channels become their regression on the present; slopes are what only that channel adds."""
    rows = torch.randn(400, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    rows = rows - rows.mean(0)
    statistics = (torch.zeros(5), rows.T @ rows / 400)
    point = ChannelReconstruction(torch.arange(5), 1, BatchLayout(), statistics, 1e-9)
    present = torch.ones(6, dtype=torch.bool)
    present[absent] = False
    members = [player for player in range(5) if player not in absent]
    for coalition in (present, ~present | torch.tensor([False] * 5 + [True]), present):
        point.set_coalition(coalition)  # what another coalition left behind must not show
    masks = torch.zeros(400, 6, requires_grad=True)
    rebuilt = point(rows.float(), masks)

    def regressed(targets: list[int], on: list[int]) -> torch.Tensor:
        return rows[:, on] @ torch.linalg.lstsq(rows[:, on], rows[:, targets]).solution

    expected = rows.clone()
    expected[:, absent] = regressed(absent, members)
    torch.testing.assert_close(rebuilt.detach(), expected.float(), atol=1e-3, rtol=1e-3)
    (slopes,) = torch.autograd.grad(rebuilt.sum(), masks)
    for player in range(5):
        others = [m for m in members if m != player]
        left = rows[:, player] - (regressed([player], others)[:, 0] if others else 0.0)
        torch.testing.assert_close(slopes[:, player], left.float(), atol=1e-3, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(point(rows.float(), masks), rebuilt.detach())
