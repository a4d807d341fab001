"""Verify neighbours in the chain of models against each other, and judge quality with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.artifacts.arrays import Float32Array
from edgeprune.artifacts.report import (
    AccuracyFigure,
    AccuracyKind,
    AnswerCounts,
    Deviation,
    ParityFigure,
    Verdict,
)
from edgeprune.errors import ParityError, ProfileError
from edgeprune.fx import tensor_leaves
from edgeprune.intervals import Z_95, wilson_interval
from edgeprune.onnx_io.session import fixed_batch, in_a_sentence, open_session, run_filled

_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
NUMBERS = frozenset(f"tensor({name})" for name in ("float", "double", "float16", "bool", *_INTEGERS))
"""Types of tensors that can be compared."""
_BYTES_AT_ONCE = 4 * 2**20
"""Of images that are run at once: six of 224 pixels."""

Outputs = list[Float32Array]


def run_torch(module: nn.Module | Callable[[Tensor], object], images: Tensor, *, batch: int = 64) -> Outputs:
    """Outputs of a torch module over all images, one array per output tensor.

    At most ``batch`` images at once, fewer where they are large, as in :func:`run_onnx`.
    """
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        for chunk in torch.split(images, _at_once(images, batch)):
            parts.append(tensor_leaves(module(chunk)))
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
    options.log_severity_level = 4  # what goes wrong is raised and told

    def failed(reason: str) -> str:
        return (
            f"onnxruntime could not run {path.name} ({reason}); accepted is an ONNX file for the CPU "
            "provider with one float32 image input."
        )

    with in_a_sentence(ProfileError, failed, name=path.name):
        session = open_session(path, options, timeout_s=timeout_s)
        _check_interface(session)
        at_once = fixed_batch(session) or _at_once(images, batch)
        parts = [
            [np.asarray(out) for out in run_filled(session, None, chunk.numpy(), timeout_s)]
            for chunk in torch.split(images, at_once)
        ]
        outputs = [np.concatenate(p) for p in zip(*parts, strict=True)]
    if not all(output.size for output in outputs):
        raise ProfileError(
            f"{path.name} gives no values for these images; give a file whose outputs have some"
        )
    return outputs


def _check_interface(session: onnxruntime.InferenceSession) -> None:
    """Check that a session has one input, and outputs that are numbers.

    Raises:
        ValueError: there are several, or outputs of another type.
    """
    given = session.get_inputs()
    if len(given) != 1:
        raise ValueError(f"it has {len(given)} inputs")
    other = next((out for out in session.get_outputs() if out.type not in NUMBERS), None)
    if other is not None:
        raise ValueError(f"its output {other.name!r} is of type {other.type}")


def _at_once(images: Tensor, most: int) -> int:
    each = images[:1].numel() * images.element_size()
    return max(1, min(most, _BYTES_AT_ONCE // max(1, each)))


def compare(
    reference: Outputs, candidate: Outputs, *, names: tuple[str, str], tolerance: float
) -> ParityFigure:
    """How far two models are apart on the same images; judged on max |a - b| / max |a|.

    Raises:
        ParityError: the outputs differ in number or shape.
    """
    found = deviation(reference, candidate, names=names)
    return ParityFigure(
        **vars(found),
        tolerance=tolerance,
        verdict=Verdict.PASSED if found.relative_error <= tolerance else Verdict.FAILED,
    )


def deviation(reference: Outputs, candidate: Outputs, *, names: tuple[str, str]) -> Deviation:
    """How far two models are apart on the same images, not judged.

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

    ``where`` tells of such a pair what is known of the place where it parts.

    Raises:
        ParityError: names the pair, the difference and the tolerance.
    """
    for figure in figures:
        if figure.verdict is Verdict.FAILED:
            place = "" if where is None else f" ({where(figure)})"
            raise ParityError(
                f"{figure.candidate} differs from {figure.reference} by {figure.relative_error:.2e} of the "
                f"largest output, accepted is {figure.tolerance:.0e}{place}: the stage between them is wrong "
                "for this model; nothing was written, please report it with the model's architecture."
            )


def accuracy_kind(outputs: Outputs, labelled: bool) -> AccuracyKind:
    """What quality can be measured for these outputs."""
    if not is_classifier(outputs):
        return AccuracyKind.RELATIVE_ERROR
    return AccuracyKind.TOP1 if labelled else AccuracyKind.AGREEMENT


def accuracy(
    stage: str, outputs: Outputs, *, original: Outputs, labels: NDArray[np.int64] | None, kind: AccuracyKind
) -> AccuracyFigure:
    """Quality of one stage's outputs with a 95% interval (Wilson 1927; normal for errors)."""
    count = len(outputs[0])
    if kind is AccuracyKind.RELATIVE_ERROR:
        errors = np.mean([_relative(o, r) for o, r in zip(outputs, original, strict=True)], axis=0)
        mean, half = float(errors.mean()), Z_95 * float(errors.std()) / math.sqrt(count)
        return AccuracyFigure(
            stage=stage, value=mean, low=max(0.0, mean - half), high=mean + half, images=count
        )
    truth = labels if kind is AccuracyKind.TOP1 else original[0].argmax(1)
    hits = int((outputs[0].argmax(1) == truth).sum())
    low, high = wilson_interval(hits, count)
    return AccuracyFigure(stage=stage, value=hits / count, low=low, high=high, images=count)


def _relative(output: Float32Array, reference: Float32Array) -> NDArray[np.float64]:
    """Squared error of every image over its squared reference, whatever their unit is."""
    found, exact = (x.reshape(len(x), -1).astype(np.float64) for x in (output, reference))
    whole = np.square(exact).sum(1)
    least = 1e-12 * float(whole.max()) or 1.0
    return np.asarray(np.square(found - exact).sum(1) / np.maximum(whole, least))


def points_lost(original: Outputs, outputs: Outputs, labels: NDArray[np.int64] | None) -> float:
    """Points of accuracy, or of agreement without labels, that outputs lose against the original's.

    For outputs that are no class scores it is their relative error in percent.
    """
    kind = accuracy_kind(original, labels is not None)
    before, after = (
        accuracy("", found, original=original, labels=labels, kind=kind).value
        for found in (original, outputs)
    )
    return 100 * (after if kind is AccuracyKind.RELATIVE_ERROR else before - after)


def answer_counts(original: Outputs, delivered: Outputs, labels: Tensor | None) -> AnswerCounts | None:
    """Answers of the original that another network keeps, image by image; ``None`` without class scores."""
    if not is_classifier(original):
        return None
    before, after = original[0].argmax(1), delivered[0].argmax(1)
    truth = before if labels is None else labels.numpy()
    return AnswerCounts(
        images=len(before),
        kept_from=int((before == truth).sum()),
        lost=int(((before == truth) & (after != truth)).sum()),
        gained=int(((before != truth) & (after == truth)).sum()),
    )


def accuracies(
    stages: Mapping[str, Outputs], labels: Tensor | None
) -> tuple[AccuracyKind, tuple[AccuracyFigure, ...]]:
    """What quality is measured, and that of every stage; the first of them is the original."""
    original = next(iter(stages.values()))
    truth = None if labels is None else labels.numpy()
    kind = accuracy_kind(original, truth is not None)
    figures = tuple(
        accuracy(stage, found, original=original, labels=truth, kind=kind) for stage, found in stages.items()
    )
    return kind, figures
