"""Scale channels between neighbouring layers against each other, which changes no output.

A channel's activation range meets the weights that read it: with s = sqrt(range / weight), both become
sqrt(range * weight), so that one scale for the whole tensor loses least on any channel. After Nagel et al.,
Data-Free Quantization Through Weight Equalization and Bias Correction (1906.04721), section 4.1; here with
measured ranges of activations instead of those of the weights before (cf. SmoothQuant, 2211.10438, eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.fake_quant import LARGEST, SMALLEST_SCALE
from edgeprune.quantization.preparation import FloatModel, is_weighted
from edgeprune.quantization.ranges.calibration import ChannelValues

ROUNDS = 3
"""Layers in a row share factors: what one pair changes, the next one sees."""
_MOST = 1e4
_NEGLIGIBLE = 1e-10
_NOTE = "edgeprune.equalized"

_SCALES_THROUGH = frozenset({"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten"})
"""f(s x) = s f(x) for every s > 0, channel by channel."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A layer, the activations between, and the layer that reads them."""

    first: NodeProto
    between: tuple[str, ...]
    second: NodeProto


def equalize(
    model: FloatModel, values: dict[str, ChannelValues]
) -> tuple[FloatModel, dict[str, ChannelValues], int]:
    """The model with its channels scaled, the values that flow through it then, and the number of pairs."""
    pairs = find_pairs(model)
    constants = {name: value.astype(np.float64) for name, value in model.weights.items()}
    values = dict(values)
    for _ in range(ROUNDS):
        for pair in pairs:
            entering = values[pair.between[-1]]
            factors = _factors(entering, _weight_range(constants, pair.second, len(entering.low)))
            scaled = _scaled(constants, pair, factors)
            passed = {name: values[name].scaled(1 / factors) for name in pair.between}
            held = all(_stays_held(constants[name], value) for name, value in scaled.items())
            if held and all(max(map(abs, channels.range)) <= LARGEST for channels in passed.values()):
                constants.update(scaled)
                values.update(passed)
    changed = {n for p in pairs for n in (*p.first.input[1:3], p.second.input[1])}
    new = {name: constants[name].astype(np.float32) for name in changed}
    return model.replaced(new), values, len(pairs)


def note_equalized(proto: ModelProto, tensors: Iterable[str]) -> None:
    """Write into a file which of its tensors have scaled channels."""
    names = sorted(set(tensors))
    if names:
        proto.metadata_props.add(key=_NOTE, value="\n".join(names))


def equalized_tensors(proto: ModelProto) -> frozenset[str]:
    """Names of the tensors of a file whose channels :func:`equalize` has scaled."""
    note = next((p.value for p in proto.metadata_props if p.key == _NOTE), "")
    return frozenset(name for name in note.split("\n") if name)


def find_pairs(model: FloatModel) -> list[Pair]:
    """Convolutions (or products) whose output only another one reads, through ops that let scales pass."""
    readers, used = model.readers(), model.uses()
    pairs = []
    for node in model.proto.graph.node:
        if not _scalable_output(node, model, used):
            continue
        between, at = [node.output[0]], node
        while True:
            following = readers.get(at.output[0], [])
            if len(following) != 1 or not following[0].op_type:
                break
            at = following[0]
            if _scalable_input(at, between[-1], model, used):
                if not all(name in model.shapes for name in between):  # nor is their range known
                    break
                pairs.append(Pair(first=node, between=tuple(between), second=at))
                break
            if at.op_type not in _SCALES_THROUGH or not _keeps_channels(at, model):
                break
            between.append(at.output[0])
    return pairs


def _scalable_output(node: NodeProto, model: FloatModel, used: dict[str, int]) -> bool:
    if node.op_type == "Gemm":
        plain = _attributes(node) <= {"transB": 1}.items() | {"alpha": 1.0, "beta": 1.0}.items()
        return is_weighted(node, model) and plain and _own(node.input[1:], model, used)
    return node.op_type == "Conv" and is_weighted(node, model) and _own(node.input[1:], model, used)


def _scalable_input(node: NodeProto, name: str, model: FloatModel, used: dict[str, int]) -> bool:
    if node.op_type not in ("Conv", "Gemm") or not is_weighted(node, model) or node.input[0] != name:
        return False
    if not _own(node.input[1:2], model, used):
        return False
    if node.op_type == "Gemm":
        return _scalable_output(node, model, used)
    weight = model.weights[node.input[1]]
    depthwise = groups_of(node) == len(weight) and weight.shape[1] == 1
    return groups_of(node) == 1 or depthwise


def _own(names: list[str], model: FloatModel, used: dict[str, int]) -> bool:
    return all(name in model.weights and used[name] == 1 for name in names if name)


def _keeps_channels(node: NodeProto, model: FloatModel) -> bool:
    before, after = model.shapes.get(node.input[0]), model.shapes.get(node.output[0])
    return before is not None and after is not None and before[0] == after[0]


def _attributes(node: NodeProto) -> set[tuple[str, object]]:
    return {(a.name, a.i if a.type == 2 else a.f) for a in node.attribute}


def transposed(node: NodeProto) -> bool:
    """Whether a Gemm's weight is (outputs, inputs)."""
    return ("transB", 1) in _attributes(node)


def groups_of(node: NodeProto) -> int:
    """Groups of a convolution."""
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _reads_by_channel(node: NodeProto, weight: FloatArray, channels: int) -> FloatArray:
    """The weight as (input channels, everything else)."""
    if node.op_type == "Gemm":
        flat = weight.T if transposed(node) else weight
        return flat.reshape(channels, -1)
    if groups_of(node) > 1:
        return weight.reshape(channels, -1)
    return np.moveaxis(weight, 1, 0).reshape(channels, -1)


def _weight_range(constants: dict[str, FloatArray], node: NodeProto, channels: int) -> FloatArray:
    """Largest absolute weight that reads each channel (c,)."""
    return np.asarray(np.abs(_reads_by_channel(node, constants[node.input[1]], channels)).max(axis=1))


def _factors(entering: ChannelValues, weights: FloatArray) -> FloatArray:
    """What each channel (c,) is divided by; 1 where nothing flows or nothing reads it."""
    spans = np.maximum(np.abs(entering.low), np.abs(entering.high))
    alive = (spans > 0) & (weights > 0)
    ratio = np.divide(spans, weights, out=np.ones(len(spans)), where=alive)
    middle = float(np.exp(np.mean(np.log(ratio[alive])))) if alive.any() else 1.0
    return np.where(alive, np.clip(np.sqrt(ratio / middle), 1 / _MOST, _MOST), 1.0)


def _scaled(constants: dict[str, FloatArray], pair: Pair, factors: FloatArray) -> dict[str, FloatArray]:
    """What the first layer gives is divided by the factors, what the second reads multiplied."""
    first, second = pair.first.input[1], pair.second.input[1]
    weight, read = constants[first], constants[second]
    scaled = {}
    if pair.first.op_type == "Gemm" and not transposed(pair.first):
        scaled[first] = weight / factors[None, :]
    else:
        scaled[first] = weight / factors.reshape(-1, *[1] * (weight.ndim - 1))
    if len(pair.first.input) > 2 and pair.first.input[2]:
        scaled[pair.first.input[2]] = constants[pair.first.input[2]] / factors
    if pair.second.op_type == "Gemm":
        scaled[second] = read * (factors[None, :] if transposed(pair.second) else factors[:, None])
    elif groups_of(pair.second) > 1:
        scaled[second] = read * factors.reshape(-1, *[1] * (read.ndim - 1))
    else:
        scaled[second] = read * factors.reshape(1, -1, *[1] * (read.ndim - 2))
    return scaled


def _stays_held(before: FloatArray, after: FloatArray) -> bool:
    """Whether 32-bit numbers hold the scaled values as well; the least beside the largest do not matter."""
    size = np.abs(before)
    counted = size >= max(SMALLEST_SCALE, _NEGLIGIBLE * float(size.max(initial=0.0)))
    scaled = np.abs(after)
    return bool((scaled <= LARGEST).all() and (scaled[counted] >= SMALLEST_SCALE).all())
