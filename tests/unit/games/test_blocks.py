"""Residual blocks as players: found by their shape in the graph, removed as if written without the branch."""

from __future__ import annotations

import networks as nets
import numpy as np
import pytest
import torch
from networks import Network, conv_bn, head
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.errors import NothingToPruneError
from edgeprune.games.block_game import BlockGame, find_blocks
from edgeprune.shapley.estimators.exact import CoalitionTable
from edgeprune.shapley.game import all_coalitions

IMAGES = 6


class Block(nn.Module):
    """A branch of two convolutions, and a shortcut that is padded, projected or bare."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projected: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.project = nn.Conv2d(inputs, outputs, 1, stride) if projected else None
        self.pad = outputs - inputs if not projected else 0
        self.stride = stride
        self.removed = False

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.project is None else self.project(x)
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.pad))
        if self.removed:
            return functional.relu(shortcut)
        return functional.relu(shortcut + self.conv2(functional.relu(self.conv1(x))))


def network() -> nn.Sequential:
    blocks = [Block(4, 4, 1), Block(4, 6, 2), Block(6, 8, 1, projected=True), Block(8, 8, 1)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *blocks, head(8))


def batch() -> ImageBatch:
    images = torch.randn(IMAGES, *nets.IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return ImageBatch(images=images, labels=torch.arange(IMAGES) % 5)


def game_and_network(**options: int) -> tuple[BlockGame, nn.Sequential]:
    module = network()
    case = nets.make_case(module, trained=True)
    images = batch()
    with torch.no_grad():
        reference = [case.captured.graph_module(images.images)]
    return BlockGame(case.captured, images, reference, **options), module.double()


def test_blocks_are_found_by_branch_and_shortcut() -> None:
    game, _ = game_and_network()
    assert [b.name for b in game.blocks] == ["2", "3", "4", "5"]
    assert game.num_players == 4
    assert not game.is_linear


@pytest.mark.parametrize("options", [{}, {"memory_limit_bytes": 60_000}], ids=["free", "tight"])
def test_an_absent_block_is_a_network_without_its_branch(options: dict[str, int]) -> None:
    game, module = game_and_network(**options)
    coalitions = all_coalitions(4)
    found = game.values(coalitions)
    images = batch()
    for coalition, values in zip(coalitions, found, strict=True):
        for block, present in zip(module[2:6], coalition, strict=True):
            block.removed = not present
        with torch.no_grad():
            loss = functional.cross_entropy(module(images.images), images.labels, reduction="none")
        np.testing.assert_allclose(values, -loss.numpy(), atol=1e-10)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_nine_blocks_have_exact_values_that_sum_to_the_gain() -> None:
    torch.manual_seed(0)
    widths = [4, 4, 4, 6, 6, 6, 8, 8, 8]
    blocks = [
        nets.ResidualBlock(before, after, 1 if before == after else 2)
        for before, after in zip([4, *widths], widths, strict=False)
    ]
    case = nets.make_case(nn.Sequential(conv_bn(3, 4), *blocks, head(8)))
    images = batch()
    with torch.no_grad():
        reference = [case.captured.graph_module(images.images)]
    game = BlockGame(case.captured, images, reference)
    assert game.num_players == 9
    table = CoalitionTable.of(game)
    np.testing.assert_allclose(table.shapley().sum(axis=0), table.values[-1] - table.values[0], atol=1e-10)


def test_some_of_the_blocks_can_play_alone() -> None:
    game, module = game_and_network()
    case = nets.make_case(module.float(), trained=True)
    images = batch()
    with torch.no_grad():
        reference = [case.captured.graph_module(images.images)]
    chosen = BlockGame(case.captured, images, reference, blocks=find_blocks(case.captured)[1:3])
    whole = np.ones((4, 4), dtype=bool)
    whole[:, 1:3] = all_coalitions(2)
    np.testing.assert_allclose(chosen.values(all_coalitions(2)), game.values(whole), atol=1e-10)


def test_transformer_blocks_are_two_each() -> None:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x).flatten(2).transpose(1, 2)
        y = y + m.attention(n := m.norm1(y), n, n, need_weights=False)[0]
        y = y + m.second(functional.gelu(m.first(m.norm2(y))))
        return m.out(y.mean(1))

    module = Network(
        run, stem=nn.Conv2d(3, 8, 4, 4), norm1=nn.LayerNorm(8), norm2=nn.LayerNorm(8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True), first=nn.Linear(8, 12),
        second=nn.Linear(12, 8), out=nn.Linear(8, 5),
    )  # fmt: skip
    case = nets.make_case(module, trained=True)
    images = batch()
    with torch.no_grad():
        reference = [case.captured.graph_module(images.images)]
    game = BlockGame(case.captured, images, reference)
    assert game.num_players == 2
    found = game.values(all_coalitions(2))
    module.double()
    with torch.no_grad():
        bare = module.out(module.stem(images.images).flatten(2).mean(2))
        loss = functional.cross_entropy(bare, images.labels, reduction="none")
    np.testing.assert_allclose(found[0], -loss.numpy(), atol=1e-10)


def equal_branches() -> nn.Module:
    return Network(
        lambda m, x: m.head(m.left(y := m.stem(x)) + m.right(y)),
        stem=conv_bn(3, 8), left=conv_bn(8, 6), right=conv_bn(8, 6), head=head(6),
    )  # fmt: skip


@pytest.mark.parametrize("factory", [equal_branches, nets.chain, nets.concat], ids=lambda f: f.__name__)
def test_networks_without_shortcuts_have_no_blocks(factory) -> None:
    case = nets.toy(factory)
    assert find_blocks(case.captured) == ()
    images = batch()
    with pytest.raises(NothingToPruneError, match="has no residual blocks"):
        BlockGame(case.captured, images, [case.captured.graph_module(images.images)])


def test_a_scaled_branch_is_still_a_branch() -> None:
    (block,) = find_blocks(nets.toy(nets.layer_scale).captured)
    assert block.shortcut == block.start
