"""A GPU whose memory is too small for a batch is given smaller ones, and the figures stay the same."""

from __future__ import annotations

import gc
import logging

import networks as nets
import numpy as np
import pytest
import torch
from simulated_gpu import is_asked, simulated_gpu

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.capture.capture import capture
from edgeprune.commands.run.scoring import context_of_network
from edgeprune.coupling.coupling import couple
from edgeprune.fx import tensor_leaves
from edgeprune.games.block_game import BlockGame
from edgeprune.games.layer_game import LayerGame
from edgeprune.importance.ranking import options_for, rank
from edgeprune.importance.registry import criterion
from edgeprune.parity import run_torch
from edgeprune.pruning.surgery import prune
from edgeprune.recovery.distillation.training import DistillationOptions, distill
from edgeprune.recovery.reconstruction import reconstruct
from edgeprune.recovery.solving.layers import RecoveryOptions

pytestmark = pytest.mark.skipif(not is_asked(), reason="runs by test_simulated_gpus.py")

IMAGES = 40
SHAPE = (3, 24, 24)
SHARE = 0.6
"""Of the memory that a stage takes where there is enough."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    module = nets.residual_add()
    nets.randomise(module, SHAPE)
    captured = capture(module.eval(), SHAPE)
    images = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    coupling = couple(captured)
    removed = tuple(sorted(p for g in coupling.groups for p in g.players[::3]))
    return captured, coupling, images, removed


def _context(network, device):
    captured, coupling, images, _ = network
    with torch.no_grad():
        reference = tensor_leaves(captured.graph_module(images))
        return context_of_network(
            captured, coupling, ImageBatch(images=images, labels=None), reference, ratio=0.25, device=device
        )


def outputs(network, device):
    context = _context(network, device)
    return run_torch(context.running.graph_module, network[2])[0]


def statistics(network, device):
    game = _context(network, device).recovery_game
    return np.concatenate([point.covariance.cpu().numpy().ravel() for point in game._points])


def ranking(network, device):
    game, coupling = _context(network, device).recovery_game, network[1]
    found = rank(
        game, coupling.groups, rng=np.random.default_rng(0), options=options_for(coupling, 0.25),
        advance=lambda _units: None,
    )  # fmt: skip
    return found.values


def coalitions(network, device):
    context, coupling = _context(network, device), network[1]
    batch = ImageBatch(images=network[2], labels=None)
    with torch.no_grad():
        reference = tensor_leaves(network[0].graph_module(network[2]))
    layer = LayerGame(context.running, coupling, coupling.groups[0].players, batch, reference)
    blocks = BlockGame(context.running, batch, reference)
    drawn = np.random.default_rng(1).random((30, coupling.num_players)) < 0.7
    return np.concatenate(
        [
            context.recovery_game.values(drawn).ravel(),
            layer.values(drawn[:, : layer.num_players]).ravel(),
            blocks.values(np.array([[False], [True]])).ravel(),
        ]
    )


def zeros(network, device):
    scored = criterion("apoz").score(
        _context(network, device), rng=np.random.default_rng(0), advance=lambda _units: None
    )
    return scored.values


def recovery(network, device):
    captured, coupling, images, removed = network
    recovered, _ = reconstruct(
        captured.graph_module, prune(captured, coupling, removed), coupling, removed, nets.split(images),
        generator=torch.Generator().manual_seed(0), device=device,
        options=RecoveryOptions(rows_limit_bytes=2**20, memory_limit_bytes=2**22),
    )  # fmt: skip
    return run_torch(recovered, images)[0]


def training(network, device):
    captured, coupling, images, removed = network
    _, report = distill(
        captured.graph_module, prune(captured, coupling, removed), coupling, removed, nets.split(images),
        generator=torch.Generator().manual_seed(0), device=device,
        options=DistillationOptions(steps=6, batch=24, learning_rates=(1e-3,), checks=2),
    )  # fmt: skip
    return np.array([report.divergence_before, report.divergence_after])


STAGES = (outputs, statistics, ranking, coalitions, zeros, recovery, training)


@pytest.mark.parametrize("stage", STAGES)
def test_less_memory_gives_the_same_figures(stage, network, caplog):
    with simulated_gpu() as large:
        wanted = stage(network, large.device)
    gc.collect()
    with caplog.at_level(logging.WARNING), simulated_gpu(memory_bytes=int(SHARE * large.most_bytes)) as small:
        found = stage(network, small.device)
    assert small.refusals
    assert "the memory of the GPU does not hold" in caplog.text
    tolerance = 0.1 if stage in (recovery, training) else 2e-3
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
