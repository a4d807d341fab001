"""Compare neighbours in the chain of models, and measure quality with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.accelerator import CPU, device_of, in_memory, parts_of
from edgeprune.artifacts.arrays import Float32Array
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import (
    AnswerCounts,
    ChannelDeviation,
    ChannelSummary,
    Deviation,
    ParityFigure,
    Verdict,
)
from edgeprune.errors import ParityError, ProfileError
from edgeprune.fx import tensor_leaves
from edgeprune.intervals import Z_95, wilson_interval
from edgeprune.onnx_io.session import fixed_batch, in_a_sentence, open_exact_session, run_filled
from edgeprune.outputs.units import OutputUnits, channel_errors, relative_errors, units_of

_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBERS = frozenset(f"tensor({name})" for name in ("float", "double", "float16", "bool", *_INTEGERS))
"""Types of tensors that can be compared."""
_BYTES_AT_ONCE = 4 * 2**20
"""Bytes of images per run: six images of 224 pixels."""

_WORST_CHANNELS = 3
_ROUNDING = 2.0**-22
"""Of an output's largest number: what single precision may leave of it."""
_CHANNELS_TOLERANCE = 100.0
"""Times the tolerance for the largest output: what rounding may do to a channel that is a difference of large
values."""

Outputs = list[Float32Array]


def run_torch(module: nn.Module | Callable[[Tensor], object], images: Tensor, *, batch: int = 64) -> Outputs:
    """Outputs of a torch module over all images, one array per output tensor.

    At most ``batch`` images at once, fewer where they are large, as in :func:`run_onnx`.
    """
    parts: list[list[Tensor]] = []
    device = device_of(module) if isinstance(module, nn.Module) else CPU

    def outputs(part: slice) -> list[Tensor]:
        return [t.cpu() for t in tensor_leaves(module(images[part].to(device)))]

    with torch.no_grad():
        for _, found in in_memory(parts_of(len(images), _at_once(images, batch)), outputs):
            parts.append(found)
    return [torch.cat(p).numpy() for p in zip(*parts, strict=True)]


def run_onnx(
    path: Path, images: Tensor, *, threads: int, batch: int = 64, timeout_s: float | None = None
) -> Outputs:
    """Outputs of an ONNX file over all images with onnxruntime; a fixed batch size is honoured.

    At most ``batch`` images at once, fewer where they are large: activations take many times their memory.

    Raises:
        ProfileError: onnxruntime cannot load or run the file, or one run takes longer than ``timeout_s``.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised and reported

    def failed(reason: str) -> str:
        return (
            f"onnxruntime could not run {path.name} ({reason}); accepted is an ONNX file for the CPU "
            "provider with one float32 image input."
        )

    with in_a_sentence(ProfileError, failed, name=path.name):
        session = open_exact_session(path, options, timeout_s=timeout_s)
        _check_interface(session, images)
        at_once = fixed_batch(session) or _at_once(images, batch)
        parts = [
            [np.asarray(out) for out in run_filled(session, None, chunk.numpy(), timeout_s)]
            for chunk in torch.split(images, at_once)
        ]
        _check_rows(session, parts, path)
        outputs = [np.concatenate(p) for p in zip(*parts, strict=True)]
    if not all(output.size for output in outputs):
        raise ProfileError(
            f"{path.name} gives no values for these images; give a file whose outputs have some"
        )
    return outputs


def _check_interface(session: onnxruntime.InferenceSession, images: Tensor) -> None:
    """Check that a session has one input or those that the images join, and outputs that are numbers.

    Raises:
        ValueError: there are other inputs, or outputs of another type.
    """
    given = session.get_inputs()
    sizes = [size for each in given for size in each.shape[1:]]
    if len(given) != 1 and not (images.dim() == 2 and all(isinstance(size, int) for size in sizes)):
        raise ValueError(f"it has {len(given)} inputs")
    if len(given) != 1 and sum(math.prod(each.shape[1:]) for each in given) != images.shape[1]:
        raise ValueError(f"it has {len(given)} inputs of other sizes")
    other = next((out for out in session.get_outputs() if out.type not in NUMBERS), None)
    if other is not None:
        raise ValueError(f"its output {other.name!r} is of type {other.type}")


def _check_rows(session: onnxruntime.InferenceSession, parts: list[Outputs], path: Path) -> None:
    """Check that every output has a first dimension.

    Raises:
        ProfileError: names one that has none.
    """
    for output, value in zip(session.get_outputs(), parts[0], strict=True):
        if value.ndim == 0:
            raise ProfileError(
                f"output {output.name!r} of {path.name} has no batch dimension, it is a single number; "
                "accepted are outputs with a row for each image: leave that one out of the file"
            )


def _at_once(images: Tensor, most: int) -> int:
    each = images[:1].numel() * images.element_size()
    return max(1, min(most, _BYTES_AT_ONCE // max(1, each)))


def compare(
    reference: Outputs, candidate: Outputs, *, names: tuple[str, str], tolerance: float
) -> ParityFigure:
    """Deviation of two models on the same images, judged by max |a - b| / max |a|.

    Outputs that are no class scores are judged channel by channel, too: scores beside boxes in pixels may be
    wrong altogether within any tolerance for the largest value.

    Raises:
        ParityError: the outputs differ in number or shape.
    """
    measured = deviation(reference, candidate, names=names)
    worst = 0.0 if measured.by_channel is None else measured.by_channel.worst[0].relative_error
    passed = measured.relative_error <= tolerance and worst <= _CHANNELS_TOLERANCE * tolerance
    return ParityFigure(
        **vars(measured), tolerance=tolerance, verdict=Verdict.PASSED if passed else Verdict.FAILED
    )


def deviation(reference: Outputs, candidate: Outputs, *, names: tuple[str, str]) -> Deviation:
    """Deviation of two models on the same images, without a verdict.

    Raises:
        ParityError: the outputs differ in number or shape.
    """
    shapes_a, shapes_b = [a.shape for a in reference], [b.shape for b in candidate]
    if shapes_a != shapes_b:
        raise ParityError(
            f"{names[1]} gives outputs of shape {shapes_b} where {names[0]} gives {shapes_a}; the stage "
            "between "
            "them broke the model: please report it with the model's architecture."
        )
    a = np.concatenate([x.reshape(-1).astype(np.float64) for x in reference])
    b = np.concatenate([x.reshape(-1).astype(np.float64) for x in candidate])
    difference = np.abs(a - b)
    scale = float(np.abs(a).max()) or 1.0
    worst = float(difference.max()) if np.isfinite(b).all() else math.inf
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return Deviation(
        reference=names[0],
        candidate=names[1],
        max_abs_error=worst,
        mean_abs_error=float(difference.mean()),
        relative_error=worst / scale,
        cosine=float(a @ b) / norms if norms > 0 else 1.0,
        top1_agreement=_agreement(reference, candidate),
        images=len(reference[0]),
        by_channel=None if is_classifier(reference) else by_channel(reference, candidate),
    )


def by_channel(reference: Outputs, candidate: Outputs) -> ChannelSummary:
    """Deviation of every channel of every output, in units of its spread in the reference.

    Channels that became constant are the worst of all. Errors that single precision leaves in numbers of the
    output's size count as none: a class that no image shows may spread less than that.
    """
    rows: list[ChannelDeviation] = []
    for number, (wanted, given) in enumerate(zip(reference, candidate, strict=True)):
        errors = channel_errors(wanted, given, units_of(wanted))
        rounding = _ROUNDING * float(np.abs(wanted).max(initial=0.0))
        relative = np.where(errors.absolute <= rounding, 0.0, errors.relative)
        rows += [
            ChannelDeviation(output=number, channel=channel, relative_error=float(error), constant=bool(flat))
            for channel, (error, flat) in enumerate(zip(relative, errors.constant, strict=True))
        ]
    worst = sorted(rows, key=lambda row: (not row.constant, -row.relative_error))
    return ChannelSummary(
        worst=tuple(worst[:_WORST_CHANNELS]), channels=len(rows), constant=sum(row.constant for row in rows)
    )


def is_classifier(outputs: Outputs) -> bool:
    """Whether the outputs are one row of class scores per image."""
    return len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] >= 2


def _agreement(reference: Outputs, candidate: Outputs) -> float | None:
    if not is_classifier(reference):
        return None
    return float((reference[0].argmax(1) == candidate[0].argmax(1)).mean())


def require(figures: tuple[ParityFigure, ...], where: Callable[[ParityFigure], str] | None = None) -> None:
    """Raise for the first pair of neighbours that disagrees.

    ``where`` describes where the models of a failed pair diverge.

    Raises:
        ParityError: names the pair, the difference and the tolerance.
    """
    for figure in figures:
        if figure.verdict is Verdict.FAILED:
            place = "" if where is None else f" ({where(figure)})"
            raise ParityError(
                f"{figure.candidate} differs from {figure.reference} by {_difference(figure)}{place}: the "
                "stage between them is wrong "
                "for this model; nothing was written, please report it with the model's architecture."
            )


def _difference(figure: ParityFigure) -> str:
    """What is beyond its tolerance: the outputs as a whole, or a channel."""
    if figure.relative_error > figure.tolerance or figure.by_channel is None:
        return f"{figure.relative_error:.2e} of the largest output, accepted is {figure.tolerance:.0e}"
    worst = figure.by_channel.worst[0]
    return (
        f"{worst.relative_error:.2e} of the spread of channel {worst.channel} of output {worst.output}, "
        f"accepted is {_CHANNELS_TOLERANCE * figure.tolerance:.0e}"
    )


def accuracy_kind(outputs: Outputs, labelled: bool) -> AccuracyKind:
    """Quality measure that applies to these outputs."""
    if not is_classifier(outputs):
        return AccuracyKind.RELATIVE_ERROR
    return AccuracyKind.TOP1 if labelled else AccuracyKind.AGREEMENT


def accuracy(
    stage: str,
    outputs: Outputs,
    *,
    original: Outputs,
    labels: NDArray[np.int64] | None,
    kind: AccuracyKind,
    units: Sequence[OutputUnits] | None = None,
) -> AccuracyFigure:
    """Quality of one stage's outputs with a 95% interval (Wilson 1927; normal for errors).

    ``units``: those of the original's outputs, where they are known already.
    """
    count = len(outputs[0])
    if kind is AccuracyKind.RELATIVE_ERROR:
        errors = relative_errors(original, outputs, units or [units_of(output) for output in original])
        mean, half = float(errors.mean()), Z_95 * float(errors.std()) / math.sqrt(count)
        return AccuracyFigure(
            stage=stage, value=mean, low=max(0.0, mean - half), high=mean + half, images=count
        )
    truth = labels if kind is AccuracyKind.TOP1 else original[0].argmax(1)
    hits = int((outputs[0].argmax(1) == truth).sum())
    low, high = wilson_interval(hits, count)
    return AccuracyFigure(stage=stage, value=hits / count, low=low, high=high, images=count)


def points_lost(original: Outputs, outputs: Outputs, labels: NDArray[np.int64] | None) -> float:
    """Percentage points of accuracy, or of agreement without labels, lost against the original.

    For outputs other than class scores, their relative error in percent.
    """
    kind = accuracy_kind(original, labels is not None)
    before, after = (
        accuracy("", candidate, original=original, labels=labels, kind=kind).value
        for candidate in (original, outputs)
    )
    return 100 * (after if kind is AccuracyKind.RELATIVE_ERROR else before - after)


def answer_counts(
    original: Outputs, delivered: Outputs, labels: NDArray[np.int64] | Tensor | None
) -> AnswerCounts | None:
    """Answers of the original that another network keeps, image by image; ``None`` without class scores."""
    if not is_classifier(original):
        return None
    before, after = original[0].argmax(1), delivered[0].argmax(1)
    truth = before if labels is None else np.asarray(labels)
    return AnswerCounts(
        images=len(before),
        kept_from=int((before == truth).sum()),
        lost=int(((before == truth) & (after != truth)).sum()),
        gained=int(((before != truth) & (after == truth)).sum()),
    )
