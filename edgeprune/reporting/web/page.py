"""report.html: one self-contained page of a run, from its verdict to how to repeat it."""

from __future__ import annotations

import base64

from edgeprune.artifacts.illustrations import Picture
from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.comparison import comparison_table
from edgeprune.reporting.document import build_document, environment_table, method_table
from edgeprune.reporting.formatting import (
    MISSING,
    format_bytes,
    format_change,
    format_ms,
    format_prediction,
    format_quality,
    format_ratio,
    format_share,
)
from edgeprune.reporting.headline import Tone, as_sentence
from edgeprune.reporting.pages import render
from edgeprune.reporting.table import Table, fact_tables
from edgeprune.reporting.web.facts import Card, PageContents, Section
from edgeprune.reporting.web.pictured import picture_sections
from edgeprune.reporting.web.sections import figure_sections


def render_page(contents: PageContents) -> str:
    """The text of ``report.html``; it loads nothing, and its policy forbids it. The same contents give the
    same text."""
    report = contents.report
    document = build_document(report)
    headline = document.headline
    parts = (
        _sizes(report),
        *figure_sections(contents),
        *picture_sections(contents.illustrations),
        _fallbacks(report, tuple(dict.fromkeys((*report.calibration.warnings, *report.notes)))),
        _repeat(report),
    )
    return render(
        "report.html.j2",
        title=document.title,
        verdict=as_sentence(document.title if headline is None else headline.text),
        advice="" if headline is None else as_sentence(headline.what_to_do),
        tone=(Tone.GOOD if headline is None else headline.tone).value,
        facts=document.verdict,
        cards=_cards(report),
        sections=parts,
        source=data_uri,
    )


def data_uri(picture: Picture) -> str:
    """A picture as the source of an ``<img>``."""
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")


def _cards(report: RunReport) -> tuple[Card, ...]:
    """Size, latency and quality of the original and of what is delivered."""
    before, after = report.deployment.original, report.deployment.compressed
    size = Card(
        title="ONNX file",
        before=format_bytes(before.size_bytes),
        after=format_bytes(after.size_bytes),
        change=format_change(before.size_bytes, after.size_bytes),
        words=f"{format_share(report.pruning.macs_removed_share)} of the MACs removed",
    )
    return (size, *_latency_cards(report), _quality_card(report))


def _latency_cards(report: RunReport) -> tuple[Card, ...]:
    deployment = report.deployment
    cards = []
    if deployment.compressed_prediction is not None:
        before, after = deployment.original_prediction, deployment.compressed_prediction
        cards.append(
            Card(
                title=f"Latency on {deployment.target}",
                before=MISSING if before is None else format_prediction(before),
                after=format_prediction(after),
                change="" if before is None else format_change(before.latency_ms, after.latency_ms),
            )
        )
    ratio = deployment.latency_ratio
    shown = [
        MISSING if each.latency is None else format_ms(each.latency.latency_p50_ms, each.latency.provenance)
        for each in (deployment.original, deployment.compressed)
    ]
    told = "the same file, so nothing was compared" if deployment.is_original else "not compared"
    cards.append(
        Card(
            title="Latency on this host",
            before=shown[0],
            after=shown[1],
            words=told if ratio is None else format_ratio(ratio),
        )
    )
    return tuple(cards)


def _quality_card(report: RunReport) -> Card:
    kind = report.accuracy_kind
    if not report.accuracy:
        return Card(title=as_sentence(kind.value), before=MISSING, after=MISSING)
    first, last = report.accuracy[0], report.accuracy[-1]
    return Card(
        title=as_sentence(kind.value),
        before=format_quality(first, kind, interval=False),
        after=format_quality(last, kind),
        words=f"on {last.images:,} held-out images",
    )


def _sizes(report: RunReport) -> Section:
    table = comparison_table(report)
    return Section(key="sizes", tables=(table,))


def _fallbacks(report: RunReport, notes: tuple[str, ...]) -> Section:
    held = tuple(
        (row.layer, row.op, row.frozen_by) for row in report.pruning.layers if row.frozen_by is not None
    )
    table = Table(
        title="Layers that keep channels",
        columns=("layer", "op", "held by"),
        rows=held,
        code_columns=frozenset({0}),
    )
    why = "Nothing was frozen, skipped or done otherwise than asked." if not (notes or held) else ""
    return Section(
        key="fallbacks",
        alerts=notes,
        folded=(table,) if held else (),
        empty=why,
    )


def _repeat(report: RunReport) -> Section:
    told = f"The same command, inputs, seed ({report.environment.seed}) and versions give the same network."
    return Section(
        key="repeat",
        words=(told,),
        tables=(environment_table(report),),
        folded=(method_table(report), *fact_tables(report)),
    )
