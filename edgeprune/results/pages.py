"""Pages of single files: a profile, and a file in fewer bits beside the one that it was made from."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.latency import ModelFigures
from edgeprune.artifacts.quantization import Float16Report, IntegerReport, MixedReport
from edgeprune.reporting.formatting import (
    format_bytes,
    format_change,
    format_macs,
    format_ms,
    format_prediction,
    format_quality,
    format_ratio,
)
from edgeprune.reporting.headline import Tone, as_sentence
from edgeprune.reporting.pages import render
from edgeprune.reporting.table import Table
from edgeprune.reporting.web.facts import Card, PlotFigure, Section
from edgeprune.reporting.web.figures import Share, accuracy_figure, shares_figure
from edgeprune.reporting.web.sections import precision_table
from edgeprune.results.files import ProfileResult, QuantizationResult, kinds_table


def profile_page(result: ProfileResult) -> str:
    """Size, latency, memory and operators of a file on one self-contained page."""
    latency, prediction = result.figures.latency, result.prediction
    trusted = latency is None or latency.trusted
    if prediction is not None:
        verdict = f"{format_prediction(prediction)} on {result.target}"
    elif latency is not None:
        verdict = f"{format_ms(latency.latency_p50_ms, latency.provenance)} for {result.target}"
    else:
        verdict = "not measured"
    return _page(
        f"Profile of {Path(result.path).name}",
        verdict if trusted else f"{verdict}; what was measured here is not to be trusted",
        Tone.GOOD if trusted else Tone.DOUBTFUL,
        cards=_profile_cards(result),
        sections=(
            Section(key="file", tables=(result.table,)),
            _operators(result),
            _notes(result.remarks),
        ),
    )


def quantization_page(result: QuantizationResult) -> str:
    """What a file in fewer bits gains and loses, on one self-contained page."""
    (before, after), kind, ratio = result.accuracy, result.accuracy_kind, result.latency_ratio
    size = format_change(result.source_size_bytes, result.size_bytes)
    doubtful = bool(result.warning) or not ratio.trusted or ratio.low > 1.0
    verdict = f"size {size} in {result.precision.value}, {format_ratio(ratio)}"
    return _page(
        f"{Path(result.path).name} for {result.target}",
        f"{result.warning}; {verdict}" if result.warning else verdict,
        Tone.DOUBTFUL if doubtful else Tone.GOOD,
        cards=(
            Card(
                title="ONNX file",
                before=format_bytes(result.source_size_bytes),
                after=format_bytes(result.size_bytes),
                change=size,
            ),
            Card(
                title=as_sentence(kind.value),
                before=format_quality(before, kind, interval=False),
                after=format_quality(after, kind),
                words=f"on {after.images:,} held-out images",
            ),
        ),
        sections=(
            Section(key="file", tables=(result.table,)),
            Section(
                key="accuracy",
                words=(as_sentence(result.agreement),),
                figures=(accuracy_figure(result.accuracy, kind),),
            ),
            _precision(result),
            Section(
                key="notes", alerts=result.notes, empty="" if result.notes else "There is nothing to add."
            ),
        ),
    )


def _page(heading: str, verdict: str, tone: Tone, **parts: tuple[Card, ...] | tuple[Section, ...]) -> str:
    return render(
        "report.html.j2", title=heading, verdict=as_sentence(verdict), tone=tone.value, advice="", facts=(),
        source=str, **parts,
    )  # fmt: skip


def _profile_cards(result: ProfileResult) -> tuple[Card, ...]:
    """Size, work and latency, beside the baseline where there is one."""
    own, base = result.figures, result.baseline
    cards = [
        Card(
            title="ONNX file",
            before="" if base is None else format_bytes(base.size_bytes),
            after=format_bytes(own.size_bytes),
            change="" if base is None else format_change(base.size_bytes, own.size_bytes),
        ),
        Card(
            title="MACs of one input",
            before="" if base is None else format_macs(base.macs),
            after=format_macs(own.macs),
            change="" if base is None else format_change(base.macs, own.macs),
        ),
    ]
    if own.latency is not None:
        ratio = result.latency_ratio
        cards.append(
            Card(
                title="Latency",
                before=_p50(base),
                after=_p50(own),
                words="" if ratio is None else format_ratio(ratio),
            )
        )
    if result.prediction is not None:
        before = result.baseline_prediction
        cards.append(
            Card(
                title=f"Latency on {result.target}",
                before="" if before is None else format_prediction(before),
                after=format_prediction(result.prediction),
            )
        )
    return tuple(cards)


def _p50(figures: ModelFigures | None) -> str:
    latency = None if figures is None else figures.latency
    return "" if latency is None else format_ms(latency.latency_p50_ms, latency.provenance)


def _notes(notes: tuple[str, ...]) -> Section:
    return Section(key="notes", alerts=notes, empty="" if notes else "There is nothing to add.")


def _precision(result: QuantizationResult) -> Section:
    """What is stored in fewer bits, and what stayed, with the reason."""
    details = result.details
    table = precision_table(
        details if isinstance(details, IntegerReport) else None,
        details if isinstance(details, MixedReport) else None,
        details if isinstance(details, Float16Report) else None,
    )
    return Section(key="precision", words=tuple(map(as_sentence, result.how)), tables=(table,))


def _operators(result: ProfileResult) -> Section:
    """Shares of the measured time by operator, and of the predicted one by kind."""
    latency, prediction = result.figures.latency, result.prediction
    figures: list[PlotFigure] = []
    tables: tuple[Table, ...] = ()
    if latency is not None and latency.operators:
        told = f"Share of a run by operator, {latency.provenance.value}."
        shares = [Share(part.op_type, part.share) for part in latency.operators]
        figures.append(shares_figure(shares, told, "measured"))
    if prediction is not None and prediction.kinds and prediction.latency_ms > 0:
        told = f"Share of the predicted latency on {prediction.target} by kind of operator."
        whole = prediction.latency_ms
        kinds = [
            Share(f"{each.kind}, {8 if each.in_8_bits else 32} bits", each.latency_ms / whole)
            for each in prediction.kinds
        ]
        figures.append(shares_figure(kinds, told, "predicted"))
        tables = (kinds_table(prediction),)
    if not figures:
        return Section(key="operators", empty="Nothing was measured or predicted by operator.")
    return Section(key="operators", figures=tuple(figures), folded=tables)
