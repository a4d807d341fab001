"""Units on this machine, each in a process that others do not disturb."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from edgeprune.executors.processes import Inbox, WorkerProcess
from edgeprune.executors.resources import Room, room_here
from edgeprune.executors.units import (
    Answer,
    Failure,
    FailureKind,
    Outcome,
    Unit,
    Watcher,
    settled,
)

_POLL_S = 0.1
_GRACE_S = 15.0
"""For workers to clean up in when they are stopped."""
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Job:
    """An attempt at a unit. A second one runs alone, with all of the memory."""

    unit: Unit
    attempt: int = 1
    began_s: float = 0.0

    @property
    def alone(self) -> bool:
        return self.unit.alone or self.attempt > 1


class LocalExecutor:
    """Runs units in processes of this machine, within its cores and a budget of memory.

    A process that takes more than its share is ended, where the system tells how much that is (Linux).

    Args:
        room: how many at once, and what they have together; all of this machine where ``None``.
    """

    def __init__(self, room: Room | None = None) -> None:
        self.room = room or room_here()

    def run(
        self, units: Sequence[Unit], shared: Any = None, watcher: Watcher | None = None
    ) -> tuple[Outcome, ...]:
        """Outcomes in the order of ``units``; see :class:`edgeprune.executors.units.Executor`."""
        with self._running(shared, ends_large=True) as run:
            return run.run(units, watcher)

    def session(self, shared: Any = None) -> AbstractContextManager[_Run]:
        """Workers for many calls; see :class:`edgeprune.executors.units.Executor`."""
        return self._running(shared, ends_large=False)

    @contextlib.contextmanager
    def _running(self, given: Any, ends_large: bool) -> Iterator[_Run]:
        run = _Run(self.room, given, ends_large)
        try:
            yield run
        finally:
            run.stop()


class _Run:
    """The units of one call: waiting, running in a worker, or ended; workers stay for the next."""

    def __init__(self, room: Room, shared: Any, ends_large: bool) -> None:
        self._room, self._shared, self._watcher = room, shared, Watcher()
        self._ends_large = ends_large
        self._inbox: Inbox = queue.SimpleQueue()
        self._waiting: list[_Job] = []
        self._busy: dict[WorkerProcess, _Job] = {}
        self._idle: list[WorkerProcess] = []
        self._too_large: dict[WorkerProcess, Failure] = {}
        self._done: dict[int, Outcome] = {}

    @property
    def most_units(self) -> int:
        """How many run at once."""
        return self._room.most_units

    def run(self, units: Sequence[Unit], watcher: Watcher | None = None) -> tuple[Outcome, ...]:
        """Run them until each has its outcome."""
        self._watcher, self._done = watcher or Watcher(), {}
        self._waiting = [_Job(unit=each) for each in units]
        while self._waiting or self._busy:
            self._begin_what_fits()
            # Not blocking for ever: the memory is looked at, and Ctrl-C heeded, in between.
            with contextlib.suppress(queue.Empty):
                self._take(*self._inbox.get(timeout=_POLL_S))
            self._end_what_takes_too_much()
            self._watcher.tick()
        return tuple(self._done[id(unit)] for unit in units)

    def stop(self) -> None:
        """End all workers; whatever interrupts this ends them at once."""
        workers = [*self._busy, *self._idle]
        try:
            for worker in workers:
                worker.stop()
            until = time.monotonic() + _GRACE_S
            for worker in workers:
                worker.wait(max(0.0, until - time.monotonic()))
        except BaseException:
            for worker in workers:
                worker.kill()
            raise

    def _begin_what_fits(self) -> None:
        for job in tuple(self._waiting):
            if self._fits(job):
                self._waiting.remove(job)
                worker = self._idle.pop() if self._idle else WorkerProcess(self._shared, self._inbox)
                self._busy[worker] = replace(job, began_s=time.monotonic())
                self._watcher.began(job.unit, job.attempt)
                worker.give(job.unit)

    def _fits(self, job: _Job) -> bool:
        if not self._busy:
            return True
        running = tuple(self._busy.values())
        if job.alone or any(each.alone for each in running) or len(running) >= self._room.most_units:
            return False
        cores = job.unit.cores + sum(each.unit.cores for each in running)
        return cores <= self._room.cores and self._memory_suffices(job, running)

    def _memory_suffices(self, job: _Job, running: tuple[_Job, ...]) -> bool:
        if self._room.memory_bytes is None:
            return True
        return sum(self._share(each) or 0 for each in (job, *running)) <= self._room.memory_bytes

    def _share(self, job: _Job) -> int | None:
        """Bytes that an attempt may take; ``None`` where nothing limits it."""
        if job.alone:
            return self._room.memory_bytes
        return self._room.share_bytes if job.unit.memory_bytes is None else job.unit.memory_bytes

    def _end_what_takes_too_much(self) -> None:
        for worker, job in self._busy.items():
            share = self._share(job)
            if share is None or worker in self._too_large:
                continue
            if (taken := worker.resident_bytes()) > share:
                self._too_large[worker] = Failure(
                    kind=FailureKind.OUT_OF_MEMORY,
                    sentence=f"it took {taken // _MIB:,} MiB of memory, and may take {share // _MIB:,} MiB",
                )
                worker.kill()

    def _take(self, worker: WorkerProcess, answer: Answer | None) -> None:
        """Take what a worker says: an answer, or that it has ended."""
        if worker not in self._busy:
            if worker in self._idle:  # ended while it had nothing to do
                self._idle.remove(worker)
                worker.wait(0.0)
            return
        job = self._busy.pop(worker)
        if answer is None:
            cause = self._too_large.pop(worker, None) or worker.cause_of_end()
            worker.wait(0.0)
            answer = Answer(failure=cause)
        else:
            self._keep_or_end(worker)
        self._settle(job, answer)

    def _keep_or_end(self, worker: WorkerProcess) -> None:
        """A worker that holds on to much memory would count against its next unit, unless that is alike."""
        share = self._room.share_bytes if self._ends_large else None
        if worker in self._too_large or (share is not None and worker.resident_bytes() > share // 2):
            self._too_large.pop(worker, None)
            worker.kill()
            worker.wait(0.0)
        else:
            self._idle.append(worker)

    def _settle(self, job: _Job, answer: Answer) -> None:
        outcome = settled(job.unit, job.attempt, job.began_s, answer, self._watcher)
        if outcome is None:
            self._waiting.append(_Job(unit=job.unit, attempt=job.attempt + 1))
        else:
            self._done[id(job.unit)] = outcome
