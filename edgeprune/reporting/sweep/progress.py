"""How far a sweep is: a live table on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeprune.executors.units import Failure, Outcome, Unit, Watcher
from edgeprune.reporting.sweep.words import cell_words, duration_words
from edgeprune.showing import shown_in_cell
from edgeprune.system import progress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_ROWS = 24


@contextlib.contextmanager
def watching(count: int) -> Iterator[Watcher]:
    """What is told of ``count`` cells while the block runs, in the way that progress is shown."""
    if progress.display() is not progress.Display.BARS:
        yield _Lines(count)
        return
    from rich.live import Live

    table = _LiveTable(count)
    with Live(console=progress.console, transient=True, auto_refresh=False) as live:
        table.live = live
        yield table


def outcome_words(outcome: Outcome) -> str:
    """How a cell ended."""
    if outcome.failure is not None:
        return f"failed: {outcome.failure.sentence}"
    words = cell_words(outcome.result.figures)
    if outcome.kept:
        return f"done before: {words}"
    return f"done in {duration_words(outcome.duration_s)}: {words}"


class _Lines(Watcher):
    def __init__(self, count: int) -> None:
        self._count, self._ended = count, 0

    def began(self, unit: Unit, attempt: int) -> None:
        progress.say(f"cell {unit.name} begins{', once more' if attempt > 1 else ''}")

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        progress.say(f"cell {unit.name} is tried once more: {failure.sentence}")

    def ended(self, outcome: Outcome) -> None:
        self._ended += 1
        progress.say(f"cell {outcome.unit.name} ({self._ended} of {self._count}): {outcome_words(outcome)}")


class _LiveTable(Watcher):
    """The cells that run, and those that ended last."""

    def __init__(self, count: int) -> None:
        self.live: Live | None = None
        self._count = count
        self._running: dict[str, tuple[float, int]] = {}
        self._ended: list[tuple[str, str]] = []
        self._shown_s = 0.0

    def began(self, unit: Unit, attempt: int) -> None:
        self._running[unit.name] = (time.monotonic(), attempt)
        self._show()

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        self._running.pop(unit.name, None)
        progress.console.print(
            shown_in_cell(f"{unit.name} is tried once more: {failure.sentence}"), markup=False
        )

    def ended(self, outcome: Outcome) -> None:
        self._running.pop(outcome.unit.name, None)
        self._ended.append((outcome.unit.name, outcome_words(outcome)))
        self._show()

    def tick(self) -> None:
        if time.monotonic() - self._shown_s > 0.5:
            self._show()

    def _show(self) -> None:
        self._shown_s = time.monotonic()
        if self.live is not None:
            self.live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{len(self._ended)} of {self._count} cells", title_justify="left")
        table.add_column("cell")
        table.add_column("state")
        for name, words in self._ended[-(_ROWS - len(self._running)) :]:
            table.add_row(Text(name), Text(words))
        for name, (began_s, attempt) in self._running.items():
            state = f"runs, {duration_words(time.monotonic() - began_s)}"
            table.add_row(Text(name), Text(state if attempt == 1 else f"{state}, once more"))
        return table
