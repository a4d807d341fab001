"""A layer without its bias, and an addition behind it: for what cannot be a bias of quantized weights."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir import convenience

from edgeprune.onnx_io.passes.base import free_node_name


def take_bias_apart(graph: ir.Graph, node: ir.Node, added: ir.Value, *makers: ir.Node) -> None:
    """The same node without its bias takes its place, and ``added`` is added to what that gives.

    ``makers`` are new nodes that give ``added``; they come between the two.
    """
    output = node.outputs[0]
    apart = ir.node(node.op_type, node.inputs[:2], {}, name=node.name, doc_string=node.doc_string)
    for attribute in node.attributes.values():
        apart.attributes.add(attribute)
    apart.outputs[0].name = f"{output.name}_without_bias"
    add = ir.node("Add", [apart.outputs[0], added], name=free_node_name(graph, f"{node.name}_bias"))
    convenience.replace_nodes_and_values(graph, node, [node], [apart, *makers, add], [output], add.outputs)
