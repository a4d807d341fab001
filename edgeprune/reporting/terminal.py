"""The report on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.text import Text

from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.document import Document, build_document
from edgeprune.reporting.headline import Tone
from edgeprune.reporting.table import Table
from edgeprune.reporting.tables import TerminalTable

_GAP = 2
_LONGEST_UNBROKEN = 12
_USUAL_NAME = 24
_SPARE = 8
"""Spare columns for the longest cells, without which a table is cut off at the right."""
_COLOURS = {Tone.GOOD: "green", Tone.DOUBTFUL: "yellow", Tone.BAD: "red"}


def render_terminal(report: RunReport) -> RenderableType:
    """The report as a rich renderable; names in it are never read as markup."""
    return render_document(build_document(report))


def render_brief(report: RunReport, folder: str) -> RenderableType:
    """Headline, verdict and warnings, and where the tables are; ``folder`` is the output."""
    document = build_document(report)
    where = Text(f"tables and figures: {folder}/report.html, {folder}/report.md, or here with -v")
    return Group(*_headline(document), _verdict(document), *_alerts(document), where)


def render_document(document: Document) -> RenderableType:
    """Rich renderable of a document."""
    parts: list[RenderableType] = [*_headline(document), _verdict(document), *_alerts(document)]
    return Group(*parts, *map(terminal_table, document.tables))


def terminal_table(table: Table) -> RenderableType:
    """Rich renderable of a table."""
    return _Grid(table)


def _headline(document: Document) -> list[RenderableType]:
    headline = document.headline
    if headline is None:
        return []
    style = f"bold {_COLOURS[headline.tone]}"
    advice = [Text(headline.what_to_do, style=_COLOURS[headline.tone])] if headline.what_to_do else []
    return [Text(headline.text, style=style), *advice]


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
    told = (*(f"! {alert}" for alert in document.alerts), *(f"- {fact}" for fact in document.facts))
    if not told:
        return []
    style = "yellow" if document.alerts else "dim"
    lines = Text("\n").join(map(Text, told))
    return [Panel(lines, title=Text("Warnings and notes"), border_style=style, title_align="left")]


@dataclass(frozen=True)
class _Grid:
    """A table on a terminal: its brief rows, and its narrow columns if the terminal is narrow."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        rows = table.rows if table.brief is None else tuple(table.rows[index] for index in table.brief)
        columns = tuple(range(len(table.columns)))
        widths = [_width(table, rows, index) for index in columns]
        too_narrow = sum(widths) + _GAP * len(columns) + _SPARE > options.max_width
        if too_narrow and table.narrow_columns:
            columns = table.narrow_columns
        yield Text()
        yield self._drawn(rows, columns, widths)
        remarks = [table.brief_remark] if table.brief is not None else []
        remarks += ["A wider terminal and report.md have more columns."] if too_narrow else []
        yield from (Text(remark, style="dim") for remark in (*remarks, table.remark) if remark)

    def _drawn(
        self, rows: tuple[tuple[str, ...], ...], columns: tuple[int, ...], widths: list[int]
    ) -> RenderableType:
        table = self.table
        grid = TerminalTable(
            title=Text(table.title, style="bold"),
            title_justify="left",
            show_header=any(table.columns),
            header_style="bold",
            box=None,
            padding=(0, _GAP, 0, 0),
        )
        for index in columns:
            right = index in table.numeric_columns
            grid.add_column(
                Text(table.columns[index]),
                justify="right" if right else "left",
                overflow="fold",
                min_width=min(widths[index], _LONGEST_UNBROKEN),
            )
        for row in rows:
            grid.add_row(*(_styled(row[index]) for index in columns))
        return grid


def _width(table: Table, rows: tuple[tuple[str, ...], ...], index: int) -> int:
    """Minimum width of a column that breaks no word; names count up to a usual length."""
    most = _USUAL_NAME if index in table.code_columns else _LONGEST_UNBROKEN
    words = (word for cell in (table.columns[index], *(row[index] for row in rows)) for word in cell.split())
    return max((min(len(word), most) for word in words), default=1)


def _styled(cell: str) -> Text:
    return Text(cell, style="bold red" if cell == "FAILED" else "")
