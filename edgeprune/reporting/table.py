"""Words in rows, as terminal, Markdown and HTML lay them out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table. ``code_columns`` hold names, paths or hashes, shown verbatim.

    ``brief`` are the rows that a terminal has room for, ``brief_remark`` what they are; ``None``: all.
    ``narrow_columns`` are those that come first where the terminal is too narrow for all; empty: all.
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
