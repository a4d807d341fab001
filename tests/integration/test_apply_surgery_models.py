"""The recipe of the digits example, as the command wrote it, replayed on its own class."""

from __future__ import annotations

import json

import pytest
import torch
from replays import train_one_step
from safetensors.torch import load_file
from small_project import compressed_digits, digits_network

import edgeprune


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
