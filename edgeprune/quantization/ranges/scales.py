"""Which nodes have scales that 32-bit numbers hold; those that have none stay in 32 bits, with the reason.

A scale is a step of the range over 255, or of the largest weight of a channel over 127. Below the smallest
normal number onnxruntime takes 1 instead, which makes zeros of all values; products of scales that leave the
range of 32 bits make zeros or infinities of all results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.fake_quant import LARGEST, SMALLEST_SCALE, steps_of
from edgeprune.quantization.equalization import transposed
from edgeprune.quantization.preparation import MOVING_OPS, FloatModel, is_weighted
from edgeprune.quantization.ranges.choice import LEVELS, Range, with_zero

LARGEST_SPAN = LARGEST / 2
"""Half of what a float holds, since rounding may go beyond the end of the range."""
_MEAN_RATIOS = (2.0**-32, 2.0**8)
"""Steps of values over steps of their mean and their number, between which onnxruntime's kernel runs."""
_MEANS = frozenset({"GlobalAveragePool", "AveragePool"})
_CARRIES = MOVING_OPS | {"Relu", "Clip"}
"""What onnxruntime takes rounding through, or into it."""
_READS_CONSTANTS = frozenset({"Add", "Mul", "Concat", "Conv", "ConvTranspose", "Gemm", "MatMul"})
_PRODUCTS = frozenset({"MatMul", "Gemm"})
_MULTIPLIES = _PRODUCTS | {"Mul", "Conv", "ConvTranspose"}


@dataclass(frozen=True, kw_only=True)
class Unscaled:
    """What 8-bit scales cannot serve: nodes with the reason, and weights with small channels cleared.

    Those channels add less than half a step to any output, so that nothing is lost.
    """

    nodes: dict[str, str]
    cleared: dict[str, NDArray[np.float32]]


def fault_of_range(ends: Range) -> str | None:
    """Why 8 bits cannot hold such a range; ``None`` where they can. Where all is 0 any scale will do."""
    low, high = with_zero(ends)
    span = high - low
    if not span < LARGEST_SPAN:
        return f"values from {low:.1e} to {high:.1e}, whose rounding leaves the range of 32-bit numbers"
    if 0.0 < span / (LEVELS - 1) < SMALLEST_SCALE:
        return f"values from {low:.1e} to {high:.1e}, whose steps are below the smallest normal 32-bit number"
    return None


def unscaled(
    model: FloatModel, ranges: Mapping[str, Range], form: IntegerFormat, nodes_to_exclude: frozenset[str]
) -> Unscaled:
    """Nodes, other than those that stay in 32 bits anyway, without scales for what they read and give."""
    nodes: dict[str, str] = {}
    cleared: dict[str, NDArray[np.float32]] = {}
    used = model.uses()
    for node in model.proto.graph.node:
        if node.name in nodes_to_exclude:
            continue
        reason = next(_faults(node, model, ranges), None)
        if reason is None and is_weighted(node, model):
            name = node.input[1]
            weak, reason = _weak_channels(node, model, ranges, form)
            if reason is None and weak.any() and used[name] == 1:
                kept = np.moveaxis(model.weights[name].copy(), _axis(node, model), 0)
                kept[weak] = 0
                cleared[name] = np.moveaxis(kept, 0, _axis(node, model))
        if reason is not None:
            nodes[node.name] = reason
    for name, reason in _readers_of_means(model, nodes):
        nodes.setdefault(name, reason)
    return Unscaled(nodes=nodes, cleared=cleared)


def _faults(node: NodeProto, model: FloatModel, ranges: Mapping[str, Range]) -> Iterator[str]:
    """What is wrong with the ranges of tensors that a node reads and gives, and with products of scales."""
    unsized = next((name for name in (*node.input, *node.output) if name in model.unsized), None)
    if unsized is not None:
        yield f"{unsized} does not have the batch first, or has sizes that only a run tells"
    yield from _fault_of_constant(node, model)
    scales = []
    for position, name in enumerate((*node.input, *node.output)):
        ends = ranges.get(name)
        if ends is None and _is_data(node, position) and name in model.weights:
            values = model.weights[name]
            ends = (float(values.min()), float(values.max())) if values.size else None
        if ends is None:
            continue
        reason = fault_of_range(ends)
        if reason is not None:
            yield f"{name} has {reason}"
        if position < min(2, len(node.input)):
            scales.append(_scale(ends))
    if node.op_type in _MULTIPLIES and len(scales) == 2 and not _fits(scales[0] * scales[1]):
        yield (
            f"the steps of {node.input[0]} and {node.input[1]} have the product {scales[0] * scales[1]:.1e}, "
            "which is no normal 32-bit number"
        )
    yield from _fault_of_mean(node, model, ranges)


def _fault_of_constant(node: NodeProto, model: FloatModel) -> Iterator[str]:
    """What is wrong with a constant whose scales stand along an axis that the kernel does not take.

    The quantizer gives every constant of a matrix product a scale for each index of axis 1, the kernel takes
    one for each column of the right matrix.
    """
    if node.op_type not in _PRODUCTS:
        return
    left, right = (model.weights.get(name) for name in node.input[:2])
    if left is not None and left.ndim > 1:
        yield f"its left matrix {node.input[0]} is constant, for which onnxruntime has no 8-bit form"
    if right is not None and right.ndim > 2:
        yield f"its constant {node.input[1]} is a batch of matrices, for which onnxruntime has no 8-bit form"


def _readers_of_means(model: FloatModel, nodes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What reads a mean that stays in 32 bits, and what only moves it.

    Between neighbours in 8 bits onnxruntime would make it one in 8 bits all the same.
    """
    readers = model.readers()
    open_ = [
        (output, f"it reads {output}, which stays in 32 bits")
        for node in model.proto.graph.node
        if node.op_type in _MEANS and node.name in nodes
        for output in node.output
    ]
    while open_:
        name, reason = open_.pop()
        for reader in readers.get(name, []):
            if reader.name:
                yield reader.name, reason
            if reader.op_type in _CARRIES:
                open_ += [(output, reason) for output in reader.output]


def _fault_of_mean(node: NodeProto, model: FloatModel, ranges: Mapping[str, Range]) -> Iterator[str]:
    """What is wrong with a mean that hardly depends on the image, as that of a normalised map."""
    shape = model.shapes.get(node.input[0]) if node.input else None
    if node.op_type not in _MEANS or shape is None:
        return
    kernel = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), shape[1:])
    values, mean = ranges.get(node.input[0]), ranges.get(node.output[0])
    if values is None or mean is None:
        return
    ratio = _scale(values) / _scale(mean) / math.prod(kernel)
    if not _MEAN_RATIOS[0] <= ratio < _MEAN_RATIOS[1]:
        low, high = with_zero(mean)
        whole = f"{node.output[0]} has values from {low:.1e} to {high:.1e}"
        yield f"{whole}, out of proportion to those that it is the mean of"


def _is_data(node: NodeProto, position: int) -> bool:
    """Whether a constant there is quantized by its own range: no weight, no bias, no size or bound."""
    if node.op_type not in _READS_CONSTANTS or position >= len(node.input):
        return False
    return position == 0 or node.op_type in ("Add", "Mul", "Concat")


def _weak_channels(
    node: NodeProto, model: FloatModel, ranges: Mapping[str, Range], form: IntegerFormat
) -> tuple[NDArray[np.bool_], str | None]:
    """Output channels whose scale is too small, and what is wrong with them where they matter."""
    name = node.input[1]
    rows = np.moveaxis(model.weights[name].astype(np.float64), _axis(node, model), 0)
    rows = np.abs(rows.reshape(len(rows), -1))
    largest = rows.max(axis=1) if rows.size else np.zeros(len(rows))
    given, read = ranges.get(node.output[0]), ranges.get(node.input[0])
    step = 1.0 if read is None else _scale(read)
    scales = largest / steps_of(form)
    if (scales * step > LARGEST).any():
        return np.zeros(len(rows), bool), (
            f"the steps of {node.input[0]} and of the weight {name} have a product beyond 32-bit numbers"
        )
    weak = (largest > 0) & (np.minimum(scales, scales * step) < SMALLEST_SCALE)
    if not weak.any():
        return weak, None
    reach = max(map(abs, read)) if read is not None else np.inf
    change = float((rows.sum(axis=1)[weak] * reach).max())
    if given is not None and change <= _scale(given) / 2 and max(map(abs, given)) > 0:
        return weak, None
    return weak, (
        f"the weight {name} has a channel of values up to {float(largest[weak].max()):.1e}, whose steps are "
        "below the smallest normal 32-bit number, alone or times those of what it reads"
    )


def _axis(node: NodeProto, model: FloatModel) -> int:
    """Of the output channels in a weight, of which each has a scale."""
    if node.op_type == "ConvTranspose" or (node.op_type == "Gemm" and not transposed(node)):
        return 1
    if node.op_type == "MatMul":
        return model.weights[node.input[1]].ndim - 1
    return 0


def _scale(ends: Range) -> float:
    """Of a range; 1 as onnxruntime takes it where all is 0."""
    low, high = with_zero(ends)
    return (high - low) / (LEVELS - 1) if high > low else 1.0


def _fits(scale: float) -> bool:
    return SMALLEST_SCALE <= scale <= LARGEST
