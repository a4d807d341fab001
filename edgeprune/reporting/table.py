"""Table data that terminal, Markdown and HTML lay out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table. ``code_columns`` hold names, paths or hashes, shown verbatim.

    ``brief`` are the rows shown on a terminal (``None``: all), ``brief_remark`` describes them.
    ``narrow_columns`` are the columns shown if the terminal is too narrow for all; empty: all.
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
