"""No tensor is called like what quantization will add: its names are those of tensors with an ending."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import onnx_ir as ir
from onnx_ir.passes import PassResult, PostconditionError

from edgeprune.onnx_io.passes.base import GraphPass, copied_tensor, free_node_name, values_of

ENDINGS = (
    *("scale", "zero_point", "quantized", "convert", "convert_clone"),
    *(f"{op}Linear{end}" for op in ("Quantize", "Dequantize") for end in ("", "_Input", "_Output")),
    *("sum", "clipped", "bias", "without_bias", "pooled", "blocks", "in_8_bits"),
    *("scaled", "beta", "scaled_bias", "by_output"),
)
"""Behind an underscore, those of onnxruntime's quantizer and of our own rewrites."""
_ENDING = re.compile(rf"_(?:{'|'.join(sorted(ENDINGS, key=len, reverse=True))})$")


class NamesApart(GraphPass):
    """Rename tensors until none has the name of another, or of a node, with an ending that is added.

    Inputs and outputs keep their names: where one has such a name, the other tensor gets a new one, behind an
    Identity where that is an input or output, too. Nodes keep theirs, by which they are asked for.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rename, one clash after the other, until there is none."""
        names, modified = _Names(model.graph), False
        while clashes := list(names.clashes()):
            for name, base in clashes:
                if names.are_there(name, base):
                    names.part(name, base)
            modified = True
        return PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No tensor but inputs and outputs has such a name."""
        super().ensures(model)
        names = _Names(model.graph)
        if any(name not in names.kept for name, _ in names.clashes()):
            raise PostconditionError("a tensor has a name that quantization adds")


class _Names:
    """Names of a graph's tensors: those that quantization may add endings to, and those that are ``kept``."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._tensors = {str(value.name) for value in values_of(graph)}
        self._bases = {str(value.name) for value in values_of(graph) if _is_calculated_with(value)}
        self._nodes = {str(node.name) for node in graph}
        given = [value for value in graph.inputs if not value.is_initializer()]
        self.kept = frozenset(str(value.name) for value in (*given, *graph.outputs))

    def clashes(self) -> Iterator[tuple[str, str]]:
        """Names, each with the tensor or node whose name it is with endings; kept ones last."""
        for name in sorted(self._tensors, key=lambda name: (name in self.kept, name)):
            base = _without_endings(name, self._bases, () if name in self.kept else self._nodes)
            if base is not None:
                yield name, base

    def are_there(self, name: str, base: str) -> bool:
        """Whether neither has been renamed meanwhile."""
        return name in self._tensors and (base in self._bases or base in self._nodes)

    def part(self, name: str, base: str) -> None:
        """Give the one that has no name to keep another one, or ``base`` where both have."""
        old = name if name not in self.kept else base
        new = self._free(old)
        if old in self.kept:
            _set_behind_identity(self._graph, old, new)
        else:
            for value in [value for value in values_of(self._graph) if value.name == old]:
                _rename(value, new)
            self._tensors.discard(old)
        self._tensors.add(new)
        self._bases = (self._bases - {old}) | {new}

    def _free(self, wished: str) -> str:
        """This name with as many underscores as no other name goes on from."""
        while any(name.startswith(wished) for name in (*self._tensors, *self._nodes)):
            wished += "_"
        return wished


def _is_calculated_with(value: ir.Value) -> bool:
    """Whether anything but an Identity, which stays as it is, gives or reads a value."""
    nodes = (value.producer(), *(use.node for use in value.uses()))
    return any(node is not None and node.op_type != "Identity" for node in nodes)


def _without_endings(name: str, *bases: Collection[str]) -> str | None:
    """The longest of these names that is ``name`` without some of the endings."""
    while (shorter := _ENDING.sub("", name)) != name:
        name = shorter
        if any(name in each for each in bases):
            return name
    return None


def _set_behind_identity(graph: ir.Graph, name: str, new: str) -> None:
    """Have all that calculates with an input or output do so under a new name."""
    value = next(each for each in values_of(graph) if each.name == name)
    if value.is_graph_input() and not value.is_initializer():
        copied = _identity(graph, value, new)
        for reader, place in [use for use in value.uses() if use.node is not copied]:
            reader.replace_input_with(place, copied.outputs[0])
        graph.insert_before(graph[0], copied)
        return
    _rename(value, new)
    copied = _identity(graph, value, name)
    graph.append(copied)
    for place, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[place] = copied.outputs[0]


def _rename(value: ir.Value, new: str) -> None:
    """A constant's tensor is called so, too."""
    value.const_value = copied_tensor(value)
    value.name = new


def _identity(graph: ir.Graph, value: ir.Value, name: str) -> ir.Node:
    node = ir.node("Identity", [value], name=free_node_name(graph, f"{name}_named"))
    copy = node.outputs[0]
    copy.name, copy.type, copy.shape = name, value.type, value.shape
    return node
