"""A 32-bit ONNX file made ready to be quantized: checked, simplified, its shapes known."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxsim
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeprune.artifacts.arrays import Float32Array
from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.session import in_a_sentence, within
from edgeprune.quantization.passes.base import GraphPass, rewritten

MIN_OPSET = 13
"""From here on QuantizeLinear takes a scale for each channel."""

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
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

    def readers(self) -> dict[str, list[NodeProto]]:
        """Nodes that read each tensor; a graph output counts as read by an empty node."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.proto.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        for value in self.proto.graph.output:
            readers.setdefault(value.name, []).append(NodeProto())
        return readers

    def uses(self) -> dict[str, int]:
        """How many nodes read each constant or activation: a shared constant cannot be changed for one."""
        return dict(Counter(name for node in self.proto.graph.node for name in node.input))

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
    """Read, check and simplify (batch norms go into convolutions, constants are folded).

    Raises:
        QuantizationError: no ONNX file, quantized already, an opset below 13, several inputs, an input that
            is no float32 tensor of known size, nothing in it that 8 bits could serve, or constants that take
            longer than ``timeout_s`` seconds to calculate.
    """
    proto = read_onnx(path, QuantizationError)
    _check_form(proto, path.name)
    name, shape = _input_of(proto, path.name)

    def failed(reason: str) -> str:
        return f"{path.name} could not be simplified ({reason}); accepted is a valid ONNX file"

    with in_a_sentence(QuantizationError, failed, name=path.name):
        simplified, _ = within(lambda: onnxsim.simplify(proto), timeout_s, what="calculating its constants")
        inferred = onnx.shape_inference.infer_shapes(simplified, data_prop=True)
    _name_nodes(inferred)
    model = FloatModel(proto=inferred, input_name=name, input_shape=shape)
    if not any(is_weighted(node, model) for node in inferred.graph.node):
        raise QuantizationError(
            f"{path.name} has no convolution or matrix product with constant weights, so there is nothing to "
            f"quantize; accepted are networks with {', '.join(sorted(WEIGHTED_OPS))}"
        )
    return model


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
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        raise QuantizationError(
            f"{name} is of opset {opset}; a scale for each channel needs opset {MIN_OPSET} or later: export "
            f"the model again, or convert it with onnx.version_converter"
        )


def _input_of(proto: ModelProto, name: str) -> tuple[str, tuple[int, ...]]:
    constants = {i.name for i in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise QuantizationError(
            f"{name} has {len(inputs)} inputs; accepted is one, an image tensor: make the others constants"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        given = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        raise QuantizationError(f"{name} takes {given} inputs; accepted is a 32-bit floating point model")
    dims = [dim.dim_value for dim in tensor.shape.dim]
    unknown = [i for i, dim in enumerate(dims) if i > 0 and dim <= 0]
    if len(dims) < 2 or unknown:
        where = f"dimension {unknown[0]} is dynamic" if unknown else "its shape is unknown"
        raise QuantizationError(
            f"{name}: of input {inputs[0].name!r} {where}; only the batch may be: export it with a fixed size"
        )
    return inputs[0].name, tuple(dims[1:])


def _name_nodes(proto: ModelProto) -> None:
    """A name for every node, since what is left out is told by name."""
    taken = {node.name for node in proto.graph.node}
    for number, node in enumerate(proto.graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def bytes_per_image(shapes: dict[str, tuple[int, ...]], names: list[str]) -> int:
    """Bytes of these activations of one image."""
    return sum(4 * math.prod(shapes[name]) for name in names)
