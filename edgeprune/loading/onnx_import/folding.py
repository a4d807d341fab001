"""An ONNX file with its shapes known and its constants calculated, but for the batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

from edgeprune.errors import ModelLoadError
from edgeprune.loading.onnx_import.values import (
    Array,
    BatchMultiple,
    Constant,
    ImageIndices,
    Repeated,
    Size,
    Sizes,
    image_indices,
)
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.session import in_a_sentence
from edgeprune.system.quiet import quiet_compiled_code, quiet_streams

_log = logging.getLogger("edgeprune.loading")

_LEAST_OPSET = 7
_BATCHES = (2, 3)
"""A file is folded for both: what differs in proportion is the batch."""
_ENDLESS = frozenset({"Loop", "Scan"})
_SKIPPED = ["fuse_matmul_add_bias_into_gemm"]
"""Of the simplifier's steps: this one hides the batch in a product with other dimensions."""


@dataclass(frozen=True, kw_only=True)
class FoldedFile:
    """A graph whose shapes are those of ``batch`` images of ``input_shape``; some constants follow the batch.

    ``batch_dims`` are dimensions of tensors, by name, that follow the batch. ``fixed_batch`` is that of a
    file which takes no other; which dimensions follow it is then a guess: first ones of that size.
    """

    graph: ir.Graph
    opset: int
    constants: Mapping[str, Constant]
    batch_dims: Mapping[str, frozenset[int]]
    input_name: str
    input_shape: tuple[int, ...]
    fixed_batch: int | None


def fold(path: Path, input_shape: tuple[int, ...] | None) -> FoldedFile:
    """Read, check and simplify a file for images of a known size.

    Raises:
        ModelLoadError: no valid ONNX file, several inputs, one that is no float32 batch of images, of unknown
            size without ``input_shape``, loops, or constants that follow the batch other than as shapes.
    """
    proto = read_onnx(path, ModelLoadError)
    version = _checked_opset(proto, path.name)
    name, batch, shape = _input_of(proto, path.name, input_shape)
    if proto.functions:
        with in_a_sentence(ModelLoadError, lambda why: _unfoldable(path.name, why)):
            proto = inliner.inline_local_functions(proto)
    batches = (batch,) if batch is not None else _BATCHES
    several = [_simplified(proto, path.name, name, (count, *shape)) for count in batches]
    first = several[0]
    known: dict[str, Constant] = dict(_constants(first))
    if batch is None:
        known = _following_the_batch(first, several[1], path.name)
    return FoldedFile(
        graph=ir.from_proto(first).graph,
        opset=version,
        constants=known,
        batch_dims=_batch_dims(several),
        input_name=name,
        input_shape=shape,
        fixed_batch=batch,
    )


def _unfoldable(name: str, why: str) -> str:
    return f"{name} could not be simplified ({why}); accepted is a valid ONNX file"


def _checked_opset(proto: ModelProto, name: str) -> int:
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _LEAST_OPSET:
        raise ModelLoadError(
            f"{name} is of opset {opset}; accepted are {_LEAST_OPSET} and later: convert it with "
            "onnx.version_converter"
        )
    endless = next((node for node in proto.graph.node if node.op_type in _ENDLESS), None)
    if endless is not None:
        raise ModelLoadError(
            f"{name}: node {endless.name!r} ({endless.op_type}) repeats a part of the graph; accepted are "
            "files without loops: export the model without them"
        )
    other = next((o.name for o in proto.graph.output if o.type.WhichOneof("value") != "tensor_type"), None)
    if other is not None:
        raise ModelLoadError(f"{name} has an output {other!r} that is no tensor; accepted are tensors alone")
    return opset


def _input_of(
    proto: ModelProto, name: str, asked: tuple[int, ...] | None
) -> tuple[str, int | None, tuple[int, ...]]:
    """Name, fixed batch (``None``: any) and shape without the batch of the only input."""
    constants = {i.name for i in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise ModelLoadError(
            f"{name} has {len(inputs)} inputs; accepted is one, an image tensor: make the others constants"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        given = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        raise ModelLoadError(f"{name} takes {given} inputs; accepted is a 32-bit floating point model")
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    declared = "x".join("?" if d is None else str(d) for d in dims[1:])
    if len(dims) < 2:
        raise ModelLoadError(f"{name} does not take a batch of images; accepted is one input (batch, ...)")
    if asked is not None:
        fits = len(asked) == len(dims) - 1 and all(
            d in (None, a) for d, a in zip(dims[1:], asked, strict=False)
        )
        if not fits:
            raise ModelLoadError(
                f"{name} takes images of {declared} and the input shape given is "
                f"{'x'.join(map(str, asked))}; leave it out, or give one that fits"
            )
        return inputs[0].name, dims[0], tuple(asked)
    known = tuple(d for d in dims[1:] if d is not None)
    if len(known) < len(dims) - 1:
        raise ModelLoadError(
            f"{name} takes images of {declared}, whose size is not fixed; name the one to prune for with "
            "--input-shape"
        )
    return inputs[0].name, dims[0], known


def _simplified(proto: ModelProto, name: str, input_name: str, shape: tuple[int, ...]) -> ModelProto:
    with (
        in_a_sentence(ModelLoadError, lambda why: _unfoldable(name, why)),
        quiet_streams(stdout=True),
        quiet_compiled_code(_log),
    ):
        if not all(output.type.tensor_type.HasField("shape") for output in proto.graph.output):
            proto = onnx.shape_inference.infer_shapes(proto)  # the simplifier asks for them
        simplified, _ = onnxsim.simplify(
            proto, overwrite_input_shapes={input_name: list(shape)}, skipped_optimizers=_SKIPPED
        )
        inferred: ModelProto = onnx.shape_inference.infer_shapes(simplified, data_prop=True)
    return inferred


def _batch_dims(several: list[ModelProto]) -> dict[str, frozenset[int]]:
    """Dimensions that differ between the files of several batches; of one, first ones of the input's size."""
    shapes = [_shapes(proto) for proto in several]
    if len(shapes) == 1:
        batch = next(iter(shapes[0].values()))[0]
        return {name: frozenset({0} if shape[:1] == (batch,) else ()) for name, shape in shapes[0].items()}
    return {
        name: frozenset(
            d for d, (a, b) in enumerate(zip(shape, shapes[1].get(name, ()), strict=False)) if a != b
        )
        for name, shape in shapes[0].items()
    }


def _shapes(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    """Inferred shapes, that of the input first."""
    graph = proto.graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _constants(proto: ModelProto) -> Iterator[tuple[str, Array]]:
    for tensor in proto.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            yield node.output[0], _value(node)


def _value(node: NodeProto) -> Array:
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return numpy_helper.to_array(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    return np.zeros(0, dtype=np.float32)


def _following_the_batch(first: ModelProto, second: ModelProto, name: str) -> dict[str, Constant]:
    """Constants of a graph folded for two batches.

    Raises:
        ModelLoadError: the graphs, or some constants, differ in another way than shapes do.
    """
    one, other = (
        [node for node in proto.graph.node if node.op_type != "Constant"] for proto in (first, second)
    )
    if len(one) != len(other):
        raise _bound(name, "its graph has other nodes for another batch")
    values, others = dict(_constants(first)), dict(_constants(second))
    constants: dict[str, Constant] = {**values}
    for left, right in zip(one, other, strict=True):
        where = f"node {left.name!r} ({left.op_type})"
        if left.op_type != right.op_type or list(left.attribute) != list(right.attribute):
            raise _bound(name, f"{where} is another one for another batch")
        for mine, its in zip(left.input, right.input, strict=True):
            if (mine in values) != (its in others) or (mine not in values and mine != its):
                raise _bound(name, f"{where} reads other tensors for another batch")
            if mine in values:
                constants[mine] = _merged(values[mine], others[its], name, where)
    return constants


def _merged(first: Array, second: Array, name: str, where: str) -> Constant:
    """A constant by its values for both batches."""
    if first.shape == second.shape:
        if first.tobytes() == second.tobytes():
            return first
        if first.ndim <= 1 and np.issubdtype(first.dtype, np.integer):
            entries = [_entry(int(a), int(b)) for a, b in zip(first.flat, second.flat, strict=True)]
            if None not in entries:
                return Sizes(tuple(entry for entry in entries if entry is not None))
        raise _bound(name, f"a constant of {where} changes with the batch")
    differs = [d for d, (a, b) in enumerate(zip(first.shape, second.shape, strict=False)) if a != b]
    if first.ndim == second.ndim and len(differs) == 1:
        axis = differs[0]
        sliced = first.take([0], axis)
        sizes = (first.shape[axis], second.shape[axis])
        if sizes == _BATCHES and (first == sliced).all() and (second == sliced).all():
            return Repeated(sliced, axis)
        indices, others = image_indices(first), image_indices(second)
        if axis == 0 and sizes == _BATCHES and indices is not None and _same(indices, others):
            return indices
    raise _bound(name, f"a constant of {where} has another value for each image")


def _same(one: ImageIndices, other: ImageIndices | None) -> bool:
    return other is not None and one.step == other.step and np.array_equal(one.values, other.values)


def _entry(first: int, second: int) -> Size | None:
    if first == second:
        return first
    same = first % _BATCHES[0] == 0 and first * _BATCHES[1] == second * _BATCHES[0]
    return BatchMultiple(first // _BATCHES[0]) if same else None


def _bound(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{name} cannot be imported for any batch ({why}); accepted are networks that treat each image "
        "alike: export the model again with a dynamic batch, its shapes by that of its input"
    )


def batch_freed(folded: FoldedFile, node: ir.Node) -> Mapping[str, Constant]:
    """Constants of a node in a file of a fixed batch, with the batch taken out of them.

    What a ``Reshape`` gives is as long as its values make it, or as its input where that is what it asks for
    (steps may stand before the batch); what is joined with images is repeated for each.
    """
    batch, constants = folded.fixed_batch, folded.constants
    names = [value.name for value in node.inputs if value is not None and value.name in constants]
    changed: dict[str, Any] = {}
    output = node.outputs[0].shape
    if node.op_type in ("Reshape", "Expand") and output is not None and len(output) and names:
        shape = tuple(int(size) for size in output if isinstance(size, int))
        if len(shape) == len(output) and node.inputs[1] is not None and node.inputs[1].name in constants:
            lead: Size = -1
            if node.op_type == "Expand":
                lead = BatchMultiple(1) if shape[0] == batch else shape[0]
            if node.op_type == "Expand" or not _copies_first(node, constants[str(node.inputs[1].name)]):
                changed[str(node.inputs[1].name)] = Sizes((lead, *shape[1:]))
    elif node.op_type == "Gather":
        changed = _gathered_for_each(folded, node)
    elif node.op_type == "Concat" or batch != 1:
        for name in names:
            constant = constants[str(name)]
            if isinstance(constant, np.ndarray) and constant.ndim > 1 and len(constant) == batch:
                sliced = constant[:1]
                if _joins_images(node) and (constant == sliced).all():
                    changed[str(name)] = Repeated(sliced, 0) if node.op_type == "Concat" else sliced
    return {**constants, **changed} if changed else constants


def _copies_first(node: ir.Node, target: Constant) -> bool:
    """Whether a ``Reshape`` takes the first size of its input: then no size of its target is the batch."""
    allowed = node.attributes.get("allowzero")
    zeros_are_sizes = allowed is not None and bool(allowed.value)
    return isinstance(target, np.ndarray) and target.size > 0 and not target.flat[0] and not zeros_are_sizes


def _gathered_for_each(folded: FoldedFile, node: ir.Node) -> dict[str, Any]:
    """Indices of a ``Gather`` from a flat tensor of all images, as exporters write strides."""
    data, index = node.inputs[0], node.inputs[1]
    known = None if index is None else folded.constants.get(str(index.name))
    if data is None or data.shape is None or len(data.shape) != 1 or not isinstance(known, np.ndarray):
        return {}
    batch, size = folded.fixed_batch, data.shape[0]
    indices = image_indices(known)
    if indices is None or batch is None or not isinstance(size, int) or len(known) != batch or size % batch:
        return {}
    if batch > 1 and indices.step != size // batch:
        return {}
    return {str(index.name): ImageIndices(indices.values, size // batch)} if index is not None else {}


def _joins_images(node: ir.Node) -> bool:
    """Whether a node joins tensors whose first dimension is the batch."""
    axis = node.attributes.get("axis")
    if node.op_type == "Concat":
        return axis is not None and axis.value != 0
    return node.op_type in ("Add", "Sub", "Mul", "Div", "Where", "Min", "Max")
