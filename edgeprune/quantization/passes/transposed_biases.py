"""The bias of a grouped transposed convolution as an addition behind it.

Weights (inputs, outputs / groups, ...) have a scale for each index along axis 1, which the groups share, so
that there are fewer scales than biases, and a bias cannot be stored by the scale of its weights.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of
from edgeprune.quantization.passes.biases_apart import take_bias_apart


class TransposedBiasesApart(GraphPass):
    """ConvTranspose with groups and a constant bias becomes one without, and Add; the function stays."""

    def call(self, model: ir.Model) -> PassResult:
        """Take them all apart."""
        grouped = [node for node in model.graph if _has_grouped_bias(node)]
        for node in grouped:
            _take_apart(model.graph, node)
        return PassResult(model, modified=bool(grouped))

    def ensures(self, model: ir.Model) -> None:
        """No such bias is left."""
        super().ensures(model)
        if any(_has_grouped_bias(node) for node in model.graph):
            raise PostconditionError("a bias of a grouped transposed convolution is left")


def _has_grouped_bias(node: ir.Node) -> bool:
    if node.op_type != "ConvTranspose" or node.attributes.get_int("group", 1) == 1 or len(node.inputs) < 3:
        return False
    return constant_of(node.inputs[1]) is not None and constant_of(node.inputs[2]) is not None


def _take_apart(graph: ir.Graph, node: ir.Node) -> None:
    weight, bias = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    assert weight is not None
    assert bias is not None
    channels = bias.reshape(1, -1, *[1] * (weight.ndim - 2))
    take_bias_apart(graph, node, add_constant(graph, f"{node.outputs[0].name}_bias", channels))
