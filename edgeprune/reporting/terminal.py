"""The report on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.document import Document, Table, build_document
from edgeprune.reporting.headline import Tone
from edgeprune.reporting.tables import TerminalTable

_COLOURS = {Tone.GOOD: "green", Tone.DOUBTFUL: "yellow", Tone.BAD: "red"}


def render_terminal(report: RunReport) -> RenderableType:
    """The report as a rich renderable; names in it are never read as markup."""
    document = build_document(report)
    parts: list[RenderableType] = [*_headline(document), _verdict(document), *_alerts(document)]
    for table in document.tables:
        parts.extend(_table(table))
    return Group(*parts)


def _headline(document: Document) -> list[RenderableType]:
    found = document.headline
    if found is None:
        return []
    style = f"bold {_COLOURS[found.tone]}"
    advice = [Text(found.what_to_do, style=_COLOURS[found.tone])] if found.what_to_do else []
    return [Text(found.text, style=style), *advice]


def _verdict(document: Document) -> RenderableType:
    grid = TerminalTable.grid(padding=(0, 2))
    grid.add_column(style="bold", justify="right")
    grid.add_column(overflow="fold")
    for label, text in document.verdict:
        grid.add_row(Text(label), Text(text))
    heading = document.title if document.passed else f"{document.title}: A CHECK FAILED"
    tone = Tone.GOOD if document.headline is None else document.headline.tone
    style = _COLOURS[tone] if document.passed else "bold red"
    return Panel(grid, title=Text(heading), border_style=style, title_align="left")


def _alerts(document: Document) -> list[RenderableType]:
    if not document.alerts:
        return []
    lines = Text("\n").join(Text(f"! {alert}") for alert in document.alerts)
    return [Panel(lines, title=Text("Warnings and notes"), border_style="yellow", title_align="left")]


def _table(table: Table) -> list[RenderableType]:
    grid = TerminalTable(
        title=Text(table.title, style="bold"),
        title_justify="left",
        show_header=any(table.columns),
        header_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for index, column in enumerate(table.columns):
        grid.add_column(
            Text(column), justify="right" if index in table.numeric_columns else "left", overflow="fold"
        )
    for row in table.rows:
        grid.add_row(*(_styled(cell) for cell in row))
    remark: list[RenderableType] = [Text(table.remark, style="dim")] if table.remark else []
    return [Text(), grid, *remark]


def _styled(cell: str) -> Text:
    return Text(cell, style="bold red" if cell == "FAILED" else "")
