"""What all rewrites share: passes on onnx-ir that keep the names of inputs and outputs, checked each time."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError, Sequential


class GraphPass(InPlacePass):
    """A rewrite in place; its postcondition is that inputs and outputs keep their names and order.

    Subclasses add what else holds before and after (``requires``, ``ensures``, with ``super()`` first).
    """

    def __init__(self) -> None:
        self._interface: tuple[tuple[str | None, ...], ...] = ()

    def requires(self, model: ir.Model) -> None:
        """Remember the names of inputs and outputs."""
        self._interface = _interface(model)

    def ensures(self, model: ir.Model) -> None:
        """Compare them.

        Raises:
            PostconditionError: they are others.
        """
        if _interface(model) != self._interface:
            raise PostconditionError(f"{type(self).__name__} changed the model's inputs or outputs")


class Checked(GraphPass):
    """Passes of onnx-ir itself, held to the same postcondition."""

    def __init__(self, *passes: InPlacePass) -> None:
        super().__init__()
        self._passes = passes

    def call(self, model: ir.Model) -> PassResult:
        """Apply them in order."""
        modified = False
        for each in self._passes:
            modified = bool(each(model).modified) or modified
        return PassResult(model, modified)


def rewritten(proto: ModelProto, *passes: GraphPass) -> ModelProto:
    """A copy of the model after these passes, in order.

    Raises:
        InvariantError, PassError: a pass did not keep what it declares; a fault of ours.
    """
    return ir.to_proto(Sequential(*passes)(ir.from_proto(proto)).model)


def constant_of(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of a constant; ``None`` where a value is none."""
    tensor = None if value is None else value.const_value
    return None if tensor is None else np.asarray(tensor.numpy())


def add_constant(graph: ir.Graph, name: str, value: NDArray[Any]) -> ir.Value:
    """The initializer of this name and value, made where there is none.

    Where something else of the graph has the name, it gets the first free one behind it.
    """
    free = free_value_name(graph, name)
    while name != free:
        known = constant_of(graph.initializers.get(name))
        if known is not None and known.dtype == value.dtype and np.array_equal(known, value):
            return graph.initializers[name]
        name += "_"
    tensor = ir.tensor(np.asarray(value, order="C"), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    constant = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
    graph.register_initializer(constant)
    return constant


def copied_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """A constant's tensor for another name: the former model, which has the same tensor, keeps its own."""
    held = value.const_value
    return None if held is None else ir.serde.deserialize_tensor(ir.serde.serialize_tensor(held))


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs, constants and results of a graph and of those inside it, which see its names, too."""
    for each in (graph, *graph.subgraphs()):
        yield from (*each.inputs, *each.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs


def free_value_name(graph: ir.Graph, wished: str) -> str:
    """This name of a tensor, or the first free one behind it."""
    return free_name({each.name for each in values_of(graph)}, wished)


def free_node_name(graph: ir.Graph, wished: str) -> str:
    """This name of a node, or the first free one behind it: onnxruntime refuses two nodes of one name."""
    return free_name({node.name for node in graph.all_nodes()}, wished)


def free_name(taken: Container[str | None], wished: str) -> str:
    """This name, with as many underscores behind it as make it none of those that are taken."""
    while wished in taken:
        wished += "_"
    return wished


def _interface(model: ir.Model) -> tuple[tuple[str | None, ...], ...]:
    """Names of inputs and outputs; old files list constants among the inputs, too, which are none."""
    given = [value for value in model.graph.inputs if not value.is_initializer()]
    return tuple(tuple(v.name for v in values) for values in (given, model.graph.outputs))
