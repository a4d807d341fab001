"""Hard sigmoids and hard swishes in terms of ops that onnxruntime has 8-bit kernels for; the function stays.

hard_sigmoid(x) = clip(x + 3, 0, 6) / 6. With a scale of 6/255 and a zero point of 0 the clipping is what
8 bits do anyway, so that an 8-bit addition of 3 is left, and the division goes into the scale by which its
result is read. hard_swish(x) = x hard_sigmoid(x).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, add_constant, constant_of, free_node_name
from edgeprune.quantization.ranges.choice import Range

_SHIFT, _SPAN = 3.0, 6.0
_THREE, _ZERO, _SIX = "edgeprune_three", "edgeprune_zero", "edgeprune_six"


class HardActivationsToSums(GraphPass):
    """Hard sigmoids and swishes of tensors with known ranges become clipped sums.

    ``ranges`` gains those of the new tensors; ``clipped`` names the sums afterwards, each to be read by a
    sixth of its scale (:class:`ReadByASixth`).
    """

    def __init__(self, ranges: dict[str, Range], nodes_to_exclude: frozenset[str]) -> None:
        super().__init__()
        self.ranges = ranges
        self.clipped: list[str] = []
        self._excluded = nodes_to_exclude

    def call(self, model: ir.Model) -> PassResult:
        """Replace those that are not excluded."""
        for node in [n for n in model.graph if self._applies(n)]:
            self._replace(model.graph, node)
        if self.clipped:
            self.ranges[_THREE] = (0.0, _SHIFT)
        return PassResult(model, modified=bool(self.clipped))

    def ensures(self, model: ir.Model) -> None:
        """None is left but those that are excluded or of unknown range."""
        super().ensures(model)
        if any(self._applies(node) for node in model.graph):
            raise PostconditionError("a hard activation is left")

    def _applies(self, node: ir.Node) -> bool:
        given = node.inputs[0] if node.inputs else None
        known = given is not None and given.name in self.ranges
        return known and node.name not in self._excluded and is_hard(node)

    def _replace(self, graph: ir.Graph, node: ir.Node) -> None:
        given, result = node.inputs[0], str(node.outputs[0].name)
        three, zero, six = (
            add_constant(graph, name, np.array(value, np.float32))
            for name, value in ((_THREE, _SHIFT), (_ZERO, 0.0), (_SIX, _SPAN))
        )
        names = (free_node_name(graph, f"{node.name}_{what}") for what in ("add", "clip", "mul"))
        add = ir.node("Add", [given, three], name=next(names))
        clip = ir.node("Clip", [add.outputs[0], zero, six], name=next(names))
        add.outputs[0].name, held = f"{result}_sum", result
        new = [add, clip]
        if node.op_type == "HardSwish":
            clip.outputs[0].name = held = f"{result}_clipped"
            new.append(ir.node("Mul", [given, clip.outputs[0]], name=next(names)))
        self.ranges[f"{result}_sum"] = self.ranges[held] = (0.0, _SPAN)
        self.clipped.append(held)
        convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)


class ReadByASixth(GraphPass):
    """Divide the scales by which these quantized tensors are read by six."""

    def __init__(self, tensors: Iterable[str]) -> None:
        super().__init__()
        self._read = frozenset(f"{name}_QuantizeLinear_Output" for name in tensors)

    def call(self, model: ir.Model) -> PassResult:
        """Give every reader of one a scale of its own."""
        readers = [
            node
            for node in model.graph
            if node.op_type == "DequantizeLinear" and node.inputs[0] is not None
            if node.inputs[0].name in self._read
        ]
        for node in readers:
            scale = node.inputs[1]
            values = constant_of(scale)
            assert scale is not None
            assert values is not None
            sixth = np.asarray(values / np.float32(_SPAN), np.float32)
            node.replace_input_with(1, add_constant(model.graph, f"{scale.name}_sixth", sixth))
        return PassResult(model, modified=bool(readers))


def is_hard(node: ir.Node) -> bool:
    """Whether a node is a hard swish, or a hard sigmoid of its usual slope."""
    if node.op_type == "HardSwish":
        return True
    return (
        node.op_type == "HardSigmoid"
        and math.isclose(node.attributes.get_float("alpha", 0.2), 1 / _SPAN, rel_tol=1e-6)
        and math.isclose(node.attributes.get_float("beta", 0.5), _SHIFT / _SPAN, rel_tol=1e-6)
    )
