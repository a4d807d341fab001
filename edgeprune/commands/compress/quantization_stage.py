"""Write a 32-bit ONNX file in fewer bits, with notes for the user."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from edgeprune import parity
from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.artifacts.quantization import (
    Float16Report,
    IntegerReport,
    MixedReport,
    Precision,
    QuantizationDetails,
)
from edgeprune.artifacts.report import InnerParity, QuantizationSection
from edgeprune.commands.quantize.mixed_precision import write_mixed
from edgeprune.commands.quantize.output_gradients import OutputGradients
from edgeprune.commands.run.state import PARITY_IMAGES, Prepared, Run, runner_of
from edgeprune.commands.verify.first_divergence import first_apart, inner_deviations, traced_onnx
from edgeprune.errors import UsageError
from edgeprune.options.subjects import TaskOptions
from edgeprune.profiling.runner import Runner
from edgeprune.profiling.work import size_bytes
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.fp16 import quantize_fp16
from edgeprune.quantization.int8 import quantize_integers
from edgeprune.quantization.settings import IntegerSettings
from edgeprune.sharing.model_metadata import carry_entries
from edgeprune.showing import first_few

_LOG = logging.getLogger("edgeprune.quantization")

FLOAT_FILE = "model-fp32.onnx"
"""Beside a delivered file in fewer bits."""
APART = 0.1
"""Relative error of an inner tensor that counts as parted: in 8 bits a few hundredths are usual."""
_TRACED_IMAGES = 32
_SHOWN = 5


def put_in_fewer_bits(
    run: Run,
    prepared: Prepared,
    folder: Path,
    precision: Precision,
    *,
    max_drop_points: float | None = None,
) -> QuantizationSection | None:
    """Quantize ``model.onnx`` in place and keep the 32-bit file beside it; ``None`` in 32 bits.

    Raises:
        QuantizationError: the file cannot be quantized.
    """
    if precision is Precision.FP32:
        return None
    exact, delivered = folder / FLOAT_FILE, folder / "model.onnx"
    delivered.rename(exact)
    images = prepared.calibration.fitting
    details = write_quantized(
        exact,
        delivered,
        images,
        IntegerSettings(form=integer_format(prepared.target), threads=run.threads, seed=run.options.seed),
        precision=precision,
        runner=runner_of(run, prepared.target),
        task_options=run.options,
        max_drop_points=max_drop_points,
    )
    carry_entries(exact, delivered)
    before, after = (
        parity.run_onnx(p, images.images[:PARITY_IMAGES], threads=run.threads) for p in (exact, delivered)
    )
    return QuantizationSection(
        precision=precision,
        integer=details if isinstance(details, IntegerReport) else None,
        mixed=details if isinstance(details, MixedReport) else None,
        float16=details if isinstance(details, Float16Report) else None,
        deviation=parity.deviation(before, after, names=("ONNX simplified", precision.value)),
        inner=_inner(exact, delivered, images.images[:_TRACED_IMAGES], run.threads),
        float_size_bytes=size_bytes(exact),
    )


def write_quantized(
    source: Path,
    destination: Path,
    images: ImageBatch,
    settings: IntegerSettings,
    *,
    precision: Precision,
    runner: Runner,
    nodes_to_exclude: frozenset[str] = frozenset(),
    task_options: TaskOptions | None = None,
    max_drop_points: float | None = None,
) -> QuantizationDetails:
    """Write ``source`` in the given precision, in 8 bits as ``settings`` say; points are those of its task.

    Raises:
        QuantizationError: the file cannot be quantized.
        UsageError: the precision is that of the file.
    """
    if precision is Precision.FP16:
        return quantize_fp16(source, destination, timeout_s=settings.timeout_s)
    settings = replace(settings, gradients=OutputGradients.of(source, images, settings.seed))
    if precision is Precision.AUTO:
        if nodes_to_exclude:
            raise UsageError(
                "nodes to keep in 32 bits were named with --precision auto, which chooses them itself; "
                "accepted is --keep-float with int8"
            )
        return write_mixed(
            source, destination, images, settings,
            runner=runner, task=task_options, max_drop_points=max_drop_points,
        )  # fmt: skip
    if precision is not Precision.INT8:
        raise UsageError(
            f"precision {precision.value} was asked for; accepted are int8, auto and fp16, since the file is "
            "in fp32 already"
        )
    report = quantize_integers(source, destination, images.images, settings, nodes_to_exclude)
    for note in _notes_of_scales(report):
        _LOG.info("%s: %s", source.name, note)
    return report


def _inner(exact: Path, delivered: Path, images: Tensor, threads: int) -> InnerParity:
    """Deviations of inner tensors between the delivered and the 32-bit file."""
    first, second = (traced_onnx(path, threads) for path in (exact, delivered))
    deviations = tuple(inner_deviations(first, second, images))
    return InnerParity(
        compared=len(deviations),
        tolerance=APART,
        first_apart=first_apart(deviations, APART),
        farthest=max(deviations, key=lambda t: t.error, default=None),
    )


def details_of(section: QuantizationSection) -> QuantizationDetails:
    """The report of the precision's writer."""
    details = section.integer or section.mixed or section.float16
    assert details is not None
    return details


def stores_fewer_bits(section: QuantizationSection) -> bool:
    """Whether anything is stored in fewer bits; a mixture may have no piece that pays."""
    return section.mixed is None or section.mixed.integer is not None


def notes_of(details: QuantizationDetails, runner: Runner) -> tuple[str, ...]:
    """Notes on what differs from the request or gains less than expected."""
    if isinstance(details, IntegerReport):
        return _notes_of_scales(details)
    if isinstance(details, MixedReport):
        stays = () if details.integer is None else _notes_of_scales(details.integer)
        return (*_notes_of_mixture(details, runner), *stays)
    notes = [
        "weights are stored in 16 bits and calculated with in 32: onnxruntime's CPU provider gains "
        "nothing from 16-bit arithmetic, so only the file is smaller"
    ]
    if details.kept_float:
        notes.append(
            "beyond the range of 16 bits (above 65,504, or too small to be told from their rounding) and "
            f"stored in 32: {first_few(details.kept_float, _SHOWN)}"
        )
    return tuple(notes)


def _notes_of_scales(details: IntegerReport) -> tuple[str, ...]:
    """Missing gradients, and nodes that stay in 32 bits, by reason, since all nodes of a tensor share it."""
    names: dict[str, list[str]] = {}
    for node, reason in {**details.unscaled, **details.mixed_units}.items():
        names.setdefault(reason, []).append(node)
    notes = [f"{first_few(nodes, _SHOWN)} in 32 bits: {reason}" for reason, nodes in names.items()]
    if details.no_gradients is not None:
        why = details.no_gradients
        notes.insert(0, f"ranges of 8 bits count all values alike, without gradients: {why}")
    more = len(notes) - _SHOWN
    return (*notes[:_SHOWN], *((f"{more} more such reasons are in the JSON report",) if more > 0 else ()))


def _notes_of_mixture(details: MixedReport, runner: Runner) -> tuple[str, ...]:
    kept = "nothing in 8 bits was smaller and held the drop, so the file stays as it is"
    stays = () if details.integer is not None else (kept,)
    if details.integer is not None and not any(piece.integer for piece in details.pieces):
        stays = (
            "no piece in 8 bits was faster and held the drop, so all of it calculates in 32; weights are "
            "stored in 8",
        )
    if runner.measures:
        return stays
    if runner.knows(Precision.AUTO):
        return (
            f"which pieces are faster in 8 bits on {runner.target.name} was predicted, not measured: the "
            "gain of each is as sure as the prediction's band",
            *stays,
        )
    return (
        "which pieces are faster in 8 bits can only be measured on the device itself, not on "
        f"{runner.target.name} from here, so all are in 8 bits but those that the drop forbids",
        *stays,
    )


def notes_of_speed(precision: Precision, runner: Runner, ratio: LatencyRatio) -> tuple[str, ...]:
    """Notes if fewer bits are slower, or their speed is unknown on the target."""
    notes = []
    integers = precision in (Precision.INT8, Precision.AUTO)
    if integers and ratio.low > 1.0:
        notes.append(
            f"8 bits are slower than the same network in 32 {runner.measurer.place} ({ratio.ratio:.2f} of "
            "the CPU time): in small networks, and where ops between the quantized ones run in 32 bits, "
            "rounding from one to the other costs more than 8-bit sums gain"
        )
    if not runner.knows(precision):
        notes.append(
            f"CPU time was measured on this host, whose 8-bit kernels are not those of {runner.target.name}, "
            "and for those no prediction is known; measure there"
        )
    return tuple(notes)
