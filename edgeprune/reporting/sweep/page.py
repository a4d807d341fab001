"""sweep.html: the Pareto front of each target and the best cells on one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.reporting.formatting import format_bytes, significant
from edgeprune.reporting.pages import render
from edgeprune.reporting.sweep.facts import CellReport, SweepReport
from edgeprune.reporting.sweep.words import (
    best_table,
    cells_table,
    devices_table,
    failures_table,
    quality_words,
    remarks,
    shared_table,
    verdict,
)
from edgeprune.reporting.web.charts import SERIES, SOFT, WIDTH, rows, to_svg

_MOST_COLOURS = len(SERIES)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The chart of one target and one kind of quality."""

    title: str
    svg: str


def render_page(report: SweepReport) -> str:
    """The text of ``sweep.html``; it loads nothing. The same report gives the same text."""
    lists = (failures_table(report), cells_table(report), devices_table(report), shared_table(report))
    return render(
        "sweep.html.j2",
        title=f"Sweep of {report.source}",
        head=f"{verdict(report)}; seed {report.seed}, {report.machine}",
        best=best_table(report),
        fronts=fronts(report),
        tables=tuple(table for table in lists if table.rows),
        remarks=remarks(report),
    )


def fronts(report: SweepReport) -> tuple[Front, ...]:
    """One chart for every target and kind of quality that has cells with both figures."""
    drawn: dict[tuple[str, AccuracyKind], list[CellReport]] = {}
    for cell in report.cells:
        figures = cell.figures
        if figures is not None and figures.quality is not None and figures.latency_ms is not None:
            drawn.setdefault((cell.target, figures.quality_kind), []).append(cell)
    return tuple(
        Front(title=f"{target}: {kind.value}", svg=_chart(cells, kind, f"front-{place}"))
        for place, ((target, kind), cells) in enumerate(drawn.items())
    )


def _chart(cells: list[CellReport], kind: AccuracyKind, key: str) -> str:
    import altair as alt

    models = list(dict.fromkeys(cell.model for cell in cells))
    values = [_point(cell, kind) for cell in cells]
    x = alt.X("latency:Q", title="latency of one image, ms", scale=alt.Scale(zero=False, padding=12))
    unit = f"{kind.value}, %" if kind.is_share else kind.value
    y = alt.Y("quality:Q", title=unit, scale=alt.Scale(zero=False, padding=12))
    line = (
        alt.Chart(rows([value for value in values if value["front"]]))
        .mark_line(stroke=SOFT, strokeDash=[4, 3], strokeWidth=1.2, aria=False)
        .encode(x, y, order="latency:Q")
    )
    colours = alt.Scale(domain=models, range=[SERIES[i % _MOST_COLOURS] for i in range(len(models))])
    points = (
        alt.Chart(rows(values))
        .mark_point(filled=True, size=90, opacity=1)
        .encode(
            x,
            y,
            color=alt.Color("model:N", scale=colours),
            shape=alt.Shape("precision:N", legend=alt.Legend(symbolFillColor=SOFT, symbolStrokeColor=SOFT)),
            description="words:N",
        )
    )
    chart = alt.layer(line, points).properties(width=2 * WIDTH, height=240)
    return to_svg(chart, "Cells by latency and quality", key, hover=True)


def _point(cell: CellReport, kind: AccuracyKind) -> dict[str, object]:
    figures = cell.figures
    assert figures is not None
    assert figures.quality is not None
    assert figures.latency_ms is not None
    front = ", on the front" if cell.on_front else ""
    return {
        "latency": figures.latency_ms,
        "quality": 100 * figures.quality if kind.is_share else figures.quality,
        "model": cell.model,
        "precision": cell.precision.value,
        "front": cell.on_front,
        "words": f"{cell.name}: {quality_words(figures)}, {significant(figures.latency_ms)} ms, "
        f"{format_bytes(figures.size_bytes)}{front}",
    }
