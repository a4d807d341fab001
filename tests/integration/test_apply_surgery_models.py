"""Recipes replayed on real classes: equal to the rewritten graph and trainable, or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomise
from safetensors.torch import load_file
from small_project import compressed_digits, digits_network
from torch import nn
from torch.nn import functional

import edgeprune
from edgeprune.compat import import_torchvision
from edgeprune.errors import SurgeryError
from edgeprune.exporting import save_program, save_surgery
from edgeprune.graph.capture import capture, export_program
from edgeprune.graph.coupling import couple
from edgeprune.graph.surgery import prune, surgery_recipe

IMAGE = (3, 32, 32)
WITH_PROGRAM = ("resnet18", "squeezenet1_0")
"""Exported as well, which takes as long as the rest; the others are compared by the test alone."""


def torchvision_model(name: str) -> nn.Module:
    model = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    randomise(model, IMAGE)
    return model


def prune_at_random(model: nn.Module, folder: Path, *, program: bool) -> nn.Module:
    """Write what a run writes about a random third of every group; returns the rewritten graph."""
    captured = capture(model.eval(), IMAGE)
    coupling = couple(captured)
    rng = np.random.default_rng(0)
    removed = sorted(
        int(player)
        for group in coupling.groups
        for player in rng.choice(group.players, len(group.players) // 3, replace=False)
    )
    graph = prune(captured, coupling, tuple(removed))
    state = {**model.state_dict(), **graph.state_dict()}
    save_surgery(surgery_recipe(coupling, tuple(removed), captured), state, folder)
    if program:
        save_program(export_program(graph, torch.zeros(2, *IMAGE)), folder / "model.pt2")
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


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "densenet121", "squeezenet1_0", "efficientnet_b0"]
)
def test_the_class_replays_and_trains(name: str, tmp_path: Path) -> None:
    model = torchvision_model(name)
    parameters = sum(p.numel() for p in model.parameters())
    graph = prune_at_random(model, tmp_path, program=name in WITH_PROGRAM)
    replayed = edgeprune.apply_surgery(model, tmp_path / "surgery.json", tmp_path / "weights.safetensors")
    assert type(replayed) is type(model)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in replayed.parameters()) < 0.75 * parameters
    images = torch.rand(3, *IMAGE)
    with torch.no_grad():
        expected = graph(images)
        difference = (replayed(images) - expected).abs().max() / expected.abs().max()
        effect = (model(images) - expected).abs().max() / expected.abs().max()
    assert float(difference) < 1e-5
    assert float(effect) > 1e-2
    # Dropout on random weights; a batch norm over one pixel needs several images.
    train_one_step(replayed, torch.rand(4, *IMAGE))


def test_a_shuffle_of_unequal_halves_is_refused_with_its_line(tmp_path: Path) -> None:
    """``chunk(2, 1)`` of a stream whose halves lost different numbers of channels cannot be replayed."""
    model = torchvision_model("shufflenet_v2_x0_5")
    prune_at_random(model, tmp_path, program=False)
    with pytest.raises(SurgeryError) as caught:
        edgeprune.apply_surgery(model, tmp_path / "surgery.json", tmp_path / "weights.safetensors")
    message = str(caught.value)
    assert "shufflenetv2.py:" in message
    assert "model.pt2" in message
    assert "\n" not in message


def test_digits_as_compressed_by_the_command(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, _ = compressed_digits(tmp_path_factory.getbasetemp())
    model = digits_network()
    replayed = edgeprune.apply_surgery(model, folder / "surgery.json", folder / "weights.safetensors")
    images = torch.rand(5, 1, 8, 8)
    program = torch.export.load(str(folder / "model.pt2")).module()
    with torch.no_grad():
        expected = program(images)
        torch.testing.assert_close(replayed(images), expected, rtol=1e-5, atol=1e-5)
        assert float((model(images) - expected).abs().max()) > 1e-3
    stored = load_file(folder / "weights.safetensors")
    assert {k: v.shape for k, v in replayed.state_dict().items()} == {k: v.shape for k, v in stored.items()}
    recipe = json.loads((folder / "surgery.json").read_text())
    assert recipe["input_shape"] == [1, 8, 8]
    assert {
        k: list(v.shape) for k, v in model.state_dict().items() if k in recipe["original_shapes"]
    } == recipe["original_shapes"]
    train_one_step(replayed, images)
