"""Files of the grid: blocks one after another in one network, as they are in the networks of users.

A block alone finds its weights in the cache from the run before; in a network of some megabytes the others
have driven them out. Such files are measured whole, and their nodes by shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, compose, helper, numpy_helper

from edgeprune.commands.targets.grid import GridPoint

_OPSET, _IR_VERSION = 17, 8
_PLAIN_BLOCKS, _INTEGER_BLOCKS = 15, 17
"""Of a file: several megabytes of weights, as networks of users have."""
_OTHER_SIGN_EVERY, _OTHER_SIGN_AT = 4, 3
_JOINT = "joint-"
SMALLEST = "smallest"
"""The file of almost nothing: what it takes, every run takes."""


@dataclass(frozen=True, kw_only=True)
class GridFile:
    """One network of the grid; ``other_sign``: in 8 bits of the sign that the target's kernels like less."""

    name: str
    points: tuple[GridPoint, ...]
    in_8_bits: bool = False
    other_sign: bool = False

    def model(self) -> onnx.ModelProto:
        """In 32 bits. A node of block ``i`` is called ``bi/...``."""
        if not self.points:
            return _smallest()
        joined = _Joined()
        for place, point in enumerate(self.points):
            joined.append(place, point)
        return joined.model()


def grid_files(points: Sequence[GridPoint]) -> tuple[GridFile, ...]:
    """The points in 32 bits, those that are so measured in 8 bits, and the smallest network."""
    integer = [point for point in points if point.in_8_bits]
    files = [GridFile(name=SMALLEST, points=())]
    files += [
        GridFile(name=f"fp32-{place}", points=part)
        for place, part in enumerate(_dealt(points, _PLAIN_BLOCKS))
    ]
    files += [
        GridFile(
            name=f"int8-{place}",
            points=part,
            in_8_bits=True,
            other_sign=place % _OTHER_SIGN_EVERY == _OTHER_SIGN_AT,
        )
        for place, part in enumerate(_dealt(integer, _INTEGER_BLOCKS))
    ]
    return tuple(files)


def is_joint(node: str) -> bool:
    """Whether a node only joins two blocks: it moves one value, or repeats it."""
    return _JOINT in node


def block_of(node: str) -> str:
    """The block that a node is of, by its name; empty where the runtime named it."""
    return node.partition("/")[0] if "/" in node else ""


def _dealt(points: Sequence[GridPoint], each: int) -> list[tuple[GridPoint, ...]]:
    """In turns, so that every file has blocks of all families."""
    count = math.ceil(len(points) / each)
    return [tuple(points[place::count]) for place in range(count)]


class _Joined:
    """A graph that grows by blocks.

    The input of a block is one value of the block before, repeated: onnxruntime then runs them in order, and
    neither finds its input in memory that nobody has just written.
    """

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._last: ValueInfoProto | None = None

    def append(self, place: int, point: GridPoint) -> None:
        """Put a block behind the others."""
        known = onnx.shape_inference.infer_shapes(point.model()).graph
        graph: GraphProto = compose.add_prefix_graph(known, f"b{place}/")
        given = graph.input[0]
        if self._last is None:
            self._inputs = [given]
        else:
            self._repeat(self._one_value(f"{_JOINT}{place}"), given)
        self._nodes += graph.node
        self._weights += graph.initializer
        self._last = graph.output[0]

    def model(self) -> onnx.ModelProto:
        """All that was appended; its output is one value, for which no memory is fetched anew in a run."""
        assert self._last is not None
        end = self._one_value(f"{_JOINT}end")
        outputs = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1] * len(_sizes(self._last)))]
        graph = helper.make_graph(self._nodes, "grid", self._inputs, outputs, self._weights)
        return _model(graph)

    def _one_value(self, name: str) -> str:
        assert self._last is not None
        rank = len(_sizes(self._last))
        places = [
            self._constant(f"{name}-{which}", values)
            for which, values in (("from", [0] * rank), ("to", [1] * rank), ("axes", range(rank)))
        ]
        self._nodes.append(
            helper.make_node("Slice", [self._last.name, *places], [f"{name}-value"], f"{name}-slice")
        )
        return f"{name}-value"

    def _repeat(self, value: str, given: ValueInfoProto) -> None:
        flat = self._constant(f"{value}-one", [1] * len(_sizes(given)))
        shape = self._constant(f"{value}-shape", _sizes(given))
        self._nodes += [
            helper.make_node("Reshape", [value, flat], [f"{value}-flat"], f"{value}-reshape"),
            helper.make_node("Expand", [f"{value}-flat", shape], [given.name], f"{value}-expand"),
        ]

    def _constant(self, name: str, values: Sequence[int]) -> str:
        self._weights.append(numpy_helper.from_array(np.array(list(values), np.int64), name))
        return name


def _sizes(value: ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _smallest() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    return _model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "n0")], "grid", ends[:1], ends[1:])
    )


def _model(graph: GraphProto) -> onnx.ModelProto:
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
