"""Recipes replayed on a model's own class: equal to the rewritten graph and trainable, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Case
from torch import nn
from torch.nn import functional

import edgeprune
from edgeprune.capture.export import program_of_graph
from edgeprune.errors import SurgeryError
from edgeprune.exporting import save_program, save_surgery
from edgeprune.pruning.surgery import prune, surgery_recipe


def prune_at_random(model: nn.Module, case: Case, folder: Path, *, program: bool = False) -> nn.Module:
    """Write what a run writes about a random third of every group; returns the rewritten graph."""
    case.captured.graph_module.float()
    rng = np.random.default_rng(0)
    removed = sorted(
        int(player)
        for group in case.coupling.groups
        for player in rng.choice(group.players, len(group.players) // 3, replace=False)
    )
    graph = prune(case.captured, case.coupling, tuple(removed))
    state = {**model.state_dict(), **graph.state_dict()}
    save_surgery(surgery_recipe(case.coupling, tuple(removed), case.captured), state, folder)
    if program:
        example = torch.zeros(2, *case.captured.input_shape)
        save_program(program_of_graph(graph, example), folder / "model.pt2")
    return graph


def train_one_step(model: nn.Module, images: torch.Tensor) -> None:
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [p.detach().clone() for p in model.parameters()]
    functional.cross_entropy(model(images), torch.arange(len(images)) % 10).backward()
    optimiser.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def check_replay(model: nn.Module, case: Case, folder: Path, *, program: bool) -> None:
    """The class with the recipe's weights is the rewritten graph, and can be trained."""
    parameters = sum(p.numel() for p in model.parameters())
    graph = prune_at_random(model, case, folder, program=program)
    replayed = edgeprune.apply_surgery(model, folder / "surgery.json", folder / "weights.safetensors")
    assert type(replayed) is type(model)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in replayed.parameters()) < 0.75 * parameters
    images = torch.rand(3, *case.captured.input_shape)
    with torch.no_grad():
        expected = graph(images)
        difference = (replayed(images) - expected).abs().max() / expected.abs().max()
        effect = (model(images) - expected).abs().max() / expected.abs().max()
    assert float(difference) < 1e-5
    assert float(effect) > 1e-2
    # Dropout on random weights; a batch norm over one pixel needs several images.
    train_one_step(replayed, torch.rand(4, *case.captured.input_shape))


def check_refusal(model: nn.Module, case: Case, folder: Path) -> None:
    """``chunk(2, 1)`` of a stream whose halves lost different numbers of channels cannot be replayed."""
    prune_at_random(model, case, folder)
    with pytest.raises(SurgeryError) as caught:
        edgeprune.apply_surgery(model, folder / "surgery.json", folder / "weights.safetensors")
    message = str(caught.value)
    assert "shufflenetv2.py:" in message
    assert "model.pt2" in message
    assert "\n" not in message
