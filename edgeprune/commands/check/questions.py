"""What answers each limit of the gate, cheap answers first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.report import RunReport
from edgeprune.commands.check.subjects import (
    Subject,
    memory_interval,
    points_between,
    same_original_and_machine,
)
from edgeprune.gate.decisions import judged, quotient
from edgeprune.gate.outcomes import Check, GateLimits, Interval, ModelFacts, QualityFacts, Unit
from edgeprune.options.gate import CheckOptions
from edgeprune.profiling.rounds import RoundOptions, measure_latency, measure_ratio

_SAME = "the same file as the baseline"
_GIVE_REPORT = "give a folder or report.json that compress wrote"


class UndecidableError(Exception):
    """Nothing known or measurable decides a limit; the message says what to give."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The model, its baseline if there is one, and what is known of both; ``same``: their files are."""

    limits: GateLimits
    options: CheckOptions
    threads: int
    subject: Subject
    facts: ModelFacts
    baseline: Subject | None
    base: ModelFacts | None
    same: bool

    @property
    def rounds(self) -> RoundOptions:
        """How CPU time is measured."""
        options = self.options
        return RoundOptions(
            threads=self.threads,
            time_limit_s=options.time_limit_s,
            timeout_s=options.timeout_s,
            seed=options.seed,
        )

    @property
    def report(self) -> RunReport:
        """The report of the model, which holds the figures of the original network.

        Raises:
            UndecidableError: there is none.
        """
        if self.subject.report is None:
            raise UndecidableError(
                f"{self.subject.name!r} has no report and there is no baseline; give --baseline"
            )
        return self.subject.report


def _size(situation: Situation, limit: float) -> Check:
    found = Interval.exact(situation.facts.size_bytes)
    return judged("max_size_bytes", found, limit, "size of the ONNX file")


def _size_ratio(situation: Situation, limit: float) -> Check:
    if situation.base is not None:
        before, against = situation.base.size_bytes, "the baseline's"
    else:
        before, against = situation.report.deployment.original.size_bytes, "the original's"
    ratio = Interval.exact(situation.facts.size_bytes / max(1, before))
    return judged("max_size_ratio", ratio, limit, f"size over {against}")


def _drop(situation: Situation, limit: float) -> Check:
    if situation.baseline is None:
        lost, basis = _lost(situation)
    elif situation.same:
        lost, basis = Interval.exact(0.0), _SAME
    else:
        between = points_between(situation.subject, situation.baseline)
        if between is None:
            raise UndecidableError(
                f"percentage points need reports of both with a measure that has them; {_GIVE_REPORT}"
            )
        lost, basis = between
    return judged("max_drop_points", lost, limit, basis)


def _lost(situation: Situation) -> tuple[Interval, str]:
    quality = _quality(situation)
    if quality.lost is None:
        raise UndecidableError(f"{quality.measure} has no percentage points; use max_error or min_measure")
    how = "paired by image" if quality.paired else "interval of the report"
    return quality.lost, f"{quality.measure} against the original, {how}, {quality.images} images"


def _quality(situation: Situation) -> QualityFacts:
    if situation.facts.quality is None:
        raise UndecidableError(f"{situation.subject.name!r} has no report of its quality; {_GIVE_REPORT}")
    return situation.facts.quality


def _error(situation: Situation, limit: float) -> Check:
    quality = _quality(situation)
    if not quality.is_error:
        raise UndecidableError(f"{quality.measure} is no error; use max_drop_points or min_measure")
    basis = f"{quality.measure}, {quality.images} images"
    return judged("max_error", quality.figure, limit, basis)


def _measure(situation: Situation, limit: float) -> Check:
    quality = _quality(situation)
    if quality.is_error:
        raise UndecidableError(f"{quality.measure} is an error, lower is better; use max_error")
    check = judged("min_measure", quality.figure, limit, f"{quality.measure}, {quality.images} images")
    return replace(check, unit=Unit.SHARE if quality.is_share else Unit.MEASURE)


def _agreement(situation: Situation, limit: float) -> Check:
    agreement = situation.facts.agreement
    if agreement is None:
        raise UndecidableError(f"{situation.subject.name!r} has no counted answers; {_GIVE_REPORT}")
    basis = "the original's answers that are kept"
    return judged("min_agreement", agreement, limit, basis)


def _memory(situation: Situation, limit: float) -> Check:
    found = memory_interval(_peak(situation.facts))
    return judged("max_memory_bytes", found, limit, "peak memory on a host")


def _memory_ratio(situation: Situation, limit: float) -> Check:
    if situation.same:
        return judged("max_memory_ratio", Interval.exact(1.0), limit, _SAME)
    after, against = _peak(situation.facts), "the baseline's"
    if situation.base is not None:
        before = _peak(situation.base)
    else:
        original = situation.report.deployment.original.peak_memory_bytes
        if original is None:
            raise UndecidableError("the report has no peak memory of the original; give --baseline")
        before, against = original, "the original's"
    ratio = quotient(memory_interval(after), memory_interval(before))
    basis = f"peak memory on a host over {against}"
    return judged("max_memory_ratio", ratio, limit, basis)


def _peak(facts: ModelFacts) -> int:
    if not facts.memory_bytes:
        raise UndecidableError(
            f"{facts.name!r} has no figure of its peak memory; run compress again on Linux"
        )
    return facts.memory_bytes


def _latency(situation: Situation, limit: float) -> Check:
    facts = situation.facts
    if facts.provenance is Provenance.PREDICTED and facts.latency_ms is not None:
        basis = f"{facts.provenance.value} for {facts.latency_of}, with the error band of its report"
        return judged("max_latency_ms", facts.latency_ms, limit, basis)
    if facts.provenance is Provenance.MEASURED_ON_TARGET and facts.latency_ms is not None:
        basis = f"p50 {facts.provenance.value}, {facts.latency_of}, without an interval"
        return judged("max_latency_ms", facts.latency_ms, limit, basis)
    if situation.subject.runs is None:
        raise UndecidableError(
            f"{situation.subject.name!r} has no ONNX file to measure here; give its folder or the .onnx file"
        )
    found = measure_latency(situation.subject.runs, limit, situation.rounds)
    basis = f"{Provenance.MEASURED_ON_HOST.value}, wall clock, in rounds of new sessions"
    return judged("max_latency_ms", found, limit, basis)


def _latency_ratio(situation: Situation, limit: float) -> Check:
    if situation.same:
        return judged("max_latency_ratio", Interval.exact(1.0), limit, _SAME)
    after, baseline = situation.subject, situation.baseline
    if baseline is None:
        return judged("max_latency_ratio", *_against_original(situation.report, limit))
    if after.runs is not None and baseline.runs is not None:
        return _measured(baseline.runs, after.runs, limit, situation.rounds)
    return judged("max_latency_ratio", *_of_reports(after, baseline, limit))


def _measured(before: Path, after: Path, limit: float, how: RoundOptions) -> Check:
    rounds = measure_ratio(before, after, limit, how)
    found = Interval.of(rounds.ratio, rounds.low, rounds.high)
    measured = f"{Provenance.MEASURED_ON_HOST.value}, {rounds.rounds} rounds of new sessions"
    check = judged("max_latency_ratio", found, limit, f"CPU time over the baseline's, {measured}")
    return replace(check, decision=rounds.decision, rounds=rounds)


def _against_original(report: RunReport, limit: float) -> tuple[Interval, float, str]:
    deployment = report.deployment
    if deployment.is_original:
        return Interval.exact(1.0), limit, "the original file is delivered as it is"
    ratio = deployment.latency_ratio
    if ratio is None:
        raise UndecidableError("the report has no ratio of CPU times; give --baseline")
    found = Interval.of(ratio.ratio, ratio.low, ratio.high)
    return found, limit, f"CPU time over the original's, {ratio.provenance.value}, {ratio.pairs} pairs"


def _of_reports(after: Subject, before: Subject, limit: float) -> tuple[Interval, float, str]:
    """CPU time by way of the original that both reports were measured against."""
    new, old = after.report, before.report
    missing = f"{before.name if before.onnx is None else after.name!r} has no ONNX file to measure"
    give = "give the folder or the .onnx file of both, so that they are measured here"
    if new is None or old is None or not same_original_and_machine(new, old):
        raise UndecidableError(f"{missing}, and the reports are of no common original on one machine; {give}")
    ratios = new.deployment.latency_ratio, old.deployment.latency_ratio
    if ratios[0] is None or ratios[1] is None:
        raise UndecidableError(f"{missing}, and a report has no ratio of CPU times; {give}")
    a, b = (Interval.of(r.ratio, r.low, r.high) for r in ratios if r is not None)
    basis = f"CPU time of both reports over the same original's, {Provenance.MEASURED_ON_HOST.value}"
    return quotient(a, b), limit, basis


QUESTIONS: Mapping[str, Callable[[Situation, float], Check]] = MappingProxyType(
    {
        "max_size_bytes": _size,
        "max_size_ratio": _size_ratio,
        "max_drop_points": _drop,
        "max_error": _error,
        "min_measure": _measure,
        "min_agreement": _agreement,
        "max_memory_bytes": _memory,
        "max_memory_ratio": _memory_ratio,
        "max_latency_ms": _latency,
        "max_latency_ratio": _latency_ratio,
    }
)
"""A check for every field of :class:`GateLimits`."""
