"""What the model card and the bill of materials say, gathered once from a report or a picked candidate."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.formatting import (
    format_bytes,
    format_macs,
    format_ms,
    format_prediction,
    format_quality,
    format_ratio,
    format_share,
)
from edgeprune.reporting.headline import advice_in_words, answers_in_words, as_sentence
from edgeprune.reporting.quantization_words import bits_chosen, bits_of_candidate

_FOLDERS = re.compile(r"(^['\"]?|=)(?:~|[A-Za-z]:)?[/\\].*[/\\]")
"""Up to the last separator of an absolute path that is a word, or that an option has behind its ``=``."""
_TASKS = {
    AccuracyKind.TOP1: ("image-classification", "accuracy"),
    AccuracyKind.AP: ("object-detection", "mean_average_precision"),
    AccuracyKind.MEAN_IOU: ("image-segmentation", "mean_iou"),
}
"""Names of tasks and measures on model hubs; a measure against the original has none there."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure in words with its provenance; ``value``, ``low`` and ``high`` (95%) where it is a quality."""

    name: str
    words: str
    provenance: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class HubTask:
    """Names of the task and of its measure on a model hub."""

    task: str
    measure: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A delivered model: where it is from, what was done to it, what that cost and how sure it is.

    ``inputs`` are shapes in words. ``removed`` says what is gone; what stays was ``recovered`` unless nothing
    was pruned. ``loss`` is the verdict, ``advice`` what to do about it (may be empty).
    """

    name: str
    source: str
    source_sha256: str | None
    created_utc: str
    target: str
    images: str
    fingerprint_sha256: str
    inputs: str
    single_image: bool
    removed: tuple[str, ...]
    recovered: bool
    loss: str
    advice: str
    metrics: tuple[Metric, ...]
    hub: HubTask | None
    command: str
    edgeprune: str
    packages: dict[str, str]
    seed: int
    notes: tuple[str, ...]


def facts_of_report(report: RunReport) -> ModelFacts:
    """Facts of what ``compress`` delivers."""
    usability, calibration, environment = report.usability, report.calibration, report.environment
    labels = "labelled" if calibration.labelled else "unlabelled"
    names = _TASKS.get(report.accuracy_kind)
    verdict = "It was not judged." if usability is None else as_sentence(usability.headline) + "."
    return ModelFacts(
        name=f"{_base_name(report.model.source)}, compressed by edgeprune",
        source=_base_name(report.model.source),
        source_sha256=report.model.sha256,
        created_utc=report.created_utc,
        target=report.deployment.target,
        images=(
            f"{calibration.fitting_images:,} {labels} images of {_base_name(calibration.source)} to rank and "
            f"recover, {calibration.held_out_images:,} others to judge"
        ),
        fingerprint_sha256=calibration.fingerprint_sha256,
        inputs=report.model.input_words,
        single_image=not report.model.inputs,
        removed=_removed(report),
        recovered=bool(report.pruning.players_removed or report.pruning.blocks_dropped),
        loss=verdict + answers_in_words(report),
        advice="" if usability is None else advice_in_words(usability),
        metrics=_metrics(report),
        hub=None if names is None else HubTask(task=names[0], measure=names[1]),
        command=environment.command,
        edgeprune=environment.edgeprune,
        packages=environment.packages,
        seed=environment.seed,
        notes=report.notes,
    )


def facts_of_candidate(report: RunReport, candidate: Candidate, verdict: str, command: str) -> ModelFacts:
    """Facts of a candidate that was picked from a search, whose headline is ``verdict``."""
    removed = [f"{format_share(1 - candidate.macs_share)} of the multiply-accumulates"]
    if candidate.dropped:
        removed.append(f"the residual blocks {', '.join(candidate.dropped)}")
    if bits := bits_of_candidate(candidate, named=False):
        removed.append(f"bits: {bits}")
    facts = facts_of_report(report)
    return replace(
        facts,
        name=f"{facts.name}, {candidate.name}",
        removed=tuple(removed),
        recovered=candidate.macs_share < 1.0 or bool(candidate.dropped),
        loss=f"{as_sentence(verdict)}.",
        advice="",
        metrics=_candidate_metrics(report, candidate),
        notes=(),
        command=command,
    )


def _removed(report: RunReport) -> tuple[str, ...]:
    pruning = report.pruning
    removed = [
        f"{format_share(pruning.macs_removed_share)} of the multiply-accumulates, "
        f"{pruning.players_removed:,} of {report.ranking.players:,} channels"
    ]
    if pruning.blocks_dropped:
        removed.append(f"the residual blocks {', '.join(pruning.blocks_dropped)}")
    if bits := _bits(report):
        removed.append(f"bits: {bits}")
    return tuple(removed)


def _bits(report: RunReport) -> str:
    """Fewer bits that the delivered file has, and how they were chosen; empty in 32 bits."""
    section = report.quantization
    bits = "" if section is None else bits_chosen(section)
    return f"{bits}, chosen piece by piece" if bits and section and section.mixed else bits


def _stage_words(report: RunReport, stage: str) -> str:
    """A stage of the accuracy; the one in fewer bits by what was chosen instead of the option's value."""
    if report.quantization is None or stage != report.quantization.precision.value:
        return stage
    return _bits(report) or "all in 32 bits"


def _metrics(report: RunReport) -> tuple[Metric, ...]:
    deployment, kind = report.deployment, report.accuracy_kind
    before, after = deployment.original, deployment.compressed
    rows = []
    for figure in (report.accuracy[:1] + report.accuracy[-1:]) if report.accuracy else ():
        rows.append(
            Metric(
                name=f"{kind.value}, {_stage_words(report, figure.stage)}",
                words=format_quality(figure, kind),
                provenance=f"measured on {figure.images:,} held-out images",
                value=figure.value,
                low=figure.low,
                high=figure.high,
            )
        )
    size = f"{format_bytes(before.size_bytes)} -> {format_bytes(after.size_bytes)}"
    rows.append(Metric(name="size of the ONNX file", words=size, provenance="counted"))
    work = f"{format_macs(before.macs)} -> {format_macs(after.macs)}"
    rows.append(Metric(name="work for one image", words=work, provenance="counted"))
    if deployment.latency_ratio is not None:
        ratio = format_ratio(deployment.latency_ratio)
        where = after.latency.machine if after.latency is not None else "the host of the run"
        rows.append(Metric(name="CPU time", words=ratio, provenance=f"measured on {where}"))
    if deployment.compressed_prediction is not None:
        predicted = format_prediction(deployment.compressed_prediction)
        basis = f"predicted from the profile of {deployment.target}, not measured"
        rows.append(Metric(name=f"latency on {deployment.target}", words=predicted, provenance=basis))
    return tuple(rows)


def _candidate_metrics(report: RunReport, candidate: Candidate) -> tuple[Metric, ...]:
    rows = [
        Metric(name="size of the ONNX file", words=format_bytes(candidate.size_bytes), provenance="counted"),
        Metric(
            name=f"latency on {report.deployment.target}",
            words=format_ms(candidate.latency_ms, candidate.latency_provenance),
            provenance=candidate.latency_provenance.value,
        ),
    ]
    if candidate.drop_points is not None:
        interval = ""
        if candidate.paired is not None:
            low, high = candidate.paired.low_points, candidate.paired.high_points
            interval = f" (95% interval {low:.1f} to {high:.1f})"
        images = f"measured on {report.calibration.held_out_images:,} held-out images"
        lost = f"{candidate.drop_points:.2f} points lost{interval}"
        rows.insert(0, Metric(name=report.accuracy_kind.value, words=lost, provenance=images))
    return tuple(rows)


def without_folders(command: str) -> str:
    """A command line with the names of files alone where it has absolute paths, which are private."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    short = [_FOLDERS.sub(r"\1", word) for word in words]
    return command if short == words else shlex.join(short)


def _base_name(source: str) -> str:
    """The last part of a path; a name such as ``torchvision:resnet18`` as it is."""
    return Path(source).name or source
