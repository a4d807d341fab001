"""Take the mean error of rounded weights out of a layer's bias.

The error of a layer's output is (W_q - W) x; its mean over the calibration images, with the mean of every
input channel, goes into the bias (Nagel et al., 1906.04721, section 4.2, with measured means). Padding
counts as the mean of its channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeprune.artifacts.arrays import Float32Array, FloatArray
from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.fake_quant import LARGEST, rounded
from edgeprune.onnx_io.passes.base import free_name
from edgeprune.quantization.equalization import groups_of, transposed
from edgeprune.quantization.preparation import FloatModel, is_weighted
from edgeprune.quantization.ranges.calibration import ChannelValues


def corrected_biases(
    model: FloatModel,
    values: dict[str, ChannelValues],
    form: IntegerFormat,
    exact: frozenset[str],
    stored: frozenset[str] = frozenset(),
) -> dict[str, Float32Array]:
    """New biases by name, of all layers but ``exact``, whose weights are not rounded.

    ``stored`` layers have all the steps of 8 bits, whatever the form is.
    """
    used = model.uses()
    new: dict[str, Float32Array] = {}
    for node in model.proto.graph.node:
        bias = node.input[2] if len(node.input) > 2 else ""
        correctable = node.op_type in ("Conv", "Gemm") and is_weighted(node, model) and bias in model.weights
        if not correctable or node.name in exact or used[bias] > 1 or node.input[0] not in values:
            continue
        means = values[node.input[0]].mean
        steps = replace(form, reduce_range=False) if node.name in stored else form
        error = _mean_error(node, model.weights[node.input[1]].astype(np.float64), means, steps)
        if error is None:
            continue
        corrected = model.weights[bias] - error
        if np.abs(corrected).max(initial=0.0) <= LARGEST:
            new[bias] = corrected.astype(np.float32)
    return new


def _mean_error(
    node: NodeProto, weight: FloatArray, means: FloatArray, form: IntegerFormat
) -> FloatArray | None:
    """Mean of (W_q - W) x for each output channel (o,); ``None`` where channels do not tell the inputs."""
    if node.op_type == "Gemm" and not transposed(node):
        weight = weight.T
    error = rounded(weight, form) - weight
    by_input = error.reshape(len(error), error.shape[1], -1).sum(axis=2)
    groups = groups_of(node) if node.op_type == "Conv" else 1
    if by_input.shape[1] * groups != len(means):
        return None
    own = means.reshape(groups, 1, -1)
    return np.asarray((by_input.reshape(groups, len(error) // groups, -1) * own).sum(axis=2).reshape(-1))


def add_biases(model: FloatModel) -> FloatModel:
    """The same model with a bias of zeros on every convolution that has none, for a correction to go into."""
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    taken = {initializer.name for initializer in proto.graph.initializer}
    taken |= {name for node in proto.graph.node for name in (*node.input, *node.output)}
    for node in proto.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2 and node.input[1] in model.weights:
            name = free_name(taken, f"{node.name}_bias")
            taken.add(name)
            width = model.weights[node.input[1]].shape[0]
            proto.graph.initializer.append(
                helper.make_tensor(name, TensorProto.FLOAT, [width], np.zeros(width, np.float32))
            )
            node.input.append(name)
    return FloatModel(proto=proto, input_name=model.input_name, input_shape=model.input_shape)
