"""Small ONNX files for the tests of quantization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeprune.capture.export import export_program
from edgeprune.exporting import export_onnx

IMAGE = (3, 8, 8)


class Chain(nn.Module):
    """Convolutions in a row with what scales pass (and do not pass) between them."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 6, 1, bias=False)
        self.head = nn.Linear(6, 5)
        self.activation = activation or nn.ReLU()
        with torch.no_grad():
            for parameter in self.parameters():  # images matter more than biases
                parameter.mul_(2.0 if parameter.dim() > 1 else 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.first(x))
        x = self.activation(self.deep(x))
        x = self.activation(self.last(x))
        return self.head(x.mean((2, 3)))


def badly_scaled(module: Chain, spread: float = 3.0) -> Chain:
    """The same function with channels between layers a thousandfold apart."""
    factors = torch.exp(spread * torch.randn(8, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        module.first.weight.mul_(factors.view(-1, 1, 1, 1))
        module.first.bias.mul_(factors)
        module.deep.weight.div_(factors.view(-1, 1, 1, 1))
    return module


def written(module: nn.Module, path: Path, shape: tuple[int, ...] = IMAGE) -> Path:
    """The module as an ONNX file."""
    export_onnx(export_program(module.eval(), torch.zeros(2, *shape)), path)
    return path


def plain(
    path: Path, op: str = "Relu", *, dims: tuple[object, ...] = ("n", 3, 8, 8), opset: int = 17
) -> Path:
    """One node, no weights."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "plain", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(proto, str(path))
    return path


def branches(
    path: Path,
    sizes: dict[str, float],
    *,
    rounds: str | None = None,
    biases: Mapping[str, float] = MappingProxyType({}),
) -> Path:
    """One branch each: a convolution ``NAME`` with values of that size (0: its bias alone), one that brings
    them back to usual ones, both beside a plain branch before a classifier; ``rounds`` gives whole numbers.
    """
    rng = np.random.default_rng(0)
    constants: dict[str, NDArray[np.float32]] = {}
    nodes = []

    def conv(name: str, given: str, weight: NDArray[np.float64], bias: float) -> str:
        constants[f"{name}.weight"] = weight.astype(np.float32)
        constants[f"{name}.bias"] = np.full(len(weight), bias, np.float32)
        read = [given, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", read, [f"{name}.out"], name=name))
        return f"{name}.out"

    joined = []
    for name, size in {"plain": 1.0, **sizes}.items():
        factor = size or 1.0
        first = conv(name, "x", size * rng.normal(size=(4, 3, 3, 3)), biases.get(name, 0.1 * factor))
        if name == rounds:
            nodes.append(helper.make_node("Round", [first], [f"{name}.whole"], name=f"{name}.round"))
            first = f"{name}.whole"
        nodes.append(helper.make_node("Relu", [first], [f"{name}.relu"], name=f"{name}.relu"))
        back = rng.normal(size=(4, 4, 1, 1)) * min(1 / factor, 1e36)
        joined.append(conv(f"{name}.back", f"{name}.relu", back, bias=0.5))
    nodes.append(helper.make_node("Concat", joined, ["joined"], name="joined", axis=1))
    nodes.append(helper.make_node("GlobalAveragePool", ["joined"], ["pooled"], name="pooled"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flat"))
    constants["head.weight"] = rng.normal(size=(4 * len(joined), 4)).astype(np.float32)
    nodes.append(helper.make_node("Gemm", ["flat", "head.weight"], ["y"], name="head"))
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
