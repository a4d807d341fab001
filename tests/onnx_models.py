"""Small ONNX files for the tests of quantization."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from edgeprune.exporting import export_onnx
from edgeprune.graph.capture import export_program

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
