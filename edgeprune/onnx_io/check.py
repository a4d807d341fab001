"""Whether an ONNX model is what its readers take it for, before any library calculates with it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from edgeprune.limits import MOST_INPUT_VALUES
from edgeprune.system.imports import first_line

_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
_PARTS_OF_BYTES = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MOST_NODES_OF_FUNCTIONS = 1_000_000
_DEEPEST_FUNCTIONS = 64
_REASON_LENGTH = 300


class OnnxFaultError(Exception):
    """What is wrong with a model, as the end of a sentence that begins with the name of its file."""


def check_model(model: ModelProto) -> None:
    """Refuse what the ONNX standard does not allow; nodes in another order are put into that of calculation.

    Names may hold any characters; sizes of tensors are compared with the data inside the file.
    Data in other files: ``external_data.py``.

    Raises:
        OnnxFaultError: says what is wrong.
    """
    try:
        _check_texts(model)
        _check_versions(model)
        _check_functions(model)
        for tensor in tensors_of(model):
            _check_tensor(tensor)
        for graph in _graphs(model.graph):
            _check_values(graph)
        _check_inputs(model.graph)
        for graph in _graphs(model.graph):
            _check_announced(graph)
        _order(model.graph, frozenset())
        onnx.checker.check_model(_outline(model))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise OnnxFaultError(
            f"is not as the ONNX standard has it ({first_line(error, _REASON_LENGTH)})"
        ) from error


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """All constants: of graphs, of sparse ones their parts, in attributes, at any depth."""
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _of_nodes(graph.node)
    for function in model.functions:
        yield from _of_nodes(function.node)
        for node in function.node:
            for inner in subgraphs(node):
                for graph in _graphs(inner):
                    yield from (*graph.initializer, *_of_nodes(graph.node))


def bytes_of(tensor: TensorProto) -> int:
    """Bytes that the values of a tensor take, of a type other than text."""
    return int(-(-math.prod(tensor.dims) * _bits(tensor.data_type) // 8))


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                if sparse.dims:
                    yield from (sparse.values, sparse.indices)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes; protobuf reads no more than a hundred messages in each other."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The branches of an If, the body of a Loop or a Scan, without the graphs inside of them."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_texts(message: Message) -> None:
    """Protobuf gives bytes where a text is no UTF-8, and readers of names would each take them otherwise."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                _check_texts(inner)
        elif field.type == FieldDescriptor.TYPE_STRING:
            texts = (value,) if isinstance(value, (str, bytes)) else value
            if not all(isinstance(text, str) for text in texts):
                raise OnnxFaultError(f"has a text that is no UTF-8 ({field.full_name})")


def _check_versions(model: ModelProto) -> None:
    if model.ir_version < 1:
        raise OnnxFaultError("does not tell the version of ONNX that it is written in (ir_version)")
    domains = [entry.domain.removeprefix("ai.onnx") or "ai.onnx" for entry in model.opset_import]
    if "ai.onnx" not in domains and not model.functions:
        raise OnnxFaultError("does not tell the version of the operators that it uses (opset_import)")
    if len(set(domains)) < len(domains):
        raise OnnxFaultError("tells two versions of the same operators (opset_import)")


def _check_functions(model: ModelProto) -> None:
    """Functions that call themselves never end, and a few that call each other twice fill the memory."""
    functions = {_key(f.domain, f.name, f.overload): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise OnnxFaultError("defines a function twice")

    def calls(nodes: Iterable[NodeProto]) -> list[str]:
        return [_key(node.domain, node.op_type, node.overload) for node in _all_nodes(nodes)]

    inside = {key: calls(function.node) for key, function in functions.items()}
    sizes: dict[str, int] = {}

    def unfolded(called: list[str], depth: int) -> int:
        if depth > _DEEPEST_FUNCTIONS:
            raise OnnxFaultError(
                f"has functions that call themselves, or each other more than {_DEEPEST_FUNCTIONS} deep"
            )
        total = 0
        for key in called:
            if key in inside and key not in sizes:
                sizes[key] = unfolded(inside[key], depth + 1)
            total += sizes.get(key, 1)
        if total > _MOST_NODES_OF_FUNCTIONS:
            raise OnnxFaultError(f"has functions that unfold to more than {_MOST_NODES_OF_FUNCTIONS} nodes")
        return total

    if functions:
        unfolded([*calls(model.graph.node), *functions], 0)


def _key(domain: str, name: str, overload: str) -> str:
    return repr((domain, name, overload))


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from _all_nodes(inner.node)


def _check_tensor(tensor: TensorProto) -> None:
    told = f"constant {tensor.name!r}"
    if tensor.data_type not in _TYPES:
        raise OnnxFaultError(f"has a {told} of the unknown type {tensor.data_type}")
    if any(size < 0 for size in tensor.dims):
        raise OnnxFaultError(f"has a {told} of the shape {tuple(tensor.dims)}; sizes are 0 or more")
    fields = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    if tensor.data_location == TensorProto.EXTERNAL:
        if fields or tensor.raw_data or tensor.data_type == TensorProto.STRING:
            raise OnnxFaultError(f"has a {told} with data in another file that it cannot have there")
        return
    if len(fields) + bool(tensor.raw_data) > 1:
        raise OnnxFaultError(f"has a {told} with its data twice")
    values = math.prod(tensor.dims)
    if tensor.raw_data:
        known = tensor.data_type != TensorProto.STRING and len(tensor.raw_data) == bytes_of(tensor)
    else:
        known = _length(tensor) == sum(len(getattr(tensor, name)) for name in fields)
    if not known:
        raise OnnxFaultError(f"has a {told} of {values} values with data for another number")


def _length(tensor: TensorProto) -> int:
    """Entries in the field of values."""
    values = int(math.prod(tensor.dims))
    bits = _bits(tensor.data_type)
    return -(-values * bits // 8) if bits < 8 else values * (2 if tensor.data_type in _COMPLEX else 1)


def _bits(kind: int) -> int:
    name = TensorProto.DataType.Name(kind)
    if kind == TensorProto.STRING:
        return 8
    return _PARTS_OF_BYTES.get(name) or 8 * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _check_values(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.HasField("type"):
            _check_type(value.name, value.type)


def _check_type(name: str, kind: TypeProto) -> None:
    held = kind.WhichOneof("value")
    if held in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(kind, held)
        if tensor.elem_type not in _TYPES and tensor.elem_type != TensorProto.UNDEFINED:
            raise OnnxFaultError(f"has a tensor {name!r} of the unknown type {tensor.elem_type}")
    elif held in ("sequence_type", "optional_type"):
        _check_type(name, getattr(kind, held).elem_type)
    elif held == "map_type":
        _check_type(name, kind.map_type.value_type)


def _check_inputs(graph: GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    given: list[ValueInfoProto] = [value for value in graph.input if value.name not in constants]
    if not graph.output:
        raise OnnxFaultError("has no output")
    for value in given:
        kind = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or kind.elem_type == TensorProto.UNDEFINED:
            raise OnnxFaultError(f"has an input {value.name!r} that is no tensor of a known type")
        sizes = [dim.dim_value for dim in kind.shape.dim[1:] if dim.dim_value > 0]
        if math.prod(sizes) > MOST_INPUT_VALUES:
            raise OnnxFaultError(
                f"has an input {value.name!r} of {math.prod(sizes)} values; accepted are up to "
                f"{MOST_INPUT_VALUES}"
            )


def _check_announced(graph: GraphProto) -> None:
    """Refuse nodes whose constants ask for a tensor that no network needs: a few bytes would fill the memory.

    ConstantOfShape and Expand have a shape, Tile factors, Range a start, an end and a step. Sizes that are
    calculated are not known before they are run.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            constants |= dict.fromkeys(node.output, *[a.t for a in node.attribute if a.name == "value"][:1])
    for node in graph.node:
        wanted = _SIZES_OF.get(node.op_type)
        given = [constants.get(node.input[place]) for place in wanted or () if place < len(node.input)]
        if not given or any(tensor is None or not _are_sizes(tensor, node.op_type) for tensor in given):
            continue
        count = _announced(node.op_type, [numpy_helper.to_array(tensor) for tensor in given if tensor])
        if count > _MOST_ANNOUNCED:
            raise OnnxFaultError(
                f"has a node {node.name or node.op_type!r} that makes a tensor of {count} values; accepted "
                f"are up to {_MOST_ANNOUNCED}"
            )


_SIZES_OF = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2)}
"""Inputs that say how large the output is."""
_MOST_SIZES = 64
_MOST_ANNOUNCED = MOST_INPUT_VALUES // 4
_WHOLE_NUMBERS = frozenset({TensorProto.INT32, TensorProto.INT64})
_NUMBERS = _WHOLE_NUMBERS | {TensorProto.FLOAT, TensorProto.DOUBLE}


def _are_sizes(tensor: TensorProto, op: str) -> bool:
    """Whether a constant holds sizes: few numbers, in this file."""
    kinds = _NUMBERS if op == "Range" else _WHOLE_NUMBERS
    outside = tensor.data_location == TensorProto.EXTERNAL
    return not outside and tensor.data_type in kinds and math.prod(tensor.dims) <= _MOST_SIZES


def _announced(op: str, given: list[NDArray[Any]]) -> int:
    """Values of the output, as far as constants tell."""
    if op == "Range":
        start, end, step = (float(values.ravel()[0]) if values.size else 0.0 for values in given)
        length = (end - start) / step if step else 0.0
        return int(min(max(length, 0.0), 2.0**63)) if math.isfinite(length) else 2**63
    return math.prod(max(int(size), 1) for size in given[0].ravel().tolist())


def _order(graph: GraphProto, outside: frozenset[str]) -> None:
    """Check that all that is read is given, once, and put nodes behind those that they read."""
    known = outside | {v.name for v in graph.input} | {t.name for t in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    makers: dict[str, int] = {}
    for place, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in makers or name in known - outside):
                raise OnnxFaultError(f"gives {name!r} twice")
            if name:
                makers[name] = place
    needs = [{name for name in _read(node) if name not in known} for node in graph.node]
    for node, names in zip(graph.node, needs, strict=True):
        missing = next((name for name in names if name not in makers), None)
        if missing is not None:
            raise OnnxFaultError(
                f"has a node {node.name or node.op_type!r} that reads {missing!r}, which nothing gives"
            )
    _sort(graph, [{makers[name] for name in names} for names in needs])
    everything = known | makers.keys()
    for value in graph.output:
        if value.name not in everything:
            raise OnnxFaultError(f"has an output {value.name!r} that nothing gives")
    for node in graph.node:
        for inner in subgraphs(node):
            _order(inner, frozenset(everything))


def _sort(graph: GraphProto, before: list[set[int]]) -> None:
    if all(all(other < place for other in others) for place, others in enumerate(before)):
        return
    after: dict[int, list[int]] = {}
    for place, others in enumerate(before):
        for other in others:
            after.setdefault(other, []).append(place)
    left = [len(others) for others in before]
    ready = [place for place, count in enumerate(left) if count == 0]
    order = []
    while ready:
        place = heapq.heappop(ready)
        order.append(place)
        for following in after.get(place, ()):
            left[following] -= 1
            if left[following] == 0:
                heapq.heappush(ready, following)
    if len(order) < len(before):
        node = graph.node[next(place for place, count in enumerate(left) if count)]
        raise OnnxFaultError(f"goes round in a circle at node {node.name or node.op_type!r}")
    nodes = [NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _read(node: NodeProto) -> set[str]:
    """Names that a node reads, its graphs inside too."""
    names = {name for name in node.input if name}
    for inner in subgraphs(node):
        own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        own |= {name for each in inner.node for name in each.output}
        for each in inner.node:
            names |= _read(each) - own
        names |= {value.name for value in inner.output} - own
    return names


def _outline(model: ModelProto) -> ModelProto:
    """The model without the data of its constants, which were checked, for onnx's own checker."""
    outline = ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(outline, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":
            outline.graph.initializer.extend(
                TensorProto(name=t.name, data_type=TensorProto.FLOAT, dims=[0]) for t in value
            )
        else:
            _copy(outline.graph, field.name, value)
    for tensor in tensors_of(outline):
        if tensor.data_location == TensorProto.EXTERNAL:
            name = tensor.name
            tensor.Clear()
            tensor.CopyFrom(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[0]))
    for value in (*outline.graph.input, *outline.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # one of unknown rank has none, which it would refuse
    return outline


def _copy(into: ModelProto | GraphProto, name: str, value: object) -> None:
    if hasattr(value, "CopyFrom"):
        getattr(into, name).CopyFrom(value)
    elif isinstance(value, (str, int)):
        setattr(into, name, value)
    else:
        getattr(into, name).extend(value)
