"""One progress display for every long job: bars on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from edgeprune.artifacts.arrays import Advance
from edgeprune.showing import shown

LINE_EVERY_S = 30.0

console = Console(stderr=True)


class Display(Enum):
    """How progress is shown."""

    NOTHING = "nothing"
    BARS = "bars"
    LINES = "lines"


@dataclass(eq=False)
class _Job:
    """A running stage or task; a task counts units up to ``total``.

    ``first`` is the time and number of the first units: in a resumed run these were done earlier.
    """

    name: str
    began_s: float
    total: int | None = None
    done: int = 0
    first: tuple[float, int] | None = None


class LineProgress:
    """Lines on progress: one when a stage begins, and one every ``every_s`` within it, with the elapsed time.

    A helper thread writes the latter while a stage or task runs, and ends with its block, even on an
    exception. ``write`` gets a line without its newline; ``clock`` gives seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        self._write = write
        self._clock = clock
        self._every_s = every_s
        self._began_s = self._line_s = clock()
        self._stages: list[_Job] = []
        self._tasks: list[_Job] = []
        self._announced = ""
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, unless it was the last one, too, and report its progress."""
        with self._lock:
            if name != self._announced:
                self._line(name)
            self._announced = name
        with self._running(self._stages, _Job(name=name, began_s=self._clock())):
            yield

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Advance]:
        """Count units of work, which the lines of the stage report."""
        job = _Job(name=description, began_s=self._clock(), total=total)

        def advance(units: int) -> None:
            job.done += units
            if job.first is None:
                job.first = (self._clock(), job.done)

        with self._running(self._tasks, job):
            yield advance

    def say(self, text: str) -> None:
        """Write a line of one's own."""
        with self._lock:
            self._line(text)

    def tick(self) -> None:
        """Write the progress of the innermost stage and task, if the last line is old enough."""
        with self._lock:
            jobs = [running[-1] for running in (self._stages, self._tasks) if running]
            if jobs and self._clock() - self._line_s >= self._every_s:
                self._line(f"{jobs[0].name}: {self._how_far(jobs[-1], alone=len(jobs) == 1)}")

    @contextmanager
    def _running(self, jobs: list[_Job], job: _Job) -> Iterator[None]:
        outermost = not self._stages and not self._tasks
        ended = threading.Event()
        helper = threading.Thread(target=self._keep_telling, args=(ended,), daemon=True)
        jobs.append(job)
        try:
            if outermost:
                with self._lock:
                    self._line_s = max(self._line_s, job.began_s)
                helper.start()
            yield
        finally:
            ended.set()
            if helper.ident is not None:
                helper.join()
            jobs.remove(job)

    def _keep_telling(self, ended: threading.Event) -> None:
        while not ended.wait(max(0.01, self._line_s + self._every_s - self._clock())):
            self.tick()

    def _how_far(self, job: _Job, *, alone: bool) -> str:
        now = self._clock()
        if job.total is None:
            return f"goes on, {_duration(now - job.began_s)} so far"
        words = f"{job.done} of {job.total}"
        if not alone:
            words = f"{job.name}, {words}"
        left_s = None
        if job.first is not None and job.done > job.first[1]:
            left_s = (job.total - job.done) * (now - job.first[0]) / (job.done - job.first[1])
        return words if left_s is None else f"{words}, about {_duration(left_s)} left"

    def _line(self, text: str) -> None:
        now = self._clock()
        self._line_s = now
        self._write(f"[{_duration(now - self._began_s)}] {text}")


def _duration(seconds: float) -> str:
    """``m:ss``, or ``h:mm:ss``."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_display = Display.NOTHING
_lines: LineProgress | None = None


def show(display: Display) -> None:
    """Set how progress is shown from now on (the command line does; the Python API stays silent)."""
    global _display, _lines  # noqa: PLW0603 - one terminal, one switch
    _display = display
    _lines = LineProgress(_write_line) if display is Display.LINES else None


def display() -> Display:
    """How progress is shown now."""
    return _display


def say(text: str) -> None:
    """Write a line with the time so far, if progress is shown as lines."""
    if _lines is not None:
        _lines.say(text)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Announce a stage of the run, if progress is shown as lines."""
    with contextlib.nullcontext() if _lines is None else _lines.stage(name):
        yield


@contextmanager
def task(description: str, total: int) -> Iterator[Advance]:
    """Show progress with the time left while the block runs.

    Yields a function to call with the number of finished units.
    """
    if _lines is not None:
        with _lines.task(description, total) as advance:
            yield advance
    elif _display is Display.BARS:
        with _bar(description, total) as advance:
            yield advance
    else:
        yield lambda _units: None


@contextmanager
def _bar(description: str, total: int) -> Iterator[Advance]:
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


def _write_line(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a closed stderr does not end a run
        sys.stderr.write(f"{shown(line)}\n")
        sys.stderr.flush()
