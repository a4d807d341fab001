"""Tables for the terminal, with overlong names shortened."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from edgeprune.showing import shown_in_cell


class TerminalTable(Table):
    """A table that shortens very long words in the middle instead of folding them over many lines."""

    def add_column(self, header: Any = "", *arguments: Any, **options: Any) -> None:
        """Add a column, its header shortened."""
        super().add_column(_short(header), *arguments, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row, its cells shortened."""
        super().add_row(*map(_short, cells), **options)


def _short(cell: Any) -> Any:
    if isinstance(cell, str):
        return shown_in_cell(cell)
    return Text(shown_in_cell(cell.plain), style=cell.style) if isinstance(cell, Text) else cell
