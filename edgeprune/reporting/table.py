"""Table data that terminal, Markdown and HTML lay out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from edgeprune.artifacts.report import FactSection, RunReport, Words
from edgeprune.reporting.formatting import significant


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table. ``code_columns`` hold names, paths or hashes, shown verbatim.

    ``brief`` are the rows shown on a terminal (``None``: all), ``brief_remark`` describes them.
    ``narrow_columns`` are the columns shown if the terminal is too narrow for all; empty: all. On pages the
    cells of ``link_column`` lead to ``links``, one a row where there are any, empty for none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""
    code_columns: frozenset[int] = frozenset()
    numeric_columns: frozenset[int] = frozenset()
    brief: tuple[int, ...] | None = None
    brief_remark: str = ""
    narrow_columns: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    link_column: int = 0


def fact_tables(report: RunReport) -> tuple[Table, ...]:
    """A table for every such section that the report has, in the order of its fields."""
    values = (getattr(report, field.name) for field in fields(report))
    return tuple(fact_table(value) for value in values if isinstance(value, FactSection))


def fact_table(section: FactSection) -> Table:
    """What is known of a section, by the words of its fields."""
    rows = []
    for name, hint in get_type_hints(type(section), include_extras=True).items():
        told = next((part.text for part in get_args(hint) if isinstance(part, Words)), None)
        if told is not None and (value := getattr(section, name)) is not None:
            rows.append((told, _in_words(value)))
    return Table(title=section.TITLE, columns=("", ""), rows=tuple(rows))


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return significant(value, 5)
    if isinstance(value, tuple):
        joint = "x" if all(isinstance(item, int) for item in value) else ", "
        return joint.join(map(_in_words, value))
    return str(value)
