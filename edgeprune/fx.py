"""Helpers to read captured graphs and their outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
TRANSPOSED_CONVOLUTIONS = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
WEIGHTED = frozenset((*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *PRODUCTS, "scaled_dot_product_attention"))
"""Ops that take most of the run time, with or without stored operands."""


def op_name(node: Node) -> str:
    """Name of the op without overload: ``conv2d`` for ``aten.conv2d.default``.

    Ops of other namespaces keep the prefix: ``mylib::blur`` for ``mylib.blur.default``.
    """
    packet = getattr(node.target, "overloadpacket", None)
    if packet is not None:
        namespace = str(getattr(node.target, "namespace", "aten"))
        return str(packet.__name__) if namespace == "aten" else f"{namespace}::{packet.__name__}"
    return str(getattr(node.target, "__name__", node.target))


def tensor_leaves(value: Any) -> list[Tensor]:
    """Tensors of a nested output, in order (dataclass-like and dict outputs included)."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensor_leaves(v)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensor_leaves(v)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for field in dataclasses.fields(value) for t in tensor_leaves(getattr(value, field.name))]
    return []


class NodeValues(Interpreter):
    """Runs a graph and keeps the tensors of the nodes ``names``; as ``leaves``, gradients begin at them."""

    def __init__(self, module: GraphModule, names: Collection[str], *, leaves: bool = False) -> None:
        super().__init__(module)
        self._names = frozenset(names)
        self._leaves = leaves
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run a node, and keep its value if it is one of those."""
        value = super().run_node(n)
        if n.name in self._names and isinstance(value, Tensor):
            # Behind an earlier leaf, a gradient goes on to that one.
            if self._leaves and value.is_floating_point() and not value.requires_grad:
                value = value.detach().requires_grad_(True)
            self.values[n.name] = value
        return value
