"""Write a 32-bit ONNX file in fewer bits, and what a user must know of it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from edgeprune.artifacts.latency import LatencyRatio
from edgeprune.artifacts.quantization import HalvesReport, IntegerReport, Precision, RangeMethod
from edgeprune.errors import UsageError
from edgeprune.quantization.formats import integer_format
from edgeprune.quantization.halves import quantize_halves
from edgeprune.quantization.integers import quantize_integers
from edgeprune.targets import TargetProfile

_SHOWN = 5


def write_quantized(
    source: Path,
    destination: Path,
    images: Tensor,
    *,
    precision: Precision,
    target: TargetProfile,
    threads: int,
    method: RangeMethod = RangeMethod.MSE,
    kept_float: frozenset[str] = frozenset(),
) -> IntegerReport | HalvesReport:
    """``source`` in the form that ``target`` runs fastest.

    Raises:
        QuantizationError: the file cannot be quantized.
        UsageError: the precision is that of the file.
    """
    if precision is Precision.FP16:
        return quantize_halves(source, destination)
    if precision is not Precision.INT8:
        raise UsageError(
            f"precision {precision.value} was asked for; accepted are int8 and fp16, since the file is "
            "in fp32 "
            "already"
        )
    return quantize_integers(
        source,
        destination,
        images,
        form=integer_format(target),
        method=method,
        threads=threads,
        kept_float=kept_float,
    )


def notes_of(details: IntegerReport | HalvesReport) -> tuple[str, ...]:
    """What was done otherwise than asked for, or gains less than one might think."""
    if isinstance(details, IntegerReport):
        return ()
    found = [
        "weights are stored in 16 bits and calculated with in 32: onnxruntime's CPU provider gains "
        "nothing from "
        "16-bit arithmetic, so only the file is smaller"
    ]
    if details.kept_float:
        more = len(details.kept_float) - _SHOWN
        shown = ", ".join(details.kept_float[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        found.append(f"beyond the range of 16 bits and stored in 32: {shown}")
    return tuple(found)


def notes_of_speed(precision: Precision, target: TargetProfile, ratio: LatencyRatio) -> tuple[str, ...]:
    """Where fewer bits are slower, and where that was not measured."""
    found = []
    if precision is Precision.INT8 and ratio.low > 1.0:
        found.append(
            f"8 bits are slower than the original in 32 on this host ({ratio.ratio:.2f} of the CPU "
            "time): ops "
            "between the quantized ones run in 32 bits, and each change costs more than it gains"
        )
    if precision is Precision.INT8 and not target.is_host:
        found.append(
            f"CPU time was measured on this host, whose 8-bit kernels are not those of {target.name}, "
            "and for "
            "those no prediction is known; measure there"
        )
    return tuple(found)
