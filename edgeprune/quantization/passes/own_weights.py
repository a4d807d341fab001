"""Weights of their own for layers that read a weight in another way than others do.

A weight in 8 bits has its scales along one axis, that of the outputs of the layer that reads it. Where layers
with another axis, other nodes, branches or the outputs of the model read it, too, one set of scales serves
only some of them, and a weight that equalization has scaled is wrong for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, copied_tensor, free_value_name
from edgeprune.quantization.preparation import WEIGHTED_OPS

_WEIGHT, _BIAS = 1, 2

Kind = tuple[str, int, int]
"""Operator, whether its weight is transposed, and groups: what decides how a weight is read."""


class OwnWeights(GraphPass):
    """Layers that read a constant alike share it with nobody else; biases are of one layer each."""

    def call(self, model: ir.Model) -> PassResult:
        """Copy what is shared."""
        modified = False
        for value in tuple(model.graph.initializers.values()):
            for place, sharing in enumerate(_sharing(value)[_first_copied(value) :]):
                own = _copied(model.graph, value, f"{value.name}_of_others_{place}")
                for node, at in sharing:
                    node.replace_input_with(at, own)
                modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """Nothing of the kind is left."""
        super().ensures(model)
        if any(_sharing(value)[_first_copied(value) :] for value in model.graph.initializers.values()):
            raise PostconditionError("a weight is read in two ways")


def _sharing(value: ir.Value) -> list[list[tuple[ir.Node, int]]]:
    """Layers of the main graph that may share a constant with each other; biases are shared by none."""
    alike: dict[object, list[tuple[ir.Node, int]]] = {}
    for node, at in _layers(value):
        alike.setdefault(_kind(node) if at == _WEIGHT else id(node), []).append((node, at))
    return list(alike.values())


def _layers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    for node, at in value.uses():
        if node.op_type in WEIGHTED_OPS and at in (_WEIGHT, _BIAS) and node.graph is value.graph:
            yield node, at


def _kind(node: ir.Node) -> Kind:
    attributes = node.attributes
    return node.op_type, attributes.get_int("transB", 0), attributes.get_int("group", 1)


def _first_copied(value: ir.Value) -> int:
    """How many of those that share keep the constant itself: one, where nobody else reads it."""
    others = len(value.uses()) > len(tuple(_layers(value))) or value.is_graph_output()
    return 0 if others else 1


def _copied(graph: ir.Graph, value: ir.Value, wished: str) -> ir.Value:
    own = ir.Value(
        name=free_value_name(graph, wished),
        const_value=copied_tensor(value),
        type=value.type,
        shape=value.shape,
    )
    graph.register_initializer(own)
    return own
