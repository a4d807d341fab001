"""Values, limits and decisions of the gate in words, and its tables."""

from __future__ import annotations

import math

from edgeprune.gate.outcomes import (
    Check,
    Comparison,
    Decision,
    Difference,
    GateResult,
    Interval,
    Metric,
    ModelFacts,
    OnInconclusive,
    QualityFacts,
    Unit,
)
from edgeprune.reporting.formatting import (
    MISSING,
    count_words,
    format_bytes,
    format_count,
    format_macs,
    format_share,
    significant,
)
from edgeprune.reporting.table import Table
from edgeprune.showing import shown_in_cell

METRIC_NAMES = {
    Metric.SIZE: "ONNX file",
    Metric.PARAMETERS: "parameters",
    Metric.MACS: "MACs per image",
    Metric.LATENCY: "latency",
    Metric.MEMORY: "peak memory",
    Metric.QUALITY: "quality",
    Metric.AGREEMENT: "agreement with the original",
}
NOT_KNOWN = "not known"
_RATIO_DIGITS = 3
_POINT_DIGITS = 2


def check_name(check: Check) -> str:
    """Name of a check: the metric, and the key of its limit."""
    return f"{METRIC_NAMES[check.metric]} ({check.key})"


def value_words(value: float, unit: Unit) -> str:
    """A value with its unit."""
    if not math.isfinite(value):
        return "unbounded" if value > 0 else "none"
    if unit is Unit.BYTES:
        return format_bytes(round(value))
    if unit is Unit.COUNT:
        return format_count(round(value))
    if unit is Unit.MILLISECONDS:
        return f"{significant(value)} ms"
    if unit is Unit.RATIO:
        return f"{value:.{_RATIO_DIGITS}f}x"
    if unit is Unit.POINTS:
        return f"{round(value, _POINT_DIGITS) + 0.0:.{_POINT_DIGITS}f} points"
    return format_share(value) if unit is Unit.SHARE else significant(value)


def interval_words(interval: Interval, unit: Unit) -> str:
    """A value, and its interval if it has one."""
    text = value_words(interval.value, unit)
    if interval.is_exact:
        return text
    low, high = value_words(interval.low, unit), value_words(interval.high, unit)
    if unit is Unit.RATIO and interval.low <= 0.0:  # a bound from above alone
        return f"{text} (at most {high})"
    if not math.isfinite(interval.high):
        return f"{text} (at least {low})"
    return f"{text} ({low} to {high})"


def limit_words(check: Check) -> str:
    """The limit: ``at most 1.05x``."""
    return f"at {'most' if check.most else 'least'} {value_words(check.limit, check.unit)}"


def check_sentence(check: Check) -> str:
    """What was found against the limit, in one sentence."""
    found, limit = interval_words(check.found, check.unit), limit_words(check)
    verdict = {
        Decision.PASSED: "passes",
        Decision.FAILED: "FAILS",
        Decision.INCONCLUSIVE: "is inconclusive",
    }[check.decision]
    return f"{check_name(check)} {verdict}: {found}, accepted is {limit}; {check.basis}"


def verdict_sentence(result: GateResult) -> str:
    """The outcome of all checks, naming those that failed or stayed open."""
    failed, still_open = result.of(Decision.FAILED), result.of(Decision.INCONCLUSIVE)
    if failed:
        return f"FAILED: {', '.join(check_name(check) for check in failed)}"
    if not still_open:
        return f"passed: {len(result.checks)} of {len(result.checks)} checks"
    names = ", ".join(check_name(check) for check in still_open)
    return f"INCONCLUSIVE{open_words(result.on_inconclusive)}: {names}"


def open_words(asked: OnInconclusive) -> str:
    """What an open question counts as."""
    return {
        OnInconclusive.PASS: ", which passes as asked",
        OnInconclusive.FAIL: ", which fails as asked",
        OnInconclusive.REPORT: "",
    }[asked]


def advice(result: GateResult) -> str:
    """What would settle open checks; empty if none is open."""
    still_open = {check.metric for check in result.of(Decision.INCONCLUSIVE)}
    told = {
        Metric.LATENCY: "times of the device instead of predictions (--ssh, [[devices]] of a sweep), a "
        "longer --time-limit, a quieter machine, or a limit further off",
        Metric.QUALITY: "more held-out images or a larger allowance",
        Metric.AGREEMENT: "more held-out images or a larger allowance",
        Metric.MEMORY: "a limit further off than the 2% by which peaks scatter",
    }
    wanted = dict.fromkeys(told[metric] for metric in told if metric in still_open)
    which = "what is open" if result.of(Decision.FAILED) else "it"
    return f"What would decide {which}: {'; '.join(wanted)}." if wanted else ""


def gate_table(result: GateResult) -> Table:
    """All checks."""
    checks = tuple(
        (
            check_name(check),
            interval_words(check.found, check.unit),
            limit_words(check),
            decision_words(check.decision),
            check.basis,
        )
        for check in result.checks
    )
    return Table(
        title="Checks",
        columns=("metric", "found", "accepted", "decision", "from"),
        rows=checks,
        remark=_rounds_remark(result),
        narrow_columns=(0, 1, 2, 3),
    )


def decision_words(decision: Decision) -> str:
    """One word, in capitals where it matters."""
    return "FAILED" if decision is Decision.FAILED else decision.value


def _rounds_remark(result: GateResult) -> str:
    rounds = next((check.rounds for check in result.checks if check.rounds is not None), None)
    if rounds is None:
        return ""
    return (
        f"CPU time in {rounds.rounds} rounds of new sessions, {rounds.pairs} pairs, "
        f"{count_words(rounds.threads, 'thread')}, {rounds.duration_s:.1f} s. The lower end holds with 99% "
        "and the upper with 95% confidence, however often it was looked at: at most 1 in 100 ratios within "
        "the limit fails, at most 5 in 100 beyond it pass."
    )


def models_table(comparison: Comparison) -> Table:
    """What is known of every model, one column each."""
    models = comparison.models
    rows = [
        ("ONNX file", *(format_bytes(m.size_bytes) for m in models)),
        ("parameters", *(format_count(m.parameters) for m in models)),
        ("MACs per image", *(format_macs(m.macs) for m in models)),
        (
            "peak memory",
            *(MISSING if m.memory_bytes is None else format_bytes(m.memory_bytes) for m in models),
        ),
        ("latency", *(_latency(m) for m in models)),
        ("measure", *(NOT_KNOWN if m.quality is None else m.quality.measure for m in models)),
        ("quality", *(NOT_KNOWN if m.quality is None else _quality(m.quality) for m in models)),
        ("agreement with the original", *(_agreement(m) for m in models)),
    ]
    return Table(
        title="Models",
        columns=("", *(f"{_letter(place)}: {shown_in_cell(m.name)}" for place, m in enumerate(models))),
        rows=tuple(rows),
        remark="Intervals of quality and agreement are 95%, those of predictions their error bands.",
    )


def differences_table(comparison: Comparison) -> Table:
    """Differences of every later model against the first."""
    changes = tuple(
        (_letter(place), METRIC_NAMES[d.metric], change_words(d), meaning_words(d), d.basis)
        for place, differences in enumerate(comparison.differences, 1)
        for d in differences
    )
    return Table(
        title="Differences against A",
        columns=("", "metric", "change", "meaning", "from"),
        rows=changes,
        remark="Ratios are over A; points are gained (+) or lost (-). Intervals are 95%.",
        narrow_columns=(0, 1, 2, 3),
    )


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else f"#{place + 1}"


def _latency(model: ModelFacts) -> str:
    if model.latency_ms is None or model.provenance is None:
        return MISSING
    return (
        f"{interval_words(model.latency_ms, Unit.MILLISECONDS)}, {model.provenance.value}: {model.latency_of}"
    )


def _quality(quality: QualityFacts) -> str:
    unit = Unit.SHARE if quality.is_share else Unit.MEASURE
    return f"{interval_words(quality.figure, unit)}, {quality.images} images"


def _agreement(model: ModelFacts) -> str:
    return NOT_KNOWN if model.agreement is None else interval_words(model.agreement, Unit.SHARE)


def change_words(difference: Difference) -> str:
    """The change with its interval."""
    change = difference.change
    if difference.unit is Unit.RATIO:
        return interval_words(change, Unit.RATIO)
    value, low, high = (
        f"{round(end, _POINT_DIGITS) + 0.0:+.{_POINT_DIGITS}f}"
        for end in (change.value, change.low, change.high)
    )
    return f"{value} points" if change.is_exact else f"{value} points ({low} to {high})"


def meaning_words(difference: Difference) -> str:
    """Better or worse only if the whole interval says so, in the digits that are shown."""
    change, is_ratio = difference.change, difference.unit is Unit.RATIO
    none, digits = (1.0, _RATIO_DIGITS) if is_ratio else (0.0, _POINT_DIGITS)
    value, low, high = (round(end, digits) for end in (change.value, change.low, change.high))
    if value == low == high == none:
        return "no difference"
    if low > none:
        return "WORSE" if is_ratio else "better"
    if high < none:
        return "better" if is_ratio else "WORSE"
    return "no clear difference"
