"""What 8-bit scales cannot hold stays in 32 bits, so that onnxruntime runs every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_graphs import Node, write
from onnx_models import written
from torch import nn

from edgeprune import parity
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.errors import QuantizationError
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings

FORMAT = IntegerFormat(signed_activations=False, reduce_range=False, reason="a test")


ENDS = {
    "mean": lambda y: y.mean((2, 3)),
    "pool and view": lambda y: nn.functional.adaptive_avg_pool2d(y, 1).view(-1, 8),
    "pool and squeeze": lambda y: nn.functional.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(-1),
    "whole pool": lambda y: nn.functional.avg_pool2d(y, 16).flatten(1),
    "pool, relu, pool": lambda y: nn.functional.adaptive_avg_pool2d(
        torch.relu(nn.functional.adaptive_avg_pool2d(y, 1)), 1
    ).view(-1, 8),
}


class Normalised(nn.Module):
    """A normalised map, whose mean depends on the image by as much as ``share`` of the map before."""

    def __init__(self, share: float, end: str) -> None:
        super().__init__()
        self.end = ENDS[end]
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8)
        self.last = nn.Linear(8, 4)
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.first(x)
        return self.last(self.end(self.norm(own) + self.share * own))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-5, 1e-3, 0.03, 1.0])
def test_means_of_normalised_maps_run(share: float, end: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = written(Normalised(share, end), tmp_path / "m.onnx", (3, 16, 16))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 3, 16, 16, generator=generator) + torch.randn(40, 3, 1, 1, generator=generator)
    report = quantize_integers(path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT))
    kept = [reason for reason in report.unscaled.values() if "out of proportion" in reason]
    assert bool(kept) == (share < 1e-4)
    found, expected = (parity.run_onnx(p, images, threads=1)[0] for p in (tmp_path / "q.onnx", path))
    assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


PRODUCTS = {
    "left matrix": (["w", "rows"], (8, 8)),
    "left batch of one": (["w", "rows"], (1, 8, 8)),
    "left batch": (["w", "map"], (8, 8, 8)),
    "left batch of maps": (["w", "map"], (1, 8, 8, 8)),
    "right batch": (["map", "w"], (8, 8, 8)),
    "right batch of one": (["map", "w"], (1, 8, 8)),
    "right matrix": (["map", "w"], (8, 8)),
}
"""What a product reads, with the shape of its constant; ``rows`` is a matrix of each image."""

BEHIND = {
    "Relu": ("Relu", ["product"], ["next"], {}),
    "Add": ("Add", ["product", "added"], ["next"], {}),
    "Conv": ("Identity", ["product"], ["next"], {}),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize(("opset", "batch"), [(13, "n"), (17, 1), (21, "n")])
def test_products_with_a_constant_run(
    product: str, behind: str, batch: int | str, opset: int, tmp_path: Path
) -> None:
    """onnxruntime's kernel takes scales for the columns of a right matrix alone."""
    rng, (read, shape) = np.random.default_rng(0), PRODUCTS[product]
    nodes: list[Node] = [
        ("Conv", ["x", "first"], ["map"], {"pads": [1] * 4}),
        ("MatMul", read, ["product"], {}),
        BEHIND[behind],
        ("Conv", ["next", "last"], ["narrow"], {"pads": [1] * 4}),
        ("GlobalAveragePool", ["narrow"], ["pooled"], {}),
        ("Flatten", ["pooled"], ["y"], {}),
    ]
    weights = {"first": (8, 3, 3, 3), "last": (4, 8, 3, 3), "w": shape, "added": (1, 8, 1, 1)}
    constants = {name: rng.normal(0, 0.4, s).astype(np.float32) for name, s in weights.items()}
    if "rows" in read:
        nodes.insert(1, ("Reshape", ["map", "as rows"], ["rows"], {}))
        nodes.insert(3, ("Reshape", ["product", "as map"], ["again"], {}))
        nodes[4] = (nodes[4][0], ["again", *nodes[4][1][1:]], ["next"], {})
        constants |= {"as rows": np.array([-1, 8, 64]), "as map": np.array([-1, 8, 8, 8])}
    used = {name for _, read, _, _ in nodes for name in read}
    constants = {name: value for name, value in constants.items() if name in used}
    path = write(tmp_path / "m.onnx", nodes, constants, opset=opset, batch=batch)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    report = quantize_integers(path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT))
    assert report.nodes["Conv"] == 2
    assert report.nodes.get("MatMul", 0) == (product == "right matrix")
    assert len(report.unscaled) == (product != "right matrix")
    assert all("no 8-bit form" in reason for reason in report.unscaled.values())
    found, expected = (parity.run_onnx(p, images, threads=1)[0] for p in (tmp_path / "q.onnx", path))
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("bias", [(), ("bias",)])
@pytest.mark.parametrize("opset", [13, 21])
def test_gemm_with_a_constant_on_the_left_runs(bias: tuple[str, ...], opset: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = {"first": (8, 3, 3, 3), "w": (8, 512), "bias": (8, 1), "last": (4, 8, 1, 1)}
    constants: dict[str, Any] = {n: rng.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()}
    nodes: list[Node] = [
        ("Conv", ["x", "first"], ["map"], {"pads": [1] * 4}),
        ("Flatten", ["map"], ["flat"], {}),
        ("Gemm", ["w", "flat", *bias], ["product"], {"transB": 1}),
        ("Reshape", ["product", "as map"], ["again"], {}),
        ("Relu", ["again"], ["next"], {}),
        ("Conv", ["next", "last"], ["narrow"], {}),
        ("Flatten", ["narrow"], ["y"], {}),
    ]
    constants["as map"] = np.array([1, 8, 1, 1])
    constants = {name: value for name, value in constants.items() if name != "bias" or bias}
    path = write(tmp_path / "m.onnx", nodes, constants, opset=opset, batch=1)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    report = quantize_integers(path, tmp_path / "q.onnx", images, IntegerSettings(form=FORMAT))
    assert "Gemm" not in report.nodes
    assert len(report.unscaled) == 1
    found, expected = (parity.run_onnx(p, images, threads=1)[0] for p in (tmp_path / "q.onnx", path))
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()


def test_a_network_of_batched_products_alone_is_refused_with_a_way_out(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    nodes: list[Node] = [("MatMul", ["x", "w"], ["product"], {}), ("Relu", ["product"], ["y"], {})]
    path = write(tmp_path / "m.onnx", nodes, {"w": weight})
    with pytest.raises(QuantizationError, match=r"w is a batch of matrices, .*; ask for precision fp16"):
        quantize_integers(path, tmp_path / "q.onnx", torch.randn(8, 3, 8, 8), IntegerSettings(form=FORMAT))
