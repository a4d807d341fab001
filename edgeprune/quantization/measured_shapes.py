"""Shapes that inference cannot tell, such as those behind sizes that the graph calculates: seen in a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.inputs import ModelInput
from edgeprune.onnx_io.intermediate_outputs import tapped_session
from edgeprune.onnx_io.session import in_a_sentence, run_session

_BATCHES = (2, 3)


def with_measured_shapes(
    model: ModelProto, taken: ModelInput, file_name: str, timeout_s: float | None
) -> ModelProto:
    """The model with the shapes of those float32 activations stated whose sizes, but for the batch, it lacks.

    The model runs on noise, in batches of two sizes where the batch is dynamic; what does not have it as its
    first size, or other sizes in each, is left as it is. ``file_name`` is for what goes wrong.

    Raises:
        QuantizationError: it cannot be run, or not within ``timeout_s`` seconds.
    """
    wanted = _unknown(model)
    if not wanted:
        return model

    def failed(reason: str) -> str:
        advice = "" if taken.batch else "; give --batch-size 1 if it takes one image at a time"
        return f"onnxruntime cannot run {file_name} on a batch of images ({reason}){advice}"

    seen: list[list[NDArray[np.float32] | None]] = []
    with in_a_sentence(QuantizationError, failed, name=file_name):
        session = tapped_session(model, wanted, 1, timeout_s)
        for batch in (taken.batch,) if taken.batch else _BATCHES:
            sizes = (batch, *(size or 1 for size in taken.image))
            noise = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
            seen.append(run_session(session, wanted, {taken.name: noise}, timeout_s))
    stated = ModelProto()
    stated.CopyFrom(model)
    shapes = {
        each: shape
        for each, values in zip(wanted, zip(*seen, strict=True), strict=True)
        if (shape := _common(values, fixed=taken.batch is not None)) is not None
    }
    for value in [value for value in stated.graph.value_info if value.name in shapes]:
        stated.graph.value_info.remove(value)
    for value in stated.graph.output:
        if value.name in shapes:
            value.CopyFrom(
                helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shapes.pop(value.name))
            )
    stated.graph.value_info.extend(
        helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each, shape in shapes.items()
    )
    return stated


def _unknown(model: ModelProto) -> list[str]:
    """Tensors that nodes give and that may be of float32, without sizes beyond the batch."""
    graph, told = model.graph, set()
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = [dim.dim_value for dim in kind.shape.dim]
        sized = kind.HasField("shape") and all(size > 0 for size in dims[1:])
        if sized or kind.elem_type not in (TensorProto.FLOAT, TensorProto.UNDEFINED):
            told.add(value.name)
    named = (name for node in graph.node for name in node.output if name)
    return [name for name in named if name not in told]


def _common(values: Sequence[object], *, fixed: bool) -> list[int | None] | None:
    """The shape of a tensor in all runs, its batch open unless ``fixed``; ``None`` where there is none."""
    tensors = [value for value in values if isinstance(value, np.ndarray) and value.dtype == np.float32]
    if len(tensors) < len(values) or any(tensor.ndim < 2 or not tensor.size for tensor in tensors):
        return None
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        return None
    if fixed:
        return list(tensors[0].shape)
    follows = all(tensor.shape[0] == batch for tensor, batch in zip(tensors, _BATCHES, strict=True))
    return [None, *tensors[0].shape[1:]] if follows else None
