"""One progress display for every long job; silent where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]
"""Called with the number of units just finished."""

console = Console(stderr=True)
_enabled = False


def enable(on: bool) -> None:
    """Show progress bars from now on (the command line does; the Python API stays silent)."""
    global _enabled  # noqa: PLW0603 - one terminal, one switch
    _enabled = on


@contextmanager
def task(description: str, total: int) -> Iterator[Advance]:
    """A progress bar with the time left for the duration of the block.

    Yields a function to call with the number of finished units.
    """
    if not _enabled:
        yield lambda _units: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        job = progress.add_task(description, total=total)
        yield lambda units: progress.advance(job, units)
