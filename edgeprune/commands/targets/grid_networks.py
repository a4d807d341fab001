"""Small ONNX networks with random weights whose times tell what each kind of node takes on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_OPSET = 17
_IR_VERSION = 8
ACTIVATIONS = ("", "Relu", "Relu", "Clip", "HardSwish", "SiLU", "Gelu", "Sigmoid")


@dataclass
class NetworkBuilder:
    """An image network node by node; ``shape`` is that of ``value``, the last tensor (without the batch)."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    value: str = "x"
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._input = self.shape

    def add(self, op_type: str, *inputs: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> str:
        """Append a node that reads ``inputs``, the last tensor where there are none."""
        output = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                op_type, inputs or [self.value], [output], name=f"n{len(self.nodes)}", **attributes
            )
        )
        self.value, self.shape = output, shape or self.shape
        return output

    def constant(self, values: np.ndarray) -> str:
        """A constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def random(self, *shape: int) -> str:
        """Random weights, of a size that keeps values bounded."""
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant((self.rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32))

    def convolution(
        self, out: int, kernel: int, *, stride: int = 1, groups: int = 1, act: str = "Relu"
    ) -> None:
        """A convolution of "same" padding with a bias, and what follows it."""
        channels, high, wide = self.shape
        weight, bias = self.random(out, channels // groups, kernel, kernel), self.random(out)
        size = (out, -(-high // stride), -(-wide // stride))
        self.add(
            "Conv", self.value, weight, bias, shape=size, group=groups, strides=[stride] * 2,
            pads=[(kernel - 1) // 2] * 2 + [kernel // 2] * 2, kernel_shape=[kernel] * 2,
        )  # fmt: skip
        self.activation(act)

    def activation(self, name: str) -> None:
        """One of ``ACTIVATIONS``, as exporters write it."""
        given = self.value
        if name == "SiLU":
            self.add("Mul", given, self.add("Sigmoid"))
        elif name == "Gelu":
            half, one, root = (self.constant(np.array(v, np.float32)) for v in (0.5, 1.0, 2**0.5))
            grown = self.add("Add", self.add("Erf", self.add("Div", given, root)), one)
            self.add("Mul", self.add("Mul", given, grown), half)
        elif name == "Clip":
            low, high = (self.constant(np.array(v, np.float32)) for v in (0.0, 6.0))
            self.add("Clip", given, low, high)
        elif name:
            self.add(name)

    def squeeze_excite(self, ratio: int = 4) -> None:
        """Channels scaled by what their means say."""
        given, size = self.value, self.shape
        self.add("GlobalAveragePool", shape=(size[0], 1, 1))
        self.convolution(max(4, size[0] // ratio), 1)
        self.convolution(size[0], 1, act="HardSigmoid" if self.rng.random() < 0.5 else "Sigmoid")
        self.add("Mul", given, self.value, shape=size)

    def residual(self, inside: Callable[[], None]) -> None:
        """What ``inside`` appends, added to what it began with where the shapes agree."""
        given, size = self.value, self.shape
        inside()
        if self.shape == size:
            self.add("Add", given, self.value)

    def joined(self, *branches: Callable[[], None]) -> None:
        """Branches from one tensor, joined along the channels."""
        given, size = self.value, self.shape
        ends, channels = [], 0
        for branch in branches:
            self.value, self.shape = given, size
            branch()
            ends.append(self.value)
            channels += self.shape[0]
        self.add("Concat", *ends, shape=(channels, *self.shape[1:]), axis=1)

    def pool(self, op_type: str, kernel: int, stride: int) -> None:
        """A pooling with "same" padding."""
        channels, high, wide = self.shape
        low, top = (kernel - 1) // 2, kernel // 2
        self.add(
            op_type, shape=(channels, (high - 1) // stride + 1, (wide - 1) // stride + 1),
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[low, low, top, top],
        )  # fmt: skip

    def resize(self, factor: int, method: str) -> None:
        """Images enlarged by a whole factor."""
        scales = self.constant(np.array([1, 1, factor, factor], np.float32))
        channels, high, wide = self.shape
        where = "asymmetric" if method == "nearest" else "half_pixel"
        self.add(
            "Resize", self.value, "", scales, shape=(channels, high * factor, wide * factor), mode=method,
            coordinate_transformation_mode=where,
            **({"nearest_mode": "floor"} if method == "nearest" else {}),
        )  # fmt: skip

    def shuffle(self, groups: int) -> None:
        """Channels of groups interleaved."""
        channels, high, wide = self.shape
        split = self.constant(np.array([1, groups, channels // groups, high, wide], np.int64))
        whole = self.constant(np.array([1, channels, high, wide], np.int64))
        self.add("Reshape", self.value, split)
        self.add("Transpose", perm=[0, 2, 1, 3, 4])
        self.add("Reshape", self.value, whole)

    def split(self) -> str:
        """The first half of the channels goes on; the name of the second is returned."""
        channels = self.shape[0]
        sizes = self.constant(np.array([channels // 2, channels - channels // 2], np.int64))
        first = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                "Split", [self.value, sizes], [first, f"{first}b"], name=f"n{len(self.nodes)}", axis=1
            )
        )
        self.value, self.shape = first, (channels // 2, *self.shape[1:])
        return f"{first}b"

    def slice(self, axis: int, count: int) -> None:
        """The first ``count`` of an axis (0: channels) go on."""
        starts, ends, axes = (self.constant(np.array([v], np.int64)) for v in (0, count, axis + 1))
        size = tuple(count if place == axis else length for place, length in enumerate(self.shape))
        self.add("Slice", self.value, starts, ends, axes, shape=size)

    def border(self, width: int) -> None:
        """Zeros around images."""
        channels, high, wide = self.shape
        pads = self.constant(np.array([0, 0, width, width] * 2, np.int64))
        self.add("Pad", self.value, pads, shape=(channels, high + 2 * width, wide + 2 * width))

    def tokens(self) -> None:
        """Images to rows of positions."""
        channels, high, wide = self.shape
        self.add("Reshape", self.value, self.constant(np.array([1, channels, high * wide], np.int64)))
        self.add("Transpose", shape=(high * wide, channels), perm=[0, 2, 1])

    def norm(self) -> None:
        """A layer norm over the last axis."""
        width = self.shape[-1]
        scale, shift = (self.constant(np.full(width, v, np.float32)) for v in (1.0, 0.0))
        self.add("LayerNormalization", self.value, scale, shift, axis=-1)

    def linear(self, out: int, act: str = "") -> None:
        """A product with a weight matrix and a bias, on rows."""
        weight, bias = self.random(self.shape[-1], out), self.random(out)
        self.add("Add", self.add("MatMul", self.value, weight), bias, shape=(*self.shape[:-1], out))
        self.activation(act)

    def attention(self, heads: int) -> None:
        """Self-attention of rows."""
        count, width = self.shape
        given = self.value
        parts = self.constant(np.array([1, count, heads, width // heads], np.int64))
        whole = self.constant(np.array([1, count, width], np.int64))
        made = []
        for axes in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            self.value, self.shape = given, (count, width)
            self.linear(width)
            made.append(self.add("Transpose", self.add("Reshape", self.value, parts), perm=axes))
        root = self.constant(np.array((width // heads) ** -0.5, np.float32))
        self.add("Mul", self.add("MatMul", made[0], made[1]), root)
        self.add("MatMul", self.add("Softmax", axis=-1), made[2])
        self.add("Reshape", self.add("Transpose", perm=[0, 2, 1, 3]), whole)
        self.shape = (count, width)
        self.linear(width)

    def model(self) -> onnx.ModelProto:
        """The network."""
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
            for name, size in (("x", [1, *self._input]), (self.value, None))
        ]
        graph = helper.make_graph(self.nodes, "grid", ends[:1], ends[1:], self.weights)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
