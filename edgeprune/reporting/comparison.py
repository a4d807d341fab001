"""Original and compressed model side by side: size, work, memory, and time with its provenance."""

from __future__ import annotations

from edgeprune.artifacts.latency import LatencyMeasurement, LatencyPrediction, LatencyRatio, ModelFigures
from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.formatting import (
    MISSING,
    count_words,
    doubt,
    format_bytes,
    format_change,
    format_count,
    format_macs,
    format_ms,
    format_prediction,
    format_ratio,
    format_share,
)
from edgeprune.reporting.table import Table


def comparison_table(report: RunReport) -> Table:
    """Size, work, memory and time of both models."""
    deployment = report.deployment
    before, after = deployment.original, deployment.compressed
    rows = (
        *static_rows(before, after),
        _memory_row(before, after),
        *_latency_rows(before.latency, after.latency, deployment.latency_ratio),
        *_prediction_rows(deployment.original_prediction, deployment.compressed_prediction),
    )
    return Table(
        title="Original and compressed",
        columns=("", "original", "compressed", "change"),
        rows=rows,
        remark=_timing_remark(report),
        numeric_columns=frozenset({1, 2, 3}),
    )


def static_rows(before: ModelFigures, after: ModelFigures) -> list[tuple[str, str, str, str]]:
    """Rows that need no timing: work, parameters, size."""
    figures = (
        ("MACs per image", format_macs, before.macs, after.macs),
        ("parameters", format_count, before.parameters, after.parameters),
        ("ONNX file", format_bytes, before.size_bytes, after.size_bytes),
    )
    return [(label, show(old), show(new), format_change(old, new)) for label, show, old, new in figures]


def _memory_row(before: ModelFigures, after: ModelFigures) -> tuple[str, str, str, str]:
    values = (before.peak_memory_bytes, after.peak_memory_bytes)
    shown = [MISSING if value is None else format_bytes(value) for value in values]
    change = "" if values[0] is None or values[1] is None else format_change(values[0], values[1])
    return ("peak memory", shown[0], shown[1], change)


def _latency_rows(
    before: LatencyMeasurement | None, after: LatencyMeasurement | None, ratio: LatencyRatio | None
) -> list[tuple[str, str, str, str]]:
    """Times of both models; the change is that of interleaved pairs alone if there are any."""
    labels = {
        "latency p50": "latency_p50_ms",
        "latency p90": "latency_p90_ms",
        "CPU time p50": "cpu_time_p50_ms",
    }
    rows = []
    for label, name in labels.items():
        shown = [
            MISSING
            if figure is None
            else f"{format_ms(getattr(figure, name), figure.provenance)}{doubt(figure)}"
            for figure in (before, after)
        ]
        change = ""
        if ratio is not None:
            change = format_change(1.0, ratio.ratio) if name == "cpu_time_p50_ms" else ""
        elif before is not None and after is not None and before != after:
            change = format_change(getattr(before, name), getattr(after, name))
        rows.append((label, shown[0], shown[1], change))
    return rows


def _prediction_rows(
    before: LatencyPrediction | None, after: LatencyPrediction | None
) -> list[tuple[str, str, str, str]]:
    known = after or before
    if known is None:
        return []
    shown = [MISSING if figure is None else format_prediction(figure) for figure in (before, after)]
    change = "" if before is None or after is None else format_change(before.latency_ms, after.latency_ms)
    return [(f"latency on {known.target}", shown[0], shown[1], change)]


def _times_words(before: LatencyMeasurement | None, after: LatencyMeasurement | None) -> list[str]:
    """How the times of both columns were taken, said for each where they differ."""
    known = {
        name: figure
        for name, figure in (("the original", before), ("the compressed model", after))
        if figure is not None
    }
    if not known:
        return []
    where = {name: _circumstances(figure) for name, figure in known.items()}
    counts = {name: _counts(figure) for name, figure in known.items()}
    if len(set(where.values())) > 1:
        parts = [
            "Times " + " and ".join(f"of {name} with {where[name]}, {counts[name]}" for name in known) + "."
        ]
    else:
        first = next(iter(known))
        each = counts[first]
        if len(set(counts.values())) > 1:
            each = " and ".join(f"{counts[name]} for {name}" for name in known)
        order = ", one model after the other" if len(known) > 1 else ""
        parts = [f"Times with {where[first]}, {each}{order}."]
    cautions = {name: figure.caution for name, figure in known.items() if figure.caution is not None}
    if len(cautions) == len(known) and len(set(cautions.values())) == 1:
        return [*parts, f"These times are not to be trusted: {next(iter(cautions.values()))}."]
    return [*parts, *(f"Times of {name} are not to be trusted: {why}." for name, why in cautions.items())]


def _circumstances(latency: LatencyMeasurement) -> str:
    return (
        f"{latency.runtime} on {latency.machine}, {count_words(latency.threads, 'thread')}, "
        f"batch {latency.batch_size}"
    )


def _counts(latency: LatencyMeasurement) -> str:
    where = f" in {latency.processes} processes" if latency.processes > 1 else ""
    return f"{latency.repetitions} repetitions{where} after {latency.warmup} to warm up"


def _timing_remark(report: RunReport) -> str:
    parts = _times_words(report.deployment.original.latency, report.deployment.compressed.latency)
    ratio = report.deployment.latency_ratio
    if ratio is not None:
        parts.append(
            f"The change of CPU time is from {ratio.pairs} interleaved pairs, "
            f"{count_words(ratio.threads, 'thread')}, which a busy machine disturbs less than it does the "
            f"columns: {format_ratio(ratio)}."
        )
        if ratio.caution is not None:
            parts.append(f"This change is not to be trusted: {ratio.caution}.")
    prediction = report.deployment.compressed_prediction
    if prediction is not None:
        parts.append(
            f"Prediction for {prediction.target}: {prediction.basis}; "
            f"{format_share(prediction.compute_bound_share)} of it is compute-bound."
        )
    return " ".join(parts)
