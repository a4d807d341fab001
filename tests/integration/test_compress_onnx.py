"""ONNX files through all stages: as a torch model, and back onto the imported network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx_models import Chain, written

import edgeprune
from edgeprune.reporting.formatting import format_bytes

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An ONNX file, and the folder of its compression."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    path = written(Chain(), folder / "chain.onnx", SHAPE)
    images = np.random.default_rng(0).standard_normal((48, *SHAPE)).astype(np.float32)
    np.savez(folder / "images.npz", images=images)
    output = folder / "out"
    edgeprune.compress(path, calibration=folder / "images.npz", output=output, ratio=0.25, threads=1)
    return path, output


def test_the_report_tells_the_origin(pruned: tuple[Path, Path]) -> None:
    _, output = pruned
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["model"]["format"] == "onnx"
    assert report["model"]["source"].endswith("chain.onnx")
    assert any(note.startswith("imported from ONNX opset") for note in report["notes"])
    before, after = (
        sum(layer[f"macs_{when}"] for layer in report["pruning"]["layers"]) for when in ("before", "after")
    )
    assert after <= 0.75 * before


def test_the_report_tells_the_size_of_the_given_file(pruned: tuple[Path, Path], tmp_path: Path) -> None:
    path, output = pruned
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    exported = format_bytes(report["deployment"]["original"]["size_bytes"])
    given = format_bytes(path.stat().st_size)
    assert exported != given, "batch norms are folded"
    note = f"original exported anew: {exported}; the given file has {given}"
    assert report["notes"].count(note) == 1


def test_the_pruning_is_replayed_on_the_imported_network(pruned: tuple[Path, Path]) -> None:
    path, output = pruned
    network = edgeprune.load_onnx(path)
    small = edgeprune.apply_surgery(network, output / "surgery.json", output / "weights.safetensors")
    images = torch.randn(3, *SHAPE)
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(small(images).numpy(), expected, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())


def test_inspect_names_the_layers_of_the_file(pruned: tuple[Path, Path]) -> None:
    path, output = pruned
    for file in (path, output / "model.onnx"):
        layers = {layer.layer for layer in edgeprune.inspect(file).layers}
        assert {"first", "deep", "last", "head"} <= layers
