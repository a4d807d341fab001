"""Gemm without factors, with a bias of one value for each output or none.

onnxruntime's quantizer stores a bias by the product of scales and ``beta``, and then leaves ``beta`` out; it
takes a bias to have one value for each output, and equalization and bias correction take both factors for 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of, free_node_name
from edgeprune.quantization.passes.biases_apart import take_bias_apart


class PlainGemms(GraphPass):
    """Factors go into constants, and what is no bias by output becomes an addition behind the Gemm."""

    def call(self, model: ir.Model) -> PassResult:
        """Change those that are not plain."""
        changed = [node for node in model.graph if not is_plain(node)]
        for node in changed:
            _scale_weight(model.graph, node)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                _change_bias(model.graph, node)
            node.attributes.pop("beta", None)
        return PassResult(model, modified=bool(changed))

    def ensures(self, model: ir.Model) -> None:
        """All are plain."""
        super().ensures(model)
        if any(not is_plain(node) for node in model.graph):
            raise PostconditionError("a Gemm with factors, or a bias of another shape, is left")


def is_plain(node: ir.Node) -> bool:
    """Whether a node is no Gemm, or one without factors whose bias has one value for each output."""
    if node.op_type != "Gemm":
        return True
    if _factor(node, "beta") != 1.0 or (_factor(node, "alpha") != 1.0 and _weight(node) is not None):
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    bias = constant_of(node.inputs[2])
    plain = None if bias is None else _by_output(node, bias)
    return bias is None or (plain is not None and plain.shape == bias.shape)


def _factor(node: ir.Node, name: str) -> float:
    return node.attributes.get_float(name, 1.0)


def _weight(node: ir.Node) -> NDArray[Any] | None:
    return constant_of(node.inputs[1])


def _outputs(node: ir.Node) -> int | None:
    weight = _weight(node)
    return None if weight is None else weight.shape[0 if node.attributes.get_int("transB", 0) else 1]


def _by_output(node: ir.Node, bias: NDArray[Any]) -> NDArray[Any] | None:
    """The bias with one value for each output; ``None`` where rows differ, or nobody tells the outputs."""
    count = _outputs(node)
    if count is None:
        return bias if bias.ndim == 1 and bias.size > 1 else None
    return None if bias.size not in (1, count) or bias.shape[-1:] not in ((), (1,), (count,)) else (
        np.broadcast_to(bias.reshape(-1), (count,))
    )  # fmt: skip


def _scaled(values: NDArray[Any], factor: float) -> NDArray[Any]:
    return (values.astype(np.float64) * factor).astype(values.dtype)


def _scale_weight(graph: ir.Graph, node: ir.Node) -> None:
    weight, factor = _weight(node), _factor(node, "alpha")
    if weight is not None and factor != 1.0:
        given = node.inputs[1]
        assert given is not None
        node.replace_input_with(1, add_constant(graph, f"{given.name}_scaled", _scaled(weight, factor)))
        node.attributes.pop("alpha", None)
        _remove_unread(graph, given)


def _change_bias(graph: ir.Graph, node: ir.Node) -> None:
    given, factor = node.inputs[2], _factor(node, "beta")
    assert given is not None
    bias = constant_of(given)
    plain = None if bias is None else _by_output(node, bias)
    if plain is not None:
        node.replace_input_with(2, add_constant(graph, f"{given.name}_by_output", _scaled(plain, factor)))
    elif bias is not None or factor != 1.0:
        _take_apart(graph, node, given, factor)
    _remove_unread(graph, given)


def _take_apart(graph: ir.Graph, node: ir.Node, bias: ir.Value, factor: float) -> None:
    """The bias, times its factor, is added to what the Gemm gives without it."""
    node.attributes.pop("beta", None)
    if factor == 1.0:
        take_bias_apart(graph, node, bias)
        return
    name = node.outputs[0].name
    dtype = np.dtype(np.float32 if bias.dtype is None else bias.dtype.numpy())
    constant = add_constant(graph, f"{name}_beta", np.asarray(factor, dtype))
    product = ir.node("Mul", [bias, constant], name=free_node_name(graph, f"{node.name}_beta"))
    product.outputs[0].name = f"{name}_scaled_bias"
    take_bias_apart(graph, node, product.outputs[0], product)


def _remove_unread(graph: ir.Graph, value: ir.Value) -> None:
    name = str(value.name)
    if name in graph.initializers and not value.uses() and not value.is_graph_output():
        del graph.initializers[name]
