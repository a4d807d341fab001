"""Which nodes stay in 32 bits since one 8-bit scale would serve values of different units.

Behind the last layers a network decodes boxes, takes scores and joins them: sums, products and joins there
cost little time, and a scale over pixels leaves nothing of scores in 0..1. Only what moves or resamples the
values of a single tensor stays in 8 bits there. A layer, or a join inside the network, stays in 32 bits where
its channels are of units that are far apart. All follows from the graph and from measured ranges.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.quantization.preparation import MOVING_OPS, FloatModel, is_weighted
from edgeprune.quantization.ranges.calibration import ChannelValues

_GAP = 10.0
"""Spans of channels further apart than this factor are of different units."""
_FEWEST_LEVELS = 32
"""Of 256: channels with fewer are not served by the tensor's scale."""
_MOST_BINS = 65
"""Of a softmax, over which a product with fewer constants takes an expectation: the decoded side of a box."""
_RESAMPLING = frozenset(
    {"Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "LeakyRelu", "Clip"}
)


def layers_of(model: FloatModel) -> frozenset[str]:
    """Names of the layers: products with constant weights, but for expectations over few bins."""
    shares: set[str] = set()
    layers: set[str] = set()
    for node in model.proto.graph.node:
        if node.op_type == "Softmax" or (node.op_type in MOVING_OPS and node.input[0] in shares):
            shares.update(node.output)
        if is_weighted(node, model):
            few = model.weights[node.input[1]].size < _MOST_BINS
            if not (few and node.input[0] in shares):
                layers.add(node.name)
    return frozenset(layers)


def behind_last_layers(model: FloatModel) -> tuple[NodeProto, ...]:
    """Nodes that read an activation and from which no layer is reached, in order."""
    layers = layers_of(model)
    leading: set[str] = set()
    behind: list[NodeProto] = []
    for node in reversed(model.proto.graph.node):
        if node.name in layers or any(name in leading for name in node.output):
            leading.update(name for name in node.input if name)
        else:
            behind.append(node)
    computed = _computed(model)
    return tuple(node for node in reversed(behind) if any(name in computed for name in node.input))


def in_32_bits(model: FloatModel, values: Mapping[str, ChannelValues]) -> dict[str, str]:
    """Names of the nodes that stay in 32 bits, each with the reason."""
    behind = {node.name for node in behind_last_layers(model)}
    layers, last = layers_of(model), _last_layers(model, behind)
    computed = _computed(model)
    reasons: dict[str, str] = {}
    exact: set[str] = set()
    for node in model.proto.graph.node:
        given = [name for name in dict.fromkeys(node.input) if name in computed]
        if node.name in behind:
            reason = _reason_behind(node, given, exact, values)
            if reason is not None:
                exact.update(node.output)
        elif is_weighted(node, model) and node.name not in layers:
            reason = "it takes the expectation over bins, which is decoding"
        else:
            joins = node.op_type == "Concat" and len(given) > 1
            reason = _mixed(node.output[0], values) if joins or node.name in last else None
        if reason is not None:
            reasons[node.name] = reason
    return reasons


def _reason_behind(
    node: NodeProto, given: list[str], exact: set[str], values: Mapping[str, ChannelValues]
) -> str | None:
    joins = len(given) > 1 or node.op_type not in _RESAMPLING | MOVING_OPS
    if joins or any(name in exact for name in given):
        return "it calculates with or joins the outputs of the last layers, or is behind such a node"
    return next((why for name in (*given, *node.output) if (why := _mixed(name, values))), None)


def _last_layers(model: FloatModel, behind: set[str]) -> frozenset[str]:
    """Names of the layers behind which there is no other."""
    layers, readers = layers_of(model), model.readers()
    return frozenset(
        node.name
        for node in model.proto.graph.node
        if node.name in layers
        and all(reader.name in behind or not reader.op_type for reader in readers.get(node.output[0], ()))
    )


def _computed(model: FloatModel) -> frozenset[str]:
    """Tensors that depend on the image."""
    known = {model.input_name}
    for node in model.proto.graph.node:
        if any(name in known for name in node.input):
            known.update(node.output)
    return frozenset(known)


def _mixed(name: str, values: Mapping[str, ChannelValues]) -> str | None:
    """Why one scale does not serve all channels of a tensor, along its first axis or its last."""
    known = values.get(name)
    if known is None:
        return None
    ends = [(known.low, known.high), *([] if known.last is None else [known.last])]
    return next((why for low, high in ends if (why := _unserved(name, low, high))), None)


def _unserved(name: str, low: FloatArray, high: FloatArray) -> str | None:
    spans = np.sort(high - low)
    spans = spans[spans > 0]
    if len(spans) < 2:
        return None
    step = (max(0.0, float(high.max())) - min(0.0, float(low.min()))) / 255
    gaps = np.flatnonzero(spans[1:] > _GAP * spans[:-1])
    if not gaps.size or spans[gaps[-1]] >= _FEWEST_LEVELS * step:
        return None
    return (
        f"the channels of {name} are of different units: {int(gaps[-1]) + 1} of {len(spans)} span at most "
        f"{spans[gaps[-1]]:.2g}, others {spans[-1]:.2g}"
    )
