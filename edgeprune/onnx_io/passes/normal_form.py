"""What exporters write in ways of their own, brought to the one that readers expect; the function stays."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass

Sizes = tuple[int | None, ...]
"""Of a tensor; ``None`` where one is dynamic."""


class ConstantsWithoutIdentity(GraphPass):
    """What reads a constant through an Identity node reads the constant itself."""

    def call(self, model: ir.Model) -> PassResult:
        """Take all such nodes out, chains of them too."""
        modified = False
        for node in list(model.graph):
            if _is_constant_copy(node):
                convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])  # type: ignore[arg-type]
                model.graph.remove(node, safe=True)
                modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """None is left."""
        super().ensures(model)
        if any(_is_constant_copy(node) for node in model.graph):
            raise PostconditionError("a constant is read through an Identity node")


def _is_constant_copy(node: ir.Node) -> bool:
    if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return False
    return node.inputs[0].is_initializer() and not node.outputs[0].is_graph_output()


class ForgetShapes(GraphPass):
    """Drop what a file states of calculated values' shapes: it may be symbolic, or that of other inputs.

    Outputs keep their type and rank; those inside of nodes with graphs of their own keep what they state.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Drop all of them."""
        outputs = set(model.graph.outputs)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            for value in node.outputs:
                if value in outputs:
                    value.shape = None if value.shape is None else ir.Shape([None] * len(value.shape))
                elif not value.is_graph_output():
                    value.shape = value.type = None
        return PassResult(model, modified=True)


class FixInputSizes(GraphPass):
    """Write sizes (``None``: as it is) into the inputs of these names."""

    def __init__(self, sizes: Mapping[str, Sizes]) -> None:
        super().__init__()
        self._sizes = sizes

    def call(self, model: ir.Model) -> PassResult:
        """Write them."""
        for value in model.graph.inputs:
            asked = self._sizes.get(str(value.name))
            if asked is not None:
                stated = value.shape if value.shape is not None else ir.Shape([None] * len(asked))
                merged = [old if new is None else new for old, new in zip(stated, asked, strict=True)]
                value.shape = ir.Shape(merged)
        return PassResult(model, modified=bool(self._sizes))

    def ensures(self, model: ir.Model) -> None:
        """They are as asked."""
        super().ensures(model)
        for value in model.graph.inputs:
            asked, shape = self._sizes.get(str(value.name), ()), value.shape
            if shape is not None and any(n not in (None, o) for o, n in zip(shape, asked, strict=False)):
                raise PostconditionError(f"the input {value.name} is not of the sizes asked for")
