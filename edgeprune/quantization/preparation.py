"""A 32-bit ONNX file made ready to be quantized: checked, simplified, its shapes known."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxsim
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeprune.artifacts.arrays import Float32Array
from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.check import subgraphs
from edgeprune.onnx_io.inputs import ModelInput, dynamic_sentence, only_input
from edgeprune.onnx_io.normalize import normal_form
from edgeprune.onnx_io.opset import LEAST_OPSET, opset_of
from edgeprune.onnx_io.passes.base import GraphPass, free_name, rewritten
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.session import in_a_sentence, within
from edgeprune.quantization.measured_shapes import with_measured_shapes
from edgeprune.system.quiet import quiet_compiled_code

_LOG = logging.getLogger("edgeprune.quantization")
MIN_OPSET = 13
"""From here on QuantizeLinear takes a scale for each channel."""

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
MOVING_OPS = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice", "Split", "Pad"}
    | {"DepthToSpace", "SpaceToDepth", "Identity", "Dropout"}
)
"""Ops that give the values they read, or some of them, at other places."""
_QUANTIZED_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
    | {"ConvInteger", "MatMulInteger", "QGemm", "QLinearAdd"}
)


@dataclass(frozen=True, kw_only=True)
class FloatModel:
    """A checked model with one float32 input of known shape (channels, ...), batch aside."""

    proto: ModelProto
    input_name: str
    input_shape: tuple[int, ...]

    @cached_property
    def weights(self) -> dict[str, Float32Array]:
        """Constants of the graph by name, float32 ones."""
        return {
            i.name: numpy_helper.to_array(i)
            for i in self.proto.graph.initializer
            if i.data_type == TensorProto.FLOAT
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every float32 activation without its batch, where shape inference tells it."""
        graph, shapes = self.proto.graph, {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            if tensor.elem_type != TensorProto.FLOAT or value.name in self.weights:
                continue
            dims = [dim.dim_value for dim in tensor.shape.dim]
            if len(dims) > 1 and all(d > 0 for d in dims[1:]):
                shapes[value.name] = tuple(dims[1:])
        return shapes

    @cached_property
    def unsized(self) -> frozenset[str]:
        """The other float32 activations, whose ranges nobody gathers."""
        given = (*self.proto.graph.value_info, *self.proto.graph.output)
        floats = {v.name for v in given if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        return frozenset(floats - self.shapes.keys() - self.weights.keys())

    def readers(self) -> dict[str, list[NodeProto]]:
        """Nodes that read each tensor; an output, and a branch that reads it, count as an empty node."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.proto.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
            for name in captured(node):
                readers.setdefault(name, []).append(NodeProto())
        for value in self.proto.graph.output:
            readers.setdefault(value.name, []).append(NodeProto())
        return readers

    def uses(self) -> dict[str, int]:
        """How often each tensor is read, by outputs and branches, too; what is shared stays as it is."""
        return {name: len(readers) for name, readers in self.readers().items()}

    def rewritten(self, *passes: GraphPass) -> FloatModel:
        """The model after these passes, its shapes inferred again."""
        proto = onnx.shape_inference.infer_shapes(rewritten(self.proto, *passes), data_prop=True)
        return FloatModel(proto=proto, input_name=self.input_name, input_shape=self.input_shape)

    def replaced(self, constants: dict[str, Float32Array]) -> FloatModel:
        """The same model with other values of some constants."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for initializer in proto.graph.initializer:
            if initializer.name in constants:
                value = np.ascontiguousarray(constants[initializer.name], dtype=np.float32)
                initializer.CopyFrom(numpy_helper.from_array(value, initializer.name))
        return FloatModel(proto=proto, input_name=self.input_name, input_shape=self.input_shape)


def load_float(path: Path, *, timeout_s: float | None = None) -> FloatModel:
    """Read, check and simplify (batch norms go into convolutions, constants are folded) for 8 bits.

    Raises:
        QuantizationError: as :func:`load_simplified`, an opset below 13, several inputs, an input that is no
            float32 tensor of known size, or nothing in it that 8 bits could serve.
    """
    proto = load_plain(path)
    opset = opset_of(proto)
    if opset < MIN_OPSET:
        raise QuantizationError(
            f"{path.name} is of opset {opset}; a scale for each channel needs opset {MIN_OPSET} or later: "
            f"export the model again, or convert it with onnx.version_converter"
        )
    taken = _sized_input(proto, path)
    simplified = _simplified(proto, path, timeout_s)
    stated = with_measured_shapes(simplified, taken, path.name, timeout_s)
    shape = tuple(size for size in taken.image if size is not None)
    model = FloatModel(proto=stated, input_name=taken.name, input_shape=shape)
    if not any(is_weighted(node, model) for node in stated.graph.node):
        raise QuantizationError(
            f"{path.name} has no convolution or matrix product with constant weights, so there is nothing to "
            f"quantize; accepted are networks with {', '.join(sorted(WEIGHTED_OPS))}"
        )
    return model


def load_simplified(path: Path, timeout_s: float | None) -> ModelProto:
    """Read and simplify a file of whichever sizes, inputs and opset from 7 on.

    Raises:
        QuantizationError: as :func:`load_plain`, or constants that take longer than ``timeout_s`` seconds to
            calculate.
    """
    return _simplified(load_plain(path), path, timeout_s)


def load_plain(path: Path) -> ModelProto:
    """Read a file and bring it to normal form.

    Raises:
        QuantizationError: no ONNX file, quantized already, an output that is no tensor, or an opset below 7.
    """
    proto = normal_form(read_onnx(path, QuantizationError), path, QuantizationError)
    _check_form(proto, path.name)
    return proto


def _simplified(proto: ModelProto, path: Path, timeout_s: float | None) -> ModelProto:
    def failed(reason: str) -> str:
        return f"{path.name} could not be simplified ({reason}); accepted is a valid ONNX file"

    with in_a_sentence(QuantizationError, failed, name=path.name), quiet_compiled_code(_LOG):
        simplified, _ = within(lambda: onnxsim.simplify(proto), timeout_s, what="calculating its constants")
        del simplified.graph.value_info[:]  # sizes that were calculated are constants now
        inferred: ModelProto = onnx.shape_inference.infer_shapes(simplified, data_prop=True)
    _name_nodes(inferred)
    return inferred


def captured(node: NodeProto) -> Iterator[str]:
    """What the branches of an If, or the body of a Loop or a Scan, read; names of their own among it."""
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from inner.input
            yield from captured(inner)
        yield from (value.name for value in graph.output)


def is_weighted(node: NodeProto, model: FloatModel) -> bool:
    """Whether a node multiplies an activation with constant weights."""
    return node.op_type in WEIGHTED_OPS and len(node.input) > 1 and node.input[1] in model.weights


def _check_form(proto: ModelProto, name: str) -> None:
    present = sorted({node.op_type for node in proto.graph.node} & _QUANTIZED_OPS)
    if present:
        raise QuantizationError(
            f"{name} is quantized already (it has {', '.join(present)}); give the 32-bit file that it was "
            "made from"
        )
    other = next((o.name for o in proto.graph.output if o.type.WhichOneof("value") != "tensor_type"), None)
    if other is not None:
        raise QuantizationError(
            f"{name} has an output {other!r} that is no tensor; accepted are tensors alone"
        )
    opset = opset_of(proto)
    if opset < LEAST_OPSET:
        raise QuantizationError(
            f"{name} is of opset {opset}; accepted are opset {LEAST_OPSET} and later: export the model again"
        )


def float_input(proto: ModelProto, path: Path) -> ModelInput:
    """The one input of a model, of 32-bit numbers.

    Raises:
        QuantizationError: there are several, or it is of another type.
    """
    taken = only_input(proto, path, QuantizationError)
    if taken.elem_type != TensorProto.FLOAT:
        given = helper.tensor_dtype_to_np_dtype(taken.elem_type)
        raise QuantizationError(
            f"{path.name} takes {given} inputs; accepted is a 32-bit floating point model"
        )
    return taken


def _sized_input(proto: ModelProto, path: Path) -> ModelInput:
    taken = float_input(proto, path)
    if taken.dynamic:
        raise QuantizationError(dynamic_sentence(taken, path.name))
    if len(taken.sizes or ()) < 2:
        raise QuantizationError(
            f"{path.name}: input {taken.name!r} has no dimension beside the batch; accepted are images"
        )
    return taken


def _name_nodes(proto: ModelProto) -> None:
    """A name for every node, since what is left out is told by name."""
    taken = {node.name for node in proto.graph.node}
    for number, node in enumerate(proto.graph.node):
        if not node.name:
            node.name = free_name(taken, f"{node.op_type}_{number}")
            taken.add(node.name)


def bytes_per_image(shapes: dict[str, tuple[int, ...]], names: list[str]) -> int:
    """Bytes of these activations of one image."""
    return sum(4 * math.prod(shapes[name]) for name in names)
