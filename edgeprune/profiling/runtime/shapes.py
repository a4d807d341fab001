"""Shapes in a graph that onnxruntime has optimized: its own operators are read as the standard ones.

Source: onnxruntime's ContribOperators.md, which says how inputs and attributes of its operators follow those
of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from edgeprune.profiling.kinds import attribute

_PREFIX = "edgeprune/"
_CHANNELS_LAST = {"QLinearConv": 0, "NhwcMaxPool": 0, "QLinearGlobalAveragePool": 0, "QLinearAveragePool": 0}
_REORDERED = frozenset({"ReorderInput", "ReorderOutput"})
_POOLING = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
_CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")

# Operator of onnxruntime: the standard one, which of its inputs that reads, and the attributes that it keeps.
_Standard = tuple[str, Sequence[int] | slice, Sequence[str]]
_STANDARD: dict[str, _Standard] = {
    "FusedConv": ("Conv", (0, 1, 2), _CONVOLUTION),
    "Conv": ("Conv", (0, 1, 2), _CONVOLUTION),  # of the blocked layout
    "QLinearConv": ("QLinearConv", slice(None), _CONVOLUTION),
    "FusedGemm": ("Gemm", (0, 1, 2), ("alpha", "beta", "transA", "transB")),
    "QGemm": ("Gemm", (0, 3), ("transA", "transB")),
    "MatMulIntegerToFloat": ("MatMul", (0, 1), ()),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1), ()),
    "MaxPool": ("MaxPool", (0,), _POOLING),
    "NhwcMaxPool": ("MaxPool", (0,), _POOLING),
    "AveragePool": ("AveragePool", (0,), (*_POOLING, "count_include_pad")),
    "QLinearAveragePool": ("AveragePool", (0,), (*_POOLING, "count_include_pad")),
    "GlobalAveragePool": ("GlobalAveragePool", (0,), ()),
    "GlobalMaxPool": ("GlobalMaxPool", (0,), ()),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ()),
    "QLinearReduceMean": ("ReduceMean", (0,), ("axes", "keepdims")),
    **{name: (name[7:], (0, 3), ()) for name in ("QLinearAdd", "QLinearMul")},
    "QLinearConcat": ("Concat", slice(2, None, 3), ("axis",)),
    "QLinearWhere": ("Where", (0, 1, 4), ()),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"), ("Identity", (0,), ())),
    **dict.fromkeys(("Gelu", "FastGelu", "BiasGelu", "QuickGelu"), ("Identity", (0,), ())),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), ("Identity", (0,), ())),
    "BiasSoftmax": ("Identity", (0,), ()),
    "Upsample": ("Resize", (0,), ()),
}


def with_shapes(model: ModelProto, original: Mapping[str, Sequence[int]], block: int) -> GraphProto:
    """The graph with the shapes of calculated values, as far as they can be inferred.

    ``original``: shapes in the graph before it was optimized, for tensors whose channels are put into blocks
    of ``block``.

    Raises:
        onnx.shape_inference.InferenceError, ValueError, RuntimeError: inference refuses the model.
    """
    standard = ModelProto()
    standard.CopyFrom(model)
    del standard.graph.node[:]
    domains = {"", "ai.onnx"}
    for place, node in enumerate(model.graph.node):
        if node.op_type in _REORDERED:
            standard.graph.node.extend(_reordered(node, place, standard.graph, original, block))
        else:
            standard.graph.node.extend(_as_standard(node, place) if node.domain not in domains else [node])
    inferred = onnx.shape_inference.infer_shapes(standard, data_prop=True).graph
    graph = GraphProto()
    graph.CopyFrom(model.graph)
    del graph.value_info[:]
    graph.value_info.extend(v for v in inferred.value_info if not v.name.startswith(_PREFIX))
    del graph.output[:]
    graph.output.extend(inferred.output)
    return graph


def _as_standard(node: NodeProto, place: int) -> Iterator[NodeProto]:
    if node.op_type == "FusedMatMul":
        yield from _fused_product(node, place)
        return
    if node.op_type not in _STANDARD:
        yield node
        return
    op_type, positions, kept = _STANDARD[node.op_type]
    inputs = list(node.input)
    chosen = (
        inputs[positions]
        if isinstance(positions, slice)
        else [inputs[p] for p in positions if p < len(inputs)]
    )
    attributes: dict[str, Any] = {
        a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in kept
    }
    if op_type == "Resize":  # the blocked layout repeats values a whole number of times
        scales = f"{_PREFIX}{place}/scales"
        factors = [float(s) for s in _list(attribute(node, "scales", [1, 1, 1, 1]))]
        yield helper.make_node("Constant", [], [scales], value_floats=factors)
        yield helper.make_node("Resize", [chosen[0], "", scales], node.output[:1])
        return
    last = bool(attribute(node, "channels_last", int(node.op_type == "NhwcMaxPool")))
    if not (last and node.op_type in _CHANNELS_LAST):
        yield helper.make_node(op_type, chosen, node.output[:1], **attributes)
        return
    yield from _turned(node, op_type, chosen, attributes, place)


def _turned(
    node: NodeProto, op_type: str, chosen: list[str], attributes: dict[str, Any], place: int
) -> Iterator[NodeProto]:
    """Of images with channels last, as the standard operator between two transpositions."""
    first, last = f"{_PREFIX}{place}/first", f"{_PREFIX}{place}/last"
    to_front, to_back = [0, 3, 1, 2], [0, 2, 3, 1]
    yield helper.make_node("Transpose", chosen[:1], [first], perm=to_front)
    yield helper.make_node(op_type, [first, *chosen[1:]], [last], **attributes)
    yield helper.make_node("Transpose", [last], node.output[:1], perm=to_back)


def _reordered(
    node: NodeProto, place: int, graph: GraphProto, original: Mapping[str, Sequence[int]], block: int
) -> Iterator[NodeProto]:
    """Into blocks of channels and out of them: a 1x1 convolution has the same shapes."""
    given, weight = node.input[0], f"{_PREFIX}{place}/weight"
    last = bool(attribute(node, "channels_last", 0))
    if node.op_type == "ReorderInput":
        known = original.get(given, ())
        channels = known[-1 if last else 1] if len(known) == 4 else block
        width = -(-channels // block) * block
        if last:
            yield helper.make_node("Transpose", [given], [f"{weight}/first"], perm=[0, 3, 1, 2])
            given = f"{weight}/first"
    else:
        width = int(str(attribute(node, "channels", block)))
    graph.initializer.append(TensorProto(name=weight, dims=[width, 1, 1, 1], data_type=TensorProto.FLOAT))
    turned = last and node.op_type == "ReorderOutput"
    result = f"{weight}/last" if turned else node.output[0]
    yield helper.make_node("Conv", [given, weight], [result], kernel_shape=[1, 1])
    if turned:
        yield helper.make_node("Transpose", [result], node.output[:1], perm=[0, 2, 3, 1])


def _fused_product(node: NodeProto, place: int) -> Iterator[NodeProto]:
    """A product of transposed matrices; for the shapes the order of the transposed axes alone matters."""
    turned = []
    for name, flag in zip(node.input[:2], ("transA", "transB"), strict=False):
        if not attribute(node, flag, 0):
            turned.append(name)
            continue
        turned.append(f"{_PREFIX}{place}/{flag}")
        yield helper.make_node("Einsum", [name], [turned[-1]], equation="...ij->...ji")
    yield helper.make_node("MatMul", turned, node.output[:1])


def _list(value: object) -> list[float]:
    return [float(item) for item in value] if isinstance(value, (list, tuple)) else []
