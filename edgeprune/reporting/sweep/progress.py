"""How far a sweep is: a live table on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.executors.units import Failure, Outcome, Unit, Watcher
from edgeprune.reporting.formatting import count_words
from edgeprune.reporting.sweep.facts import CellOnDevice
from edgeprune.reporting.sweep.words import cell_words, duration_words
from edgeprune.showing import shown_in_cell
from edgeprune.system import progress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_ROWS = 24


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What units are called, and how the end of one is put."""

    unit: str
    ending: Callable[[Outcome], str]


def watching(count: int) -> AbstractContextManager[Watcher]:
    """What is told of ``count`` cells while the block runs, in the way that progress is shown."""
    return _watching(count, _Told(unit="cell", ending=outcome_words))


def watching_devices(count: int) -> AbstractContextManager[Watcher]:
    """The same of ``count`` devices that measure cells."""
    return _watching(count, _Told(unit="device", ending=device_words))


@contextlib.contextmanager
def _watching(count: int, told: _Told) -> Iterator[Watcher]:
    if progress.display() is not progress.Display.BARS:
        yield _Lines(count, told)
        return
    from rich.live import Live

    table = _LiveTable(count, told)
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


def device_words(outcome: Outcome) -> str:
    """How a device ended."""
    if outcome.failure is not None:
        return f"failed: {outcome.failure.sentence}"
    found: tuple[CellOnDevice, ...] = outcome.result
    lacking = sum(each.failure is not None for each in found)
    ended = f"measured {count_words(len(found) - lacking, 'cell')} in {duration_words(outcome.duration_s)}"
    return f"{ended}, {lacking} failed" if lacking else ended


class _Lines(Watcher):
    def __init__(self, count: int, told: _Told) -> None:
        self._count, self._told, self._ended = count, told, 0

    def began(self, unit: Unit, attempt: int) -> None:
        progress.say(f"{self._told.unit} {unit.name} begins{', once more' if attempt > 1 else ''}")

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        progress.say(f"{self._told.unit} {unit.name} is tried once more: {failure.sentence}")

    def ended(self, outcome: Outcome) -> None:
        self._ended += 1
        what, name = self._told.unit, outcome.unit.name
        progress.say(f"{what} {name} ({self._ended} of {self._count}): {self._told.ending(outcome)}")


class _LiveTable(Watcher):
    """The units that run, and those that ended last."""

    def __init__(self, count: int, told: _Told) -> None:
        self.live: Live | None = None
        self._count, self._told = count, told
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
        self._ended.append((outcome.unit.name, self._told.ending(outcome)))
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

        table = Table(title=f"{len(self._ended)} of {self._count} {self._told.unit}s", title_justify="left")
        table.add_column(self._told.unit)
        table.add_column("state")
        for name, words in self._ended[-(_ROWS - len(self._running)) :]:
            table.add_row(Text(name), Text(words))
        for name, (began_s, attempt) in self._running.items():
            state = f"runs, {duration_words(time.monotonic() - began_s)}"
            table.add_row(Text(name), Text(state if attempt == 1 else f"{state}, once more"))
        return table
