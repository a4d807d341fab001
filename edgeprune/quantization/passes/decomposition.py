"""Put ops that onnxruntime has no 8-bit kernel for in terms of ones that it has; the function stays.

- A mean over height and width is a global average pooling.
- hard_sigmoid(x) = clip(x + 3, 0, 6) / 6. With a scale of 6/255 and a zero point of 0 the clipping is what
  8 bits do anyway, so that an 8-bit addition of 3 is left, and the division goes into the scale by which its
  result is read. hard_swish(x) = x hard_sigmoid(x).
"""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

from edgeprune.quantization.preparation import FloatModel
from edgeprune.quantization.ranges import Range

_SHIFT, _SPAN = 3.0, 6.0
_THREE, _ZERO, _SIX = "edgeprune_three", "edgeprune_zero", "edgeprune_six"
_CLIPPED = "_clipped"


def pool_means(model: FloatModel) -> FloatModel:
    """Means over height and width as pooling."""
    proto, nodes, changed = _copy(model), [], False
    constants = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    for node in proto.graph.node:
        if not _is_spatial_mean(node, constants, model):
            nodes.append(node)
            continue
        changed = True
        keeps = _attribute(node, "keepdims", 1) == 1
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name))
        if not keeps:
            nodes.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flat"))
    return _with_nodes(model, proto, nodes) if changed else model


def hard_activations(
    model: FloatModel, ranges: dict[str, Range], kept_float: frozenset[str]
) -> tuple[FloatModel, dict[str, Range], tuple[str, ...]]:
    """Hard sigmoids and swishes as additions, with the ranges that these have, and the names of the clipped
    sums: each is to be read by a sixth of its scale (:func:`read_by_a_sixth`)."""
    proto, nodes, clipped = _copy(model), [], []
    ranges = dict(ranges)
    for node in proto.graph.node:
        if node.name in kept_float or not is_hard(node) or node.input[0] not in ranges:
            nodes.append(node)
            continue
        given, result = node.input[0], node.output[0]
        swish = node.op_type == "HardSwish"
        held = f"{result}{_CLIPPED}" if swish else result
        total = f"{result}_sum"
        nodes.append(helper.make_node("Add", [given, _THREE], [total], name=f"{node.name}_add"))
        nodes.append(helper.make_node("Clip", [total, _ZERO, _SIX], [held], name=f"{node.name}_clip"))
        if swish:
            nodes.append(helper.make_node("Mul", [given, held], [result], name=f"{node.name}_mul"))
        ranges[total] = ranges[held] = (0.0, _SPAN)
        clipped.append(held)
    if not clipped:
        return model, ranges, ()
    ranges[_THREE] = (0.0, _SHIFT)
    for name, value in ((_THREE, _SHIFT), (_ZERO, 0.0), (_SIX, _SPAN)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return _with_nodes(model, proto, nodes), ranges, tuple(clipped)


def read_by_a_sixth(quantized: ModelProto, clipped: tuple[str, ...]) -> None:
    """Divide the scales by which these tensors are read by six, in place."""
    constants = {i.name: i for i in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type != "DequantizeLinear" or not _reads(node, clipped):
            continue
        name = f"{node.input[1]}_sixth"
        if name not in constants:
            scale = numpy_helper.to_array(constants[node.input[1]]) / np.float32(_SPAN)
            sixth = numpy_helper.from_array(np.asarray(scale, np.float32), name)
            quantized.graph.initializer.append(sixth)
            constants[name] = sixth
        node.input[1] = name


def _reads(node: NodeProto, names: tuple[str, ...]) -> bool:
    return any(node.input[0] == f"{name}_QuantizeLinear_Output" for name in names)


def _is_spatial_mean(node: NodeProto, constants: dict[str, np.ndarray], model: FloatModel) -> bool:
    if node.op_type != "ReduceMean" or len(model.shapes.get(node.input[0], ())) != 3:
        return False
    if len(node.input) > 1:
        axes = np.ravel(constants.get(node.input[1], np.empty(0))).tolist()
    else:
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
    return sorted(int(axis) % 4 for axis in axes) == [2, 3]


def is_hard(node: NodeProto) -> bool:
    """Whether a node is a hard swish, or a hard sigmoid of its usual slope."""
    if node.op_type == "HardSwish":
        return True
    return (
        node.op_type == "HardSigmoid"
        and math.isclose(_attribute(node, "alpha", 0.2), 1 / _SPAN, rel_tol=1e-6)
        and math.isclose(_attribute(node, "beta", 0.5), _SHIFT / _SPAN, rel_tol=1e-6)
    )


def _attribute(node: NodeProto, name: str, otherwise: float) -> float:
    found = next((a for a in node.attribute if a.name == name), None)
    return otherwise if found is None else float(helper.get_attribute_value(found))


def _copy(model: FloatModel) -> ModelProto:
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    return proto


def _with_nodes(model: FloatModel, proto: ModelProto, nodes: list[NodeProto]) -> FloatModel:
    own = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(own)
    inferred = shape_inference.infer_shapes(proto, data_prop=True)
    return FloatModel(proto=inferred, input_name=model.input_name, input_shape=model.input_shape)
