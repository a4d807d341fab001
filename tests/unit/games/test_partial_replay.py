"""Coalitions that differ in few players: the same values to the bit, with what they share computed once."""

from __future__ import annotations

from collections.abc import Callable

import more_networks
import networks as nets
import numpy as np
import pytest
import torch
from networks import IMAGE
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.choices import CouplingOptions
from edgeprune.capture.capture import capture
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.games import masked_game as replay
from edgeprune.games.channel_statistics import channel_statistics
from edgeprune.games.masked_game import MaskedGame
from edgeprune.pruning.masking import mask_module

IMAGES = 7
FACTORIES = [
    nets.chain,
    nets.residual_add,
    nets.padded_shortcut,
    nets.concat_flatten_linear,
    nets.squeeze_excitation,
    nets.tokens,
    nets.used_twice,
    nets.two_outputs,
    more_networks.group_norms,
]


class Convolutions(TorchDispatchMode):
    """How many ran."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=FACTORIES, ids=lambda f: f.__name__)
def made(request: pytest.FixtureRequest) -> tuple[MaskedGame, tuple[tuple[int, ...], ...]]:
    """A reconstructing game, three batches of images, and its groups."""
    factory: Callable[[], nn.Module] = request.param
    module = factory()
    nets.randomise(module, IMAGE)
    captured = capture(module.eval(), IMAGE)
    coupling = couple(captured, CouplingOptions(prune_normalized=True))
    images = torch.randn(IMAGES, *IMAGE)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    masked = mask_module(captured, coupling, channel_statistics(captured, coupling, images))
    batch = ImageBatch(images=images, labels=torch.arange(IMAGES) % 5)
    game = MaskedGame(masked, coupling.num_players, batch, reference, images_at_once=3)
    assert game.shared_coalition
    return game, tuple(g.players for g in coupling.groups)


def test_the_same_values_and_evaluations(
    made: tuple[MaskedGame, tuple[tuple[int, ...], ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    game, groups = made
    rng, changed = np.random.default_rng(0), 0
    for players in (*groups, range(game.num_players), ()):
        coalitions = np.repeat(rng.random((1, game.num_players)) < 0.8, 6, axis=0)
        coalitions[:, list(players)] = rng.random((6, len(players))) < 0.5
        found = []
        for least in (1, 7):
            monkeypatch.setattr(replay, "_WORTH_CUTTING", least)
            before = game.evaluations
            found.append((game.values(coalitions), game.evaluations - before))
            other = game.on_images(3)  # shares what was cut, and leaves another coalition behind
            np.testing.assert_array_equal(other.values(coalitions), found[0][0][:, :3])
        assert found[0][1] == found[1][1] == 6 * 3
        np.testing.assert_array_equal(found[0][0], found[1][0])
        changed += len(np.unique(found[0][0], axis=0)) > 1
    assert changed > 1


def test_what_comes_before_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture(nets.chain().eval(), IMAGE)
    coupling = couple(captured)
    images = torch.randn(IMAGES, *IMAGE)
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
    masked = mask_module(captured, coupling, channel_statistics(captured, coupling, images))
    game = MaskedGame(masked, coupling.num_players, ImageBatch(images=images, labels=None), reference)
    last = coupling.groups[-1].players
    coalitions = np.ones((8, game.num_players), dtype=bool)
    coalitions[np.arange(8), np.resize(last, 8)] = False
    counted = []
    for least in (1, 9):
        monkeypatch.setattr(replay, "_WORTH_CUTTING", least)
        with Convolutions() as ran:
            game.values(coalitions)
        counted.append(ran.count)
    whole = counted[1] // 8
    assert whole > 0
    assert counted[0] < counted[1]
    assert counted[0] == whole + 7 * (counted[0] - whole) // 7
