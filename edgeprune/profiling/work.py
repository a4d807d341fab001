"""Work of an ONNX model for one input: multiply-accumulates and bytes moved per node, parameters, size.

Counts follow the shapes that ``onnx.shape_inference`` finds. Sources: the ONNX operator specification.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnxsim
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from edgeprune.errors import ProfileError
from edgeprune.limits import RUN_TIMEOUT_S
from edgeprune.onnx_io.check import tensors_of
from edgeprune.onnx_io.inputs import dynamic_sentence, model_inputs
from edgeprune.onnx_io.memory import bytes_of_value
from edgeprune.onnx_io.normalize import normal_form
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.session import within
from edgeprune.profiling.kinds import OpWork, Shape, Tensors, free_work, node_work, of_one_input
from edgeprune.showing import first_few
from edgeprune.system.imports import first_line
from edgeprune.system.quiet import quiet_compiled_code

_LOG = logging.getLogger("edgeprune.profiling")

_SHOWN = 3

_FUSED_AFTER_GEMM = frozenset({"LeakyRelu", "Relu", "Sigmoid", "Tanh"})
# onnxruntime folds or fuses these into the convolution whose only reader they are.
_FUSED_AFTER_CONV = _FUSED_AFTER_GEMM | {"BatchNormalization", "Clip", "HardSigmoid"}
_UNCOUNTED_OPS = frozenset({"Attention", "Einsum", "If", "Loop", "MultiHeadAttention", "Scan"})
# Where ops on integers read values; their other inputs are scales and zero points.
_VALUES_AT = {
    **{"DequantizeLinear": (0,), "QuantizeLinear": (0,), "QLinearConv": (3, 8), "QLinearMatMul": (0, 3)},
    **{"ConvInteger": (0, 1), "MatMulInteger": (0, 1)},
}
_BYTE_TYPES = frozenset({TensorProto.INT8, TensorProto.UINT8})
_FLOAT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def count_work(onnx_path: str | Path) -> tuple[OpWork, ...]:
    """Work of every node for one input, in graph order.

    Convolutions (grouped too), transposed convolutions, Gemm, MatMul, LSTM, GRU and RNN have MACs; other
    nodes only move bytes. Nodes that onnxruntime folds, fuses into a convolution or skips are
    ``OpKind.FREE``. An op whose MACs are not counted is logged.

    Raises:
        ProfileError: the file is missing or no ONNX, a size other than the batch is dynamic, or the
            shapes of a convolution or matrix product cannot be inferred.
    """
    model = _load(Path(onnx_path))
    batch = fix_batch(model, Path(onnx_path).name)
    graph = _inferred(model, Path(onnx_path).name)
    tensors = known_tensors(graph)
    if _unknown(graph, tensors):
        # Sizes that are computed in the graph become constants once the batch is fixed.
        simplified = _simplified(Path(onnx_path), {x.name: _dims(x) for x in model.graph.input})
        fix_batch(simplified, Path(onnx_path).name)
        graph = _inferred(simplified, Path(onnx_path).name)
        tensors = known_tensors(graph)
    if unknown := _unknown(graph, tensors):
        _LOG.warning(
            "%s: the sizes of %s are unknown, their bytes are not counted",
            Path(onnx_path).name,
            first_few(unknown, _SHOWN),
        )
    fused = _fused_nodes(graph)
    nodes = (_node_work(node, tensors, index in fused) for index, node in enumerate(graph.node))
    work = tuple(of_one_input(each, batch) for each in nodes)
    uncounted = sorted({node.op_type for node in graph.node} & _UNCOUNTED_OPS)
    if uncounted:
        _LOG.warning("%s: MACs of %s are not counted", Path(onnx_path).name, ", ".join(uncounted))
    return work


def _simplified(path: Path, shapes: dict[str, list[int]]) -> ModelProto:
    try:
        model = normal_form(read_onnx(path, ProfileError), path, ProfileError)
        with quiet_compiled_code(_LOG):
            simplified: ModelProto = within(
                lambda: onnxsim.simplify(model, overwrite_input_shapes=shapes)[0],
                RUN_TIMEOUT_S,
                what="calculating its constants",
            )
    except Exception as error:  # onnxsim's own exceptions share no base but Exception
        raise ProfileError(
            f"{path.name}: sizes of its tensors cannot be found ({first_line(error)}); give a valid file"
        ) from error
    return simplified


def _dims(value: ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _inferred(model: ModelProto, where: str) -> GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ProfileError(
            f"{where}: shapes cannot be inferred ({first_line(error)}); give a valid file"
        ) from error


def _unknown(graph: GraphProto, tensors: Tensors) -> tuple[str, ...]:
    """Tensors that nodes read or give and whose shape was not inferred."""
    named = (name for node in graph.node for name in (*node.input, *node.output) if name)
    return tuple(dict.fromkeys(name for name in named if name not in tensors.shapes))


def total_macs(onnx_path: str | Path) -> int:
    """Multiply-accumulates of one input through the whole model.

    Raises:
        ProfileError: as :func:`count_work`.
    """
    return sum(op.macs for op in count_work(onnx_path))


def count_parameters(onnx_path: str | Path) -> int:
    """Values in constant tensors of at least one dimension that some node computes with.

    Quantized weights and biases count as the values that they stand for, scales and zero points do not; nor
    do other integers, which are shapes and indices.

    Raises:
        ProfileError: the file is missing or no ONNX.
    """
    graph = _load(Path(onnx_path)).graph
    constants = _constant_tensors(graph)
    scaled = {n.output[0] for n in graph.node if _cast_weight(n, constants)}
    names = {
        name
        for node in graph.node
        if not (node.op_type == "Mul" and scaled & set(node.input))
        for name in _parameters_read(node, constants)
    }
    return sum(math.prod(constants[name].dims) for name in names)


def _cast_weight(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a node makes numbers of 8-bit constants, as of a weight that is stored so."""
    stored = constants.get(node.input[0]) if node.op_type == "Cast" else None
    return stored is not None and stored.data_type in _BYTE_TYPES


def _parameters_read(node: NodeProto, constants: Mapping[str, TensorProto]) -> list[str]:
    positions = (0,) if _cast_weight(node, constants) else _VALUES_AT.get(node.op_type)
    if positions is None:
        read = [n for n in node.input if n in constants and constants[n].data_type in _FLOAT_TYPES]
    else:
        read = [node.input[at] for at in positions if at < len(node.input) and node.input[at] in constants]
    return [name for name in read if len(constants[name].dims) > 0]


def size_bytes(onnx_path: str | Path) -> int:
    """Size of the file, and of the external data files that it names.

    Raises:
        ProfileError: the file or its external data is missing, or it is no ONNX.
    """
    path = Path(onnx_path)
    external = {
        ExternalDataInfo(tensor).location
        for tensor in tensors_of(read_onnx(path, ProfileError, external_data=False))
        if uses_external_data(tensor)
    }
    return path.stat().st_size + sum((path.parent / location).stat().st_size for location in external)


def _load(path: Path) -> ModelProto:
    return normal_form(read_onnx(path, ProfileError, external_data=False), path, ProfileError)


def fix_batch(model: ModelProto, where: str) -> int:
    """Fix the batch of every input, in place, forget shapes that follow from another, and return it.

    It is one, or that of a file which fixes another: sizes inside such a file may repeat it.

    Raises:
        ProfileError: another size is dynamic.
    """
    # Stored shapes may carry the symbol of the batch, which would hide the sizes found at batch 1.
    del model.graph.value_info[:]
    for taken in model_inputs(model):
        if taken.dynamic:
            raise ProfileError(dynamic_sentence(taken, where))
    constants = {tensor.name for tensor in model.graph.initializer}
    batches = [
        given.type.tensor_type.shape.dim[0]
        for given in model.graph.input
        if given.name not in constants and given.type.tensor_type.shape.dim
    ]
    stated = {batch.dim_value for batch in batches}
    batch = stated.pop() if len(stated) == 1 else 0
    for each in batches:
        each.dim_value = max(1, batch)
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return max(1, batch)


def _constant_tensors(graph: GraphProto) -> dict[str, TensorProto]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    return tensors


def known_tensors(graph: GraphProto) -> Tensors:
    """Shapes and constants that a graph states."""
    constant = _constant_tensors(graph)
    shapes: dict[str, Shape] = {name: tuple(tensor.dims) for name, tensor in constant.items()}
    item_bytes = {name: bytes_of_value(tensor.data_type) for name, tensor in constant.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = kind.shape.dim
        known = kind.HasField("shape") and all(d.HasField("dim_value") for d in dims)
        if known and value.name not in shapes:
            shapes[value.name] = tuple(d.dim_value for d in dims)
            item_bytes[value.name] = bytes_of_value(kind.elem_type)
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
    return Tensors(shapes=shapes, item_bytes=item_bytes, constants=frozenset(constants))


def _fused_nodes(graph: GraphProto) -> frozenset[int]:
    """Positions of nodes that run inside the convolution or matrix product before them."""
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for output in graph.output:
        readers[output.name] = readers.get(output.name, 0) + 1
    host_of: dict[str, str] = {}
    fused: set[int] = set()
    for index, node in enumerate(graph.node):
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            host_of[node.output[0]] = node.op_type
            continue
        host = host_of.get(node.input[0]) if node.input else None
        allowed = _FUSED_AFTER_GEMM if host == "Gemm" else _FUSED_AFTER_CONV
        if host is not None and node.op_type in allowed and readers[node.input[0]] == 1:
            fused.add(index)
            if node.op_type == "BatchNormalization":
                host_of[node.output[0]] = host
    return frozenset(fused)


def _node_work(node: NodeProto, tensors: Tensors, fused: bool) -> OpWork:
    if fused or all(o in tensors.constants for o in node.output if o):
        return free_work(node)
    work = node_work(node, tensors)
    return replace(work, macs=0) if node.op_type in _UNCOUNTED_OPS else work
