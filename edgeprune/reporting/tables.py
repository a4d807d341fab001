"""Tables for the terminal, with overlong names shortened."""

from __future__ import annotations

from typing import Any

from rich import table as rich_table
from rich.text import Text

from edgeprune.reporting.table import Table
from edgeprune.showing import shown_in_cell


class TerminalTable(rich_table.Table):
    """A table that shortens very long words in the middle instead of folding them over many lines."""

    def add_column(self, header: Any = "", *arguments: Any, **options: Any) -> None:
        """Add a column, its header shortened."""
        super().add_column(_short(header), *arguments, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row, its cells shortened."""
        super().add_row(*map(_short, cells), **options)


def grid_of(table: Table, **options: Any) -> TerminalTable:
    """A table with all its rows, in the lines that rich draws."""
    grid = TerminalTable(*table.columns, title=table.title or None, **options)
    for row in table.rows:
        grid.add_row(*row)
    return grid


def _short(cell: Any) -> Any:
    if isinstance(cell, str):
        return shown_in_cell(cell)
    return Text(shown_in_cell(cell.plain), style=cell.style) if isinstance(cell, Text) else cell
