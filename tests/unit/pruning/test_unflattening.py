"""Mask points of flattened maps are moved to the maps: the same masking, fewer channels to reconstruct."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.commands.run.scoring import context_of_network
from edgeprune.coupling.unflattening import at_maps
from edgeprune.fx import tensor_leaves
from edgeprune.importance.ranking import RankingOptions, rank
from edgeprune.pruning.masking import ChannelMask, ChannelReconstruction, full_masks, mask_module
from edgeprune.pruning.surgery import prune

SIDE = 4


class Flattened(nn.Module):
    """Two convolutions and a linear layer behind ``flatten``."""

    def __init__(self, flatten, *, twice: bool = False) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(SIDE),
        )
        self.flatten = flatten
        self.head = nn.Linear(8 * SIDE * SIDE, 5)
        self.other = nn.Linear(8 * SIDE * SIDE, 5) if twice else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.flatten(self.maps(x))
        return self.head(flat) if self.other is None else self.head(flat) + self.other(flat)


FLATTENINGS = {
    "flatten": lambda x: x.flatten(1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "in two steps": lambda x: x.view(x.shape[0], 8, SIDE * SIDE).flatten(1),
}


@pytest.mark.parametrize("twice", [False, True], ids=["one reader", "two readers"])
@pytest.mark.parametrize("flatten", FLATTENINGS.values(), ids=FLATTENINGS.keys())
def test_masked_at_the_maps_equals_pruned(flatten, twice):
    case = nets.make_case(Flattened(flatten, twice=twice))
    coupling = at_maps(case.captured, case.coupling)
    assert max(p.players.size for p in coupling.mask_points) == 8
    removed = (1, 3, 7, 9, 13)
    masks = full_masks(len(case.images), case.coupling.num_players, dtype=case.images.dtype)
    masks[:, list(removed)] = 0.0
    with torch.no_grad():
        masked = tensor_leaves(mask_module(case.captured, coupling)(case.images, masks))[0]
        as_before = tensor_leaves(mask_module(case.captured, case.coupling)(case.images, masks))[0]
        pruned = tensor_leaves(prune(case.captured, case.coupling, removed)(case.images))[0]
    torch.testing.assert_close(masked, pruned, rtol=0, atol=1e-10)
    torch.testing.assert_close(masked, as_before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "module",
    [
        Flattened(lambda x: x.permute(0, 2, 3, 1).flatten(1)),
        Flattened(lambda x: torch.sigmoid(x.flatten(1))),
    ],
    ids=["channels last", "changed afterwards"],
)
def test_points_stay_where_the_order_or_the_values_change(module):
    case = nets.make_case(module)
    assert max(p.players.size for p in at_maps(case.captured, case.coupling).mask_points) == 8 * SIDE * SIDE


def test_points_stay_where_something_else_reads_the_flattened_map():
    class Read(Flattened):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            flat = self.flatten(self.maps(x))
            return self.head(flat), flat.square().sum(1)

    case = nets.make_case(Read(FLATTENINGS["flatten"]))
    sizes = {p.players.size for p in at_maps(case.captured, case.coupling).mask_points}
    assert sizes == {p.players.size for p in case.coupling.mask_points}


def test_the_game_with_recovery_reconstructs_the_maps():
    """Eight channels instead of 128 positions; a channel that doubles another costs next to nothing."""
    torch.manual_seed(0)
    module = Flattened(FLATTENINGS["flatten"]).eval()
    last = module.maps[2]
    with torch.no_grad():
        last.weight[5], last.bias[5] = last.weight[2], last.bias[2]
    case = nets.make_case(module)
    captured = case.captured
    captured.graph_module.float()
    pixels = torch.randn(96, *nets.IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(pixels))
    batch = ImageBatch(images=pixels, labels=None)
    game = context_of_network(captured, case.coupling, batch, reference, ratio=0.25).recovery_game
    kinds = [m for m in game._masked.modules() if isinstance(m, (ChannelMask, ChannelReconstruction))]
    assert {type(m) for m in kinds} == {ChannelReconstruction}
    assert max(len(m.players) for m in kinds) == 8
    everyone = np.ones((1, game.num_players), dtype=bool)
    without = everyone.copy()
    players = [g.players for g in case.coupling.groups if len(g.players) == 8]
    without[0, players[0][5]] = False
    np.testing.assert_allclose(game.values(without), game.values(everyone), atol=2e-2)
    options = RankingOptions(samples=64, cost_samples=128, cost_q_low=1.0, exact_players=0)
    found = rank(game, case.coupling.groups, rng=np.random.default_rng(0), options=options)
    assert int(np.argmin(found.removal_costs[list(players[0])])) in (2, 5)
