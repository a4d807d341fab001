"""The report as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from edgeprune.artifacts.report import RunReport
from edgeprune.reporting.document import Document, build_document
from edgeprune.reporting.headline import as_sentence
from edgeprune.reporting.table import Table
from edgeprune.showing import shown
from edgeprune.storage.files import atomic_write_text


def render_markdown(report: RunReport) -> str:
    """Text of ``report.md``: headline, verdict, warnings, tables."""
    return render_document(build_document(report))


def render_document(document: Document) -> str:
    """Markdown of a document."""
    blocks = [
        *_headline(document),
        _verdict(document),
        *_alerts(document),
        *(render_table(table) for table in document.tables),
    ]
    return "\n\n".join(blocks) + "\n"


def write_markdown(report: RunReport, path: str | Path) -> None:
    """Write ``report.md``.

    Raises:
        OutputError: the path cannot be written.
    """
    atomic_write_text(path, render_markdown(report))


def escape(text: str) -> str:
    """Escape text so that Markdown shows it verbatim, also inside a table."""
    joined = " ".join(shown(text).split())
    return re.sub(r"([\\`*\[\]|<]|(?<!\w)_|_(?!\w))", r"\\\1", joined)


def _code(text: str) -> str:
    """A code span for a table cell, safe for backticks and pipes in the text."""
    joined = " ".join(shown(text).split()).replace("|", "\\|")
    if not joined:
        return ""
    fence = "`" * (max((len(run) for run in re.findall(r"`+", joined)), default=0) + 1)
    return f"{fence} {joined} {fence}" if "`" in joined else f"{fence}{joined}{fence}"


def _headline(document: Document) -> list[str]:
    """The headline as title, which ``head -1`` and a file listing show."""
    headline = document.headline
    if headline is None:
        return [f"# {escape(document.title)}"]
    advice = [f"**{escape(as_sentence(headline.what_to_do))}**"] if headline.what_to_do else []
    return [f"# {escape(as_sentence(headline.text))}", *advice, escape(document.title)]


def _verdict(document: Document) -> str:
    heading = "" if document.passed else "**A CHECK FAILED: do not ship this model.**\n\n"
    return heading + "\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in document.verdict)


def _alerts(document: Document) -> list[str]:
    blocks = [
        f"> [!{kind}]\n" + "\n".join(f"> - {escape(note)}" for note in notes)
        for kind, notes in (("WARNING", document.alerts), ("NOTE", document.facts))
        if notes
    ]
    return ["\n\n".join(("## Warnings and notes", *blocks))] if blocks else []


def render_table(table: Table) -> str:
    """A table with its title as heading and its remark below."""
    numeric = table.numeric_columns
    lines = [
        _row(tuple(escape(column) for column in table.columns)),
        _row(tuple("---:" if index in numeric else "---" for index in range(len(table.columns)))),
        *(_row(_cells(table, row)) for row in table.rows),
    ]
    remark = f"\n\n{escape(table.remark)}" if table.remark else ""
    return f"## {escape(table.title)}\n\n" + "\n".join(lines) + remark


def _cells(table: Table, row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        _code(cell) if index in table.code_columns else escape(cell) for index, cell in enumerate(row)
    )


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
