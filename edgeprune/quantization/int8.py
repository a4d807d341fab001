"""An ONNX file in 8 bits, by onnxruntime's static quantization (QDQ), with ranges of our own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from torch import Tensor

from edgeprune.artifacts.arrays import Advance, Float32Array
from edgeprune.artifacts.quantization import IntegerFormat, IntegerReport, RangeMethod
from edgeprune.errors import QuantizationError
from edgeprune.onnx_io.passes.base import rewritten
from edgeprune.quantization.bias_correction import add_biases, corrected_biases
from edgeprune.quantization.equalization import equalize, find_pairs, note_equalized
from edgeprune.quantization.passes.hard_activations import HardActivationsToSums, ReadByASixth, is_hard
from edgeprune.quantization.passes.names_apart import NamesApart
from edgeprune.quantization.passes.own_weights import OwnWeights
from edgeprune.quantization.passes.plain_gemms import PlainGemms
from edgeprune.quantization.passes.space_to_depth import ImageOverBlocks
from edgeprune.quantization.passes.spatial_means import SpatialMeansToPooling
from edgeprune.quantization.passes.stored_weights import StoredIn8Bits
from edgeprune.quantization.passes.transposed_biases import TransposedBiasesApart
from edgeprune.quantization.post_processing import in_32_bits
from edgeprune.quantization.preparation import FloatModel, captured, load_float
from edgeprune.quantization.ranges.calibration import ChannelValues, channel_values, histograms
from edgeprune.quantization.ranges.choice import Range, activations_behind, chosen_range, with_zero
from edgeprune.quantization.ranges.scales import fault_of_range, unscaled
from edgeprune.quantization.ranges.weighting import Weighing, weighted
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.system import progress
from edgeprune.system.garbage import give_back_memory
from edgeprune.system.imports import first_line
from edgeprune.system.quiet import quiet_loggers

_REASON_LENGTH = 300

OPS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "Add", "Mul", "Concat", "Split", "Pad"),
    *(
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Resize",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
    ),
    *("Flatten", "Gather", "LeakyRelu", "Slice", "Sigmoid"),
)
"""Ops that onnxruntime's CPU provider has in 8 bits, or that only move values."""


def quantize_integers(
    source: Path,
    destination: Path,
    images: Tensor,
    settings: IntegerSettings,
    nodes_to_exclude: frozenset[str] = frozenset(),
) -> IntegerReport:
    """Write ``source`` in 8 bits to ``destination``, its activations' ranges from ``images``.

    Images pass in batches of bounded memory: once for ranges and means by channel, once more for histograms
    where the method needs them. ``nodes_to_exclude`` stay in 32 bits.

    Raises:
        QuantizationError: the file cannot be quantized; says why.
    """
    report = write_integers(calibrate(source, images, settings), destination, nodes_to_exclude)
    if report.unscaled and not report.nodes:
        node, reason = next(iter(report.unscaled.items()))
        raise QuantizationError(
            f"nothing of {source.name} can be in 8 bits: {node} has to stay in 32, since {reason}; ask "
            "for precision fp16, or scale the images or the weights where their size is the reason"
        )
    return report


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A 32-bit model ready to be written in 8 bits, whole or in part: equalized, its ranges known."""

    model: FloatModel
    values: dict[str, ChannelValues]
    ranges: dict[str, Range]
    settings: IntegerSettings
    images: int
    pairs: int
    scaled: frozenset[str]
    mixed_units: dict[str, str]
    weighing: Weighing

    @cached_property
    def quantizable(self) -> frozenset[str]:
        """Names of the nodes that have an 8-bit form."""
        graph = ir.from_proto(self.model.proto).graph
        return frozenset(str(n.name) for n in graph if n.op_type in OPS or is_hard(n))

    @cached_property
    def read_by_branches(self) -> dict[str, str]:
        """Activations that a branch reads, too: in 8 bits a range replaces them, unseen by the branch."""
        read = {name for node in self.model.proto.graph.node for name in captured(node)}
        if not read:
            return {}
        return {
            str(node.name): "a branch or a loop reads what it gives"
            for node in ir.from_proto(self.model.proto).graph
            if (node.op_type in ("Relu", "Clip") or is_hard(node)) and node.outputs[0].name in read
        }


def calibrate(source: Path, images: Tensor, settings: IntegerSettings) -> Calibrated:
    """All that passes over the images; see :func:`quantize_integers`."""
    passes = (
        NamesApart(),
        SpatialMeansToPooling(),
        TransposedBiasesApart(),
        PlainGemms(),
        OwnWeights(),
    )
    model = load_float(source, timeout_s=settings.timeout_s).rewritten(*passes)
    _check_images(images, model)
    give_back_memory(source.stat().st_size)
    passes_over = len(images) * (1 if settings.method is RangeMethod.MINMAX else 2)
    if settings.method is RangeMethod.MSE and settings.gradients is not None:
        passes_over += settings.gradients.images
    with progress.task("gathering the ranges of activations", passes_over) as advance:
        values = channel_values(model, images, settings, advance)
        mixed_units = in_32_bits(model, values)
        pairs = find_pairs(model) if settings.equalized else []
        if settings.equalized:
            model, values, _ = equalize(model, values)
        if settings.corrected:
            model = add_biases(model)
        give_back_memory(source.stat().st_size)
        ranges, by_gradients = _ranges(model, values, images, settings, advance)
    return Calibrated(
        model=model,
        values=values,
        ranges=ranges,
        settings=settings,
        images=len(images),
        pairs=len(pairs),
        scaled=frozenset(name for pair in pairs for name in pair.between),
        mixed_units=mixed_units,
        weighing=by_gradients,
    )


def write_integers(
    calibrated: Calibrated,
    destination: Path,
    nodes_to_exclude: frozenset[str],
    stored: frozenset[str] = frozenset(),
) -> IntegerReport:
    """Write the model in 8 bits but for the nodes of these names, and those that no scale serves.

    ``stored`` nodes calculate in 32 bits, too, but their weights are stored in 8.

    Raises:
        QuantizationError: onnxruntime cannot quantize it.
    """
    quantizable, asked = calibrated.quantizable, nodes_to_exclude | stored
    mixed = {name: why for name, why in calibrated.mixed_units.items() if name in quantizable - asked}
    nodes_to_exclude = asked | calibrated.mixed_units.keys()
    served = unscaled(calibrated.model, calibrated.ranges, calibrated.settings.form, nodes_to_exclude)
    without = {name: why for name, why in served.nodes.items() if name in quantizable}
    without |= calibrated.read_by_branches
    nodes_to_exclude |= served.nodes.keys() | without.keys()
    model, form = calibrated.model.replaced(served.cleared), calibrated.settings.form
    stored = _storable(model, stored - served.nodes.keys())
    biases: dict[str, Float32Array] = {}
    if calibrated.settings.corrected:
        biases = corrected_biases(model, calibrated.values, form, nodes_to_exclude - stored, stored)
        model = model.replaced(biases)
    sums = HardActivationsToSums(dict(calibrated.ranges), nodes_to_exclude)
    quantized = _quantized(model.rewritten(sums), sums.ranges, form, nodes_to_exclude)
    blocks = ImageOverBlocks()
    passes = [ReadByASixth(sums.clipped), *([blocks] if form.pixel_blocks else []), StoredIn8Bits(stored)]
    quantized = rewritten(quantized, *passes)
    note_equalized(quantized, calibrated.scaled)
    _lighten(quantized)
    onnx.save_model(quantized, str(destination))
    return IntegerReport(
        format=form,
        method=calibrated.settings.method,
        images=calibrated.images,
        nodes=dict(Counter(_quantized_ops(quantized, nodes_to_exclude))),
        equalized=calibrated.pairs,
        corrected=len(biases),
        kept_float=tuple(sorted(asked | without.keys() | mixed.keys())),
        over_blocks=tuple(blocks.done),
        stored=tuple(sorted(stored)),
        unscaled=without,
        mixed_units=mixed,
        gradient_images=calibrated.weighing.images,
        no_gradients=calibrated.weighing.reason,
    )


def _storable(model: FloatModel, names: frozenset[str]) -> frozenset[str]:
    """Which of these nodes have a weight that can be stored in 8 bits."""
    tried = StoredIn8Bits(names)
    if names:
        rewritten(model.proto, tried)
    return frozenset(tried.done)


def _lighten(quantized: ModelProto) -> None:
    """Leave out what every reader can infer: shapes of inner tensors, names of the many added nodes."""
    del quantized.graph.value_info[:]
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.name = ""


def _ranges(
    model: FloatModel,
    values: dict[str, ChannelValues],
    images: Tensor,
    settings: IntegerSettings,
    advance: Advance,
) -> tuple[dict[str, Range], Weighing]:
    seen = {name: channels.range for name, channels in values.items()}
    if settings.method is RangeMethod.MINMAX:
        return {name: with_zero(ends) for name, ends in seen.items()}, Weighing()
    counted = histograms(model, seen, images, settings, advance)
    behind, weighing = activations_behind(model), Weighing()
    if settings.gradients is not None and settings.method is RangeMethod.MSE:
        results = {name: each.output for name, each in behind.items()}
        counted, weighing = weighted(counted, model.proto, settings.gradients, results, advance)
    functions = {name: each.function for name, each in behind.items()}
    ranges = {n: chosen_range(h, settings.method, functions.get(n)) for n, h in counted.items()}
    return ranges, weighing


def _quantized(
    model: FloatModel, ranges: dict[str, Range], form: IntegerFormat, nodes_to_exclude: frozenset[str]
) -> ModelProto:
    tensors = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
        if fault_of_range((low, high)) is None  # no node that reads or gives another is quantized
    }
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    try:
        with quiet_loggers("", least=logging.CRITICAL):  # the quantizer's is the root logger
            quantizer = QDQQuantizer(
                proto,
                True,  # a scale for each output channel
                form.reduce_range,
                QuantType.QInt8,
                QuantType.QInt8 if form.signed_activations else QuantType.QUInt8,
                TensorsData(CalibrationMethod.MinMax, tensors),
                [],
                sorted(nodes_to_exclude),
                list(OPS),
                {"ActivationSymmetric": False, "WeightSymmetric": True},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
    except Exception as error:
        raise QuantizationError(
            f"onnxruntime could not quantize the model ({first_line(error, _REASON_LENGTH)}); keep the node "
            "that it names in 32 bits, or report it with the model's architecture"
        ) from error
    model_proto = quantizer.model.model
    assert isinstance(model_proto, ModelProto)
    return model_proto


def _quantized_ops(model: ModelProto, nodes_to_exclude: frozenset[str]) -> Iterator[str]:
    """Types of the ops that have an 8-bit form, were not to stay in 32 bits, and read an 8-bit value."""
    given = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    for node in model.graph.node:
        if node.op_type in OPS and node.name not in nodes_to_exclude and given & set(node.input):
            yield node.op_type


def _check_images(images: Tensor, model: FloatModel) -> None:
    if len(images) == 0:
        raise QuantizationError("no calibration images were given; ranges of activations need a few hundred")
    if tuple(images.shape[1:]) != model.input_shape:
        raise QuantizationError(
            f"the calibration images are {'x'.join(map(str, images.shape[1:]))} and the model takes "
            f"{'x'.join(map(str, model.input_shape))}; give images of that size, or a "
            "preprocessing that makes them"
        )
