"""Dropped residual blocks: exact against masking, recovered by what follows, costed by what is left."""

from __future__ import annotations

from dataclasses import replace

import networks as nets
import numpy as np
import pytest
import torch
from test_blocks import Block, network
from torch import nn

from edgeprune.artifacts.coupling import NO_PLAYER
from edgeprune.artifacts.pruning import Ranking
from edgeprune.commands.search.block_removal import projected, restricted
from edgeprune.coupling.coupling import couple
from edgeprune.games.block_game import block_module, find_blocks
from edgeprune.games.dropped_blocks import drop_blocks
from edgeprune.pruning.masking import full_masks
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.selection import Widths, macs_model


@pytest.fixture(scope="module")
def case() -> nets.Case:
    """Captured once; nobody changes it."""
    torch.manual_seed(0)
    return nets.make_case(network(), trained=True)


@pytest.mark.parametrize("dropped", [(0,), (1,), (2,), (3,), (0, 3), (1, 2)])
def test_dropping_equals_masking_and_channels_can_be_pruned_after_it(
    case: nets.Case, dropped: tuple[int, ...]
) -> None:
    blocks = find_blocks(case.captured)
    chosen = [blocks[i] for i in dropped]
    images = torch.randn(4, *nets.IMAGE, dtype=torch.float64)
    masks = full_masks(4, len(blocks), dtype=torch.float64)
    masks[:, list(dropped)] = 0.0
    expected = block_module(case.captured, blocks)(images, masks)
    without = drop_blocks(case.captured, chosen)
    torch.testing.assert_close(without.graph_module(images), expected, rtol=0, atol=1e-12)
    coupling = couple(without)
    assert coupling.total_macs() < case.coupling.total_macs()
    removed = tuple(g.players[0] for g in coupling.groups if len(g.players) > 2)
    assert prune(without, coupling, removed)(images).shape == expected.shape


def test_later_layers_make_up_for_a_missing_block() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), Block(6, 6, 1), Block(6, 6, 1), nets.head(6)
    )
    with torch.no_grad():
        module[2].conv2.weight.mul_(0.5)
    case = nets.make_case(module)
    case.captured.graph_module.float()
    first, _ = find_blocks(case.captured)
    without = drop_blocks(case.captured, [first])
    coupling = couple(without)
    images = torch.randn(200, *nets.IMAGE)
    bare = prune(without, coupling, ())

    def recovered(changed: frozenset[str]) -> nn.Module:
        return reconstruct(
            case.captured.graph_module, bare, coupling, (), nets.split(images),
            generator=torch.Generator().manual_seed(0), changed=changed,
        )[0]  # fmt: skip

    others = torch.randn(200, *nets.IMAGE)
    wanted = case.captured.graph_module(others)
    before = float((bare(others) - wanted).square().mean())
    after = float((recovered(frozenset({first.add}))(others) - wanted).square().mean())
    assert after < 0.7 * before
    assert torch.equal(recovered(frozenset())(others), bare(others))


def test_costs_and_rankings_of_the_whole_hold_for_what_is_left(case: nets.Case) -> None:
    whole = case.coupling
    without = couple(drop_blocks(case.captured, [find_blocks(case.captured)[3]]))
    model = restricted(replace(macs_model(whole), fixed=7.0), whole, without)
    assert Widths(without, [model]).totals()[0] == without.total_macs() + 7.0

    numbered = np.arange(float(whole.num_players))
    ranking = projected(a_ranking(numbered), whole, without)
    by_node = {layer.node: layer.out_players for layer in whole.layers}
    assert len(ranking.removal_costs) == without.num_players < whole.num_players
    for layer in without.layers:
        mine = layer.out_players != NO_PLAYER
        known = by_node[layer.node][mine]
        np.testing.assert_array_equal(ranking.removal_costs[layer.out_players[mine]], numbered[known])


def test_a_channel_that_was_never_valued_counts_as_the_dearest(case: nets.Case) -> None:
    without = couple(drop_blocks(case.captured, [find_blocks(case.captured)[3]]))
    layer = next(x for x in without.layers if x.node == find_first_inner(case))
    alone = layer.out_players[layer.out_players != NO_PLAYER]
    missing = set(case.coupling.layers[1].out_players.tolist())
    unknown = {
        key: np.where(np.isin(players, list(missing)), NO_PLAYER, players)
        for key, players in case.coupling.parameter_players.items()
    }
    values = np.arange(float(case.coupling.num_players))
    found = projected(a_ranking(values), replace(case.coupling, parameter_players=unknown), without)
    assert len(alone)
    assert (found.removal_costs[alone] == values.max()).all()


def find_first_inner(case: nets.Case) -> str:
    """Node of the first layer inside the first block: its channels are in no other layer's output."""
    return case.coupling.layers[1].node


def a_ranking(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Ranking:
    return Ranking(
        criterion="hybrid", values=values, standard_errors=values, removal_costs=values, evaluations=1,
        images=1, duration_s=0.0, choice="made up", loss="loss",
    )  # fmt: skip
