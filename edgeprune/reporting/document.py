"""Content of a report as ordered text; the renderers only lay it out."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.pruning import DistillationReport, NetworkDecision
from edgeprune.artifacts.report import LayerRow, QuantizationSection, RunReport, Verdict
from edgeprune.notes import graded
from edgeprune.reporting.budget_words import (
    budget_line,
    candidate_columns,
    candidate_rows,
    candidates_remark,
)
from edgeprune.reporting.comparison import comparison_table, static_rows
from edgeprune.reporting.default_words import (
    default_line,
    sure_line,
    way_columns,
    way_rows,
    ways_remark,
)
from edgeprune.reporting.formatting import (
    MISSING,
    count_words,
    format_change,
    format_count,
    format_error,
    format_prediction,
    format_quality,
    format_ratio,
    format_share,
    significant,
    worst_channel,
)
from edgeprune.reporting.headline import Headline, answers_in_words, build_headline
from edgeprune.reporting.quantization_words import quantization_rows, stored_line
from edgeprune.reporting.ranking.origin import ranking_rows
from edgeprune.reporting.table import Table, fact_tables

_LAYERS_ON_A_TERMINAL = 12


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report: headline, verdict as (label, sentence) pairs, alerts, plain facts and tables.

    ``headline`` is ``None`` in a report whose schema has none.
    """

    headline: Headline | None
    title: str
    verdict: tuple[tuple[str, str], ...]
    passed: bool
    alerts: tuple[str, ...]
    tables: tuple[Table, ...]
    facts: tuple[str, ...] = ()


def build_document(report: RunReport) -> Document:
    """Build the document of a run report."""
    notes = graded((*report.calibration.warnings, *report.notes))
    tables = (
        comparison_table(report),
        *([] if report.budget is None else [candidates_table(report.budget)]),
        accuracy_table(report),
        parity_table(report),
        *([] if report.quantization is None else [quantization_table(report.quantization)]),
        layers_table(report),
        method_table(report),
        *fact_tables(report),
        environment_table(report),
    )
    return Document(
        headline=build_headline(report),
        title=f"edgeprune: {report.model.source} for {report.deployment.target}",
        verdict=_verdict(report),
        passed=all(figure.verdict is Verdict.PASSED for figure in report.parity),
        alerts=notes.warnings,
        tables=tables,
        facts=notes.facts,
    )


def _verdict(report: RunReport) -> tuple[tuple[str, str], ...]:
    deployment, pruning = report.deployment, report.pruning
    asked = (
        f"{format_share(pruning.ratio_asked)} fewer MACs ({pruning.ratio_asked_by}); "
        f"{format_share(pruning.macs_removed_share)} removed"
    )
    if report.budget is not None:
        asked = (
            f"{(default_line if report.budget.by_default else budget_line)(report.budget)}; "
            f"{format_share(pruning.macs_removed_share)} of the MACs removed"
        )
    lines = [("asked for", asked), (report.accuracy_kind.value, _quality_line(report))]
    if report.budget is not None and (sure := sure_line(report.budget)):
        lines.append(("how sure", sure))
    if pruning.blocks_dropped:
        lines.append(("residual blocks", f"{', '.join(pruning.blocks_dropped)} dropped as a whole"))
    for label, before, after, change in static_rows(deployment.original, deployment.compressed):
        lines.append((label, f"{before} -> {after} ({change})"))
    if report.quantization is not None and (stored := stored_line(report.quantization)):
        lines.append(("stored as", stored))
    if deployment.latency_ratio is not None:
        lines.append(("speed", format_ratio(deployment.latency_ratio)))
    elif deployment.is_original:
        lines.append(("speed", "the same file as the original's, so nothing was compared"))
    if deployment.compressed_prediction is not None:
        lines.append((f"latency on {deployment.target}", _predicted_line(report)))
    lines.append(("conversion", _parity_line(report)))
    return tuple(lines)


def _quality_line(report: RunReport) -> str:
    if not report.accuracy:
        return MISSING
    original, compressed = report.accuracy[0], report.accuracy[-1]
    kind = report.accuracy_kind
    start = format_quality(original, kind, interval=False)
    return f"{start} -> {format_quality(compressed, kind)} on {compressed.images} held-out images"


def _predicted_line(report: RunReport) -> str:
    original = report.deployment.original_prediction
    compressed = report.deployment.compressed_prediction
    assert compressed is not None
    end = format_prediction(compressed)
    if original is None:
        return end
    change = format_change(original.latency_ms, compressed.latency_ms)
    return f"{format_prediction(original)} -> {end}, {change}"


def _parity_line(report: RunReport) -> str:
    """Result of the chain of conversions, worded so that it is not mistaken for accuracy."""
    steps = len(report.parity)
    failed = [f for f in report.parity if f.verdict is not Verdict.PASSED]
    if failed:
        names = ", ".join(f"{f.candidate} against {f.reference}" for f in failed)
        return f"FAILED: {len(failed)} of {steps} parity checks ({names})"
    if not steps:
        return "no step was checked"
    return (
        f"{count_words(steps, 'step')} checked, each computes what its input did; this is not about accuracy"
    )


def candidates_table(section: BudgetSection) -> Table:
    """Table of all candidates of a search."""
    if section.by_default:
        return Table(
            title="Ways compared",
            columns=way_columns(),
            rows=way_rows(section),
            remark=ways_remark(section),
            numeric_columns=frozenset(range(2, len(way_columns()) - 1)),
            narrow_columns=(0, 1, 3, 5, 7),
        )
    return Table(
        title="Candidates within the budget and beyond",
        columns=candidate_columns(section),
        rows=candidate_rows(section),
        remark=candidates_remark(section),
        numeric_columns=frozenset(range(1, len(candidate_columns(section)) - 2)),
        narrow_columns=(0, 1, 3, 4, len(candidate_columns(section)) - 3, len(candidate_columns(section)) - 1),
    )


def accuracy_table(report: RunReport) -> Table:
    """Quality by stage."""
    kind = report.accuracy_kind
    rows = tuple(
        (figure.stage, format_quality(figure, kind), str(figure.images)) for figure in report.accuracy
    )
    lower = " Lower is better." if kind.is_error else ""
    if report.usability is not None and report.usability.by_channel is not None:
        lower += f" Delivered, the worst is {worst_channel(report.usability.by_channel)}."
    return Table(
        title="Accuracy by stage",
        columns=("model", kind.value, "images"),
        rows=rows,
        remark=f"On images that neither ranking nor recovery saw.{answers_in_words(report)}{lower}",
        numeric_columns=frozenset({1, 2}),
    )


def parity_table(report: RunReport) -> Table:
    """Neighbours in the chain of models held against each other."""
    figures = report.parity
    columns: dict[str, tuple[str, ...]] = {
        "models": tuple(f"{figure.reference} / {figure.candidate}" for figure in figures),
        "relative error": tuple(format_error(figure.relative_error) for figure in figures),
        "tolerance": tuple(format_error(figure.tolerance) for figure in figures),
        "max error": tuple(format_error(figure.max_abs_error) for figure in figures),
        "cosine": tuple(f"{figure.cosine:.6f}" for figure in figures),
        "same top-1": tuple(
            "" if figure.top1_agreement is None else format_share(figure.top1_agreement) for figure in figures
        ),
    }
    if any(figure.by_channel is not None for figure in figures):
        columns["worst channel"] = tuple(
            "" if figure.by_channel is None else worst_channel(figure.by_channel) for figure in figures
        )
    columns["verdict"] = tuple(
        figure.verdict.value if figure.verdict is Verdict.PASSED else figure.verdict.value.upper()
        for figure in figures
    )
    return Table(
        title="Parity chain",
        columns=tuple(columns),
        rows=tuple(zip(*columns.values(), strict=True)),
        remark=(
            "Neighbours compared on calibration images; relative error is max |a - b| / max |a|. It tells "
            "whether each conversion computes the same, not how accurate the network is."
        ),
        numeric_columns=frozenset({1, 2, 3, 4, 5}),
    )


def quantization_table(section: QuantizationSection) -> Table:
    """How the delivered file is stored in fewer bits."""
    return Table(
        title=f"Quantization: {section.precision.value}", columns=("", ""), rows=quantization_rows(section)
    )


def layers_table(report: RunReport) -> Table:
    """Every layer before and after."""
    layers = report.pruning.layers
    saved = {index: row.macs_before - row.macs_after for index, row in enumerate(layers)}
    most = sorted(saved, key=lambda index: (-saved[index], index))[:_LAYERS_ON_A_TERMINAL]
    return Table(
        title="Layers",
        columns=("layer", "op", "channels", "MACs", "change", "group", "held by"),
        rows=tuple(_layer_row(row) for row in layers),
        remark=(
            f"{report.pruning.players_removed} of {report.ranking.players} channels removed; "
            f"widths in steps of {report.pruning.width_quantum}."
        ),
        code_columns=frozenset({0, 5}),
        numeric_columns=frozenset({2, 3, 4}),
        brief=None if len(layers) <= _LAYERS_ON_A_TERMINAL else tuple(sorted(most)),
        narrow_columns=(0, 2, 3, 4),
        brief_remark=f"The {len(most)} of {len(layers)} layers that lost most MACs; report.md has all.",
    )


def _layer_row(row: LayerRow) -> tuple[str, ...]:
    same = row.channels_before == row.channels_after
    channels = str(row.channels_before) if same else f"{row.channels_before} -> {row.channels_after}"
    before, after = format_count(row.macs_before), format_count(row.macs_after)
    macs = before if row.macs_before == row.macs_after else f"{before} -> {after}"
    change = format_change(row.macs_before, row.macs_after)
    return (row.layer, row.op, channels, macs, change, row.group or "", row.frozen_by or "")


def method_table(report: RunReport) -> Table:
    """How the network was ranked, recovered and trained, and how long that took."""
    ranking, recovery, calibration = report.ranking, report.recovery, report.calibration
    methods = ", ".join(f"{name} for {count}" for name, count in ranking.methods.items())
    labels = "labelled" if calibration.labelled else "unlabelled"
    rows = (
        (
            "calibration",
            f"{calibration.source}: {calibration.fitting_images} images to fit, "
            f"{calibration.held_out_images} kept back, {labels}",
        ),
        ("ranking", f"{ranking.players} channels in {ranking.groups} groups; {methods}"),
        *ranking_rows(ranking),
        (
            "recovery",
            f"{recovery.layers_changed} of {recovery.layers_solved} layers changed, fitted to "
            f"{recovery.images} images; mean relative error on {recovery.deciding_images} others "
            f"{significant(recovery.mean_error_before)} -> {significant(recovery.mean_error_after)}"
            + _decision_words(recovery.decision),
        ),
        *([] if recovery.distillation is None else [_finetuning(recovery.distillation)]),
        *([] if recovery.recipe is None else [("fine-tuning", f"by {recovery.recipe}")]),
        ("time", _time_words(report)),
    )
    return Table(title="How it was done", columns=("step", "what"), rows=rows)


def _time_words(report: RunReport) -> str:
    """Total time, and the time of each stage."""
    parts: dict[str, float] = {}
    for stage_time in report.stage_times:
        parts[stage_time.stage] = parts.get(stage_time.stage, 0.0) + stage_time.duration_s
    sessions = "" if report.sessions == 1 else f" in {report.sessions} sessions (--resume)"
    each = ", ".join(f"{stage} {significant(seconds)} s" for stage, seconds in parts.items())
    return f"{significant(sum(parts.values()))} s{sessions}: {each}"


def _decision_words(decision: NetworkDecision | None) -> str:
    if decision is None:
        return ""
    sure = "beyond chance" if decision.beyond_chance else "within chance"
    end = "" if decision.taken else "; not taken"
    return (
        f"; {decision.measure.value} of the whole network {significant(decision.before)} -> "
        f"{significant(decision.after)}, {sure}{end}"
    )


def _finetuning(report: DistillationReport) -> tuple[str, str]:
    kept = (
        f"step {report.kept_step} kept"
        if report.kept_step
        else "nothing better than the start by more than chance"
    )
    learned = "answers alone" if report.feature is None else f"answers and activations of {report.feature}"
    return (
        "fine-tuning",
        f"{report.steps} steps of distillation on {report.images} images without labels, {learned}, {kept}; "
        f"divergence from the original on {report.validation_images} others "
        f"{significant(report.divergence_before)} -> {significant(report.divergence_after)}",
    )


def environment_table(report: RunReport) -> Table:
    """Command, inputs, machine and versions."""
    environment, model = report.environment, report.model
    versions = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    rows = [
        ("command", environment.command),
        ("model", _model_words(report)),
        ("model SHA-256", model.sha256 or "none: not a file"),
        ("calibration SHA-256", report.calibration.fingerprint_sha256),
        ("machine", environment.machine),
        ("threads, seed", f"{environment.threads}, {environment.seed}"),
        ("versions", f"edgeprune {environment.edgeprune}, Python {environment.python}, {versions}"),
        ("made", f"{report.created_utc} (report schema {report.schema_version})"),
    ]
    return Table(title="Environment", columns=("", ""), rows=tuple(rows), code_columns=frozenset({1}))


def _model_words(report: RunReport) -> str:
    model = report.model
    architecture = f", architecture {model.architecture}" if model.architecture else ""
    return f"{model.source} ({model.format}{architecture}), input {model.input_words}"
