"""A mean over height and width as a global average pooling, which onnxruntime has an 8-bit kernel for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, constant_of, free_node_name


class SpatialMeansToPooling(GraphPass):
    """ReduceMean over the axes 2 and 3 of four becomes GlobalAveragePool; the function stays."""

    def call(self, model: ir.Model) -> PassResult:
        """Replace them all."""
        means = [node for node in model.graph if is_spatial_mean(node)]
        for node in means:
            _replace(model.graph, node)
        return PassResult(model, modified=bool(means))

    def ensures(self, model: ir.Model) -> None:
        """No such mean is left."""
        super().ensures(model)
        if any(is_spatial_mean(node) for node in model.graph):
            raise PostconditionError("a mean over height and width is left")


def is_spatial_mean(node: ir.Node) -> bool:
    """Whether a node takes the mean over height and width of a tensor of four dimensions of known sizes."""
    shape = node.inputs[0].shape if node.op_type == "ReduceMean" and node.inputs[0] is not None else None
    if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        return False
    if len(node.inputs) > 1:
        axes = np.ravel(given).tolist() if (given := constant_of(node.inputs[1])) is not None else []
    else:
        axes = list(node.attributes.get_ints("axes", ()))
    return sorted(int(axis) % 4 for axis in axes) == [2, 3]


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
    new = [pool]
    if node.attributes.get_int("keepdims", 1) != 1:
        pool.outputs[0].name = f"{node.outputs[0].name}_pooled"
        new.append(ir.node("Flatten", pool.outputs, name=free_node_name(graph, f"{node.name}_flat")))
    convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)
