"""Models side by side, and what the later ones differ by from the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from edgeprune.artifacts.latency import Provenance
from edgeprune.commands.check.subjects import (
    Subject,
    facts_of,
    figures_here,
    memory_interval,
    points_between,
    read_subjects,
)
from edgeprune.errors import UsageError
from edgeprune.gate.decisions import quotient
from edgeprune.gate.outcomes import Comparison, Difference, Interval, Metric, ModelFacts, Unit
from edgeprune.options.gate import CompareOptions
from edgeprune.profiling.timing import compare


def compare_models(options: CompareOptions, threads: int) -> Comparison:
    """Facts of all models, and differences against the first with their intervals.

    Raises:
        UsageError: fewer than two models, one that cannot be read, or reports of different measures.
        ProfileError: an ONNX file cannot be run.
    """
    if len(options.models) < 2:
        raise UsageError(
            f"{len(options.models)} model was given; accepted are two or more folders, reports or ONNX files"
        )
    with read_subjects(options.models, options.input_shape) as (subjects, of_sizes):
        facts = [_facts(subject, options, threads) for subject in subjects]
        differences = [
            _differences(subject, each, subjects[0], facts[0], options, threads)
            for subject, each in zip(subjects[1:], facts[1:], strict=True)
        ]
    return Comparison(
        models=tuple(facts), differences=tuple(differences), notes=(*of_sizes, *_notes(subjects, options))
    )


def _facts(subject: Subject, options: CompareOptions, threads: int) -> ModelFacts:
    if subject.report is not None or subject.onnx is None:
        return facts_of(subject)
    measure = options.measure
    return facts_of(subject, figures_here(subject, options, threads, latency=measure, memory=measure))


def _differences(
    subject: Subject,
    facts: ModelFacts,
    first: Subject,
    base: ModelFacts,
    options: CompareOptions,
    threads: int,
) -> tuple[Difference, ...]:
    rows = [
        _exact(Metric.SIZE, facts.size_bytes, base.size_bytes),
        _exact(Metric.PARAMETERS, facts.parameters, base.parameters),
        _exact(Metric.MACS, facts.macs, base.macs),
    ]
    if facts.memory_bytes and base.memory_bytes:
        ratio = quotient(memory_interval(facts.memory_bytes), memory_interval(base.memory_bytes))
        rows.append(
            Difference(
                metric=Metric.MEMORY, unit=Unit.RATIO, change=ratio, basis="peaks on a host, within 2% each"
            )
        )
    if options.measure and subject.onnx is not None and first.onnx is not None:
        rows.append(_latency(subject, first, options, threads))
    elif facts.provenance is base.provenance is Provenance.PREDICTED and facts.latency_of == base.latency_of:
        rows.append(_predicted(facts, base))
    points = points_between(subject, first)
    if points is not None:
        lost, told = points
        gained = Interval.of(-lost.value, -lost.high, -lost.low)
        rows.append(Difference(metric=Metric.QUALITY, unit=Unit.POINTS, change=gained, basis=told))
    return tuple(rows)


def _exact(what: Metric, after: int, before: int) -> Difference:
    ratio = Interval.exact(after / before) if before else Interval.exact(math.inf if after else 1.0)
    return Difference(metric=what, unit=Unit.RATIO, change=ratio, basis="exact")


def _latency(subject: Subject, first: Subject, options: CompareOptions, threads: int) -> Difference:
    """CPU time over the first's by interleaved pairs; exactly 1 for the same file."""
    if subject.sha256 == first.sha256:
        same = Interval.exact(1.0)
        return Difference(metric=Metric.LATENCY, unit=Unit.RATIO, change=same, basis="the same file")
    if subject.runs is None or first.runs is None:
        raise TypeError("two files are needed")
    ratio = compare(
        first.runs,
        subject.runs,
        threads=threads,
        batch_size=None,
        seed=options.seed,
        timeout_s=options.timeout_s,
    )
    return Difference(
        metric=Metric.LATENCY,
        unit=Unit.RATIO,
        change=Interval.of(ratio.ratio, ratio.low, ratio.high),
        basis=f"CPU time, {ratio.provenance.value}, {ratio.pairs} interleaved pairs",
    )


def _predicted(facts: ModelFacts, base: ModelFacts) -> Difference:
    """Ratio of two predictions, whose error bands say how far off each may be by itself."""
    if facts.latency_ms is None or base.latency_ms is None:
        raise TypeError("two predictions are needed")
    return Difference(
        metric=Metric.LATENCY,
        unit=Unit.RATIO,
        change=quotient(facts.latency_ms, base.latency_ms),
        basis=f"{Provenance.PREDICTED.value} for {facts.latency_of}, error bands of both",
    )


def _notes(subjects: Sequence[Subject], options: CompareOptions) -> tuple[str, ...]:
    notes = []
    reports = [subject.report for subject in subjects if subject.report is not None]
    pairs = list(pairwise(reports))
    if any(a.calibration.fingerprint_sha256 != b.calibration.fingerprint_sha256 for a, b in pairs):
        notes.append("The reports were judged on different images.")
    if any(a.environment.machine != b.environment.machine for a, b in pairs):
        notes.append("The reports are of different machines: times of one are not those of another.")
    if not options.measure:
        notes.append("Nothing was measured (--no-measure): latencies are those of the reports.")
    elif any(subject.onnx is None for subject in subjects):
        notes.append("CPU times are compared where both have an ONNX file; a report alone has none.")
    return tuple(notes)
