"""Units on a cluster of Ray, or on this machine through it; Ray is imported when it is used."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.executors.performing import perform
from edgeprune.executors.units import (
    Answer,
    Failure,
    FailureKind,
    Outcome,
    Unit,
    Watcher,
    settled,
)
from edgeprune.system.imports import first_line

_log = logging.getLogger("edgeprune.executors")
_POLL_S = 0.2
_ON_THIS_MACHINE = "local"


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    unit: Unit
    number: int = 1
    began_s: float = 0.0


class RayExecutor:
    """Runs units as tasks of Ray, each with the cores and the memory that it says it takes.

    ``shared`` goes to the object store once. A unit whose worker or node is lost is tried once more. Units
    that are to run alone do not: Ray does not know what else a node does.

    Args:
        address: ``auto`` or ``host:port`` of a running cluster; a new one on this machine where ``None``.
        max_parallel: most units at once; as many as the cluster has cores where ``None``.
    """

    def __init__(self, address: str | None = None, max_parallel: int | None = None) -> None:
        self._address = address
        self._most = max_parallel

    def run(
        self, units: Sequence[Unit], shared: Any = None, watcher: Watcher | None = None
    ) -> tuple[Outcome, ...]:
        """Outcomes in the order of ``units``; see :class:`edgeprune.executors.units.Executor`.

        Raises:
            UsageError: Ray is not installed, or there is no cluster at the address.
        """
        with self._running(shared, calls=1) as run:
            return run.run(units, watcher)

    def session(self, shared: Any = None) -> AbstractContextManager[_Run]:
        """For many calls; see :class:`edgeprune.executors.units.Executor`."""
        return self._running(shared, calls=0)

    @contextlib.contextmanager
    def _running(self, shared: Any, calls: int) -> Iterator[_Run]:
        """``calls``: units that a process of Ray performs before it ends, any number where 0."""
        ray = _imported()
        with _connected(ray, self._address):
            yield _Run(ray, self._most, ray.put(shared), calls)


class _Run:
    """The units of one call by the reference of the task that performs them."""

    def __init__(self, ray: Any, most: int | None, shared: Any, calls: int) -> None:
        self._ray, self._shared, self._watcher = ray, shared, Watcher()
        self._most = most or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._task = ray.remote(max_retries=0, max_calls=calls)(perform)
        self._waiting: list[_Attempt] = []
        self._running: dict[Any, _Attempt] = {}
        self._done: dict[int, Outcome] = {}

    @property
    def most_units(self) -> int:
        """How many run at once."""
        return self._most

    def run(self, units: Sequence[Unit], watcher: Watcher | None = None) -> tuple[Outcome, ...]:
        """Run them until each has its outcome; on any exception, Ctrl-C included, what runs is ended."""
        self._watcher, self._done = watcher or Watcher(), {}
        self._waiting = [_Attempt(unit=each) for each in units]
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._most:
                    self._begin(self._waiting.pop(0))
                ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
                for reference in ended:
                    self._settle(self._running.pop(reference), self._answer(reference))
                self._watcher.tick()
        except BaseException:
            for reference in self._running:
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference, force=True)
            raise
        return tuple(self._done[id(unit)] for unit in units)

    def _begin(self, attempt: _Attempt) -> None:
        unit = attempt.unit
        asked = {"num_cpus": unit.cores}
        if unit.memory_bytes is not None:
            asked["memory"] = unit.memory_bytes
        reference = self._task.options(**asked).remote(unit, self._shared)
        self._running[reference] = replace(attempt, began_s=time.monotonic())
        self._watcher.began(unit, attempt.number)

    def _answer(self, reference: Any) -> Answer:
        errors = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(reference)
            return answer
        except errors.OutOfMemoryError as error:
            how, said = FailureKind.OUT_OF_MEMORY, "Ray ended it, since the memory of its node ran out"
            _log.info("%s", error)
        except errors.RayTaskError as error:
            how, said = FailureKind.FAULT, f"Ray could not run it ({first_line(error)})"
        except errors.RayError as error:
            how, said = FailureKind.KILLED, f"its process or its node is gone ({type(error).__name__})"
        return Answer(failure=Failure(kind=how, sentence=said))

    def _settle(self, attempt: _Attempt, answer: Answer) -> None:
        outcome = settled(attempt.unit, attempt.number, attempt.began_s, answer, self._watcher)
        if outcome is None:
            self._waiting.append(replace(attempt, number=attempt.number + 1))
        else:
            self._done[id(attempt.unit)] = outcome


def _imported() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError(
            f"the executor ray was asked for, and Ray cannot be imported ({first_line(error)}); install it "
            "with pip install 'edgeprune[ray]', or take the executor local"
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to the cluster; one that is there already stays."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(
            address=address or _ON_THIS_MACHINE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if address else False,
            # Processes here find what this one does; those of a cluster have their own installation.
            runtime_env=None if address else {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"Ray at {address or 'this machine'} cannot be reached ({first_line(error)}); accepted are auto, "
            "for a cluster that runs on this machine, and host:port"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
