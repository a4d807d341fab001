"""What running an ONNX model takes at least, by the sizes that it states, before anything is calculated."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from edgeprune.errors import EdgepruneError
from edgeprune.system.available import memory_limit_bytes

_SMALL = 64
"""Constants of so few values may be shapes, which inference needs; of larger ones it needs the sizes."""


def require_memory(model: ModelProto, path: Path, raises: type[EdgepruneError]) -> None:
    """Refuse a model that this machine, or the limits of this process, cannot hold while it runs.

    A lower bound, so that nothing is refused that could run: of one node, what it reads and writes.

    Raises:
        EdgepruneError: of the kind ``raises``; says how much it takes and how much there is.
    """
    available = memory_limit_bytes()
    needed = least_bytes(model)
    if available is not None and needed > available:
        raise raises(
            f"{path.name} takes at least {needed / 2**30:.1f} GiB to run with a batch of one, by the sizes "
            f"that it states; this machine allows {available / 2**30:.1f} GiB: give a model of a smaller "
            "input, or a machine with more memory"
        )


def least_bytes(model: ModelProto) -> int:
    """Bytes of the largest node's inputs and outputs that are no constants, batch and other unknown sizes 1.

    0 where no shapes can be inferred.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(_outline(model), data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return 0
    sizes = {value.name: _bytes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        sizes[tensor.name] = 0
    return max((_of_node(node, sizes) for node in graph.node), default=0)


def _of_node(node: NodeProto, sizes: dict[str, int]) -> int:
    return sum(sizes.get(name, 0) for name in {*node.input, *node.output})


def _bytes(value: ValueInfoProto) -> int:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return 0
    known = (dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim)
    return math.prod(max(size, 0) for size in known) * bytes_of_value(kind.elem_type)


def bytes_of_value(elem_type: int) -> int:
    """Bytes of a value of an ONNX type; 0 for texts and where no type is given."""
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return 0
    return int(helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def _outline(model: ModelProto) -> ModelProto:
    """The model with the sizes of its large constants instead of their values."""
    outline = ModelProto()
    outline.ir_version = model.ir_version
    outline.opset_import.extend(model.opset_import)
    outline.functions.extend(model.functions)
    graph = model.graph
    outline.graph.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(outline.graph, field).extend(getattr(graph, field))
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            outline.graph.initializer.append(tensor)
        else:
            outline.graph.initializer.append(
                TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            )
    return outline
