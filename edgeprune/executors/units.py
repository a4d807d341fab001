"""Units of work, their outcomes, and the seam between what is to be done and where it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from edgeprune.errors import EdgepruneError, UsageError

_log = logging.getLogger("edgeprune.executors")

MOST_ATTEMPTS = 2
"""A unit whose process died, or that ran out of memory, is tried once more."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the function of a unit is called with; ``shared`` is the same for all units of a run."""

    payload: Any
    seed: int
    shared: Any = None


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work: a function of a module, and all that decides its result.

    ``function`` is found by its name in another process, and ``payload`` and the result can be pickled. It is
    idempotent: after it was stopped anywhere, the same call gives the same result. ``key`` identifies that
    result in a journal. ``cores`` and ``memory_bytes`` are what it takes (``None``: an equal share of the
    memory); ``alone``: nothing else may run beside it, since it measures times.
    """

    name: str
    key: str
    function: Callable[[Work], Any]
    payload: Any = None
    seed: int = 0
    cores: int = 1
    memory_bytes: int | None = None
    alone: bool = False


class FailureKind(Enum):
    """Why a unit has no result."""

    REFUSED = "refused"
    """It ended with an error of its own, which another attempt would repeat."""
    FAULT = "fault"
    """It ended with an exception that nobody meant."""
    KILLED = "killed"
    """Its process, or the machine that it was on, is gone."""
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a unit has no result: one sentence, and the exit status that it stands for.

    ``traceback`` is that of an exception that nobody meant; empty for others.
    """

    kind: FailureKind
    sentence: str
    exit_status: int = 1
    traceback: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may succeed."""
        return self.kind in (FailureKind.KILLED, FailureKind.OUT_OF_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the process that ran a unit says of it: a result, or why there is none."""

    result: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a unit; ``duration_s`` is that of its last attempt.

    ``kept``: nothing ran, the result is that of the journal.
    """

    unit: Unit
    result: Any = None
    failure: Failure | None = None
    attempts: int = 1
    duration_s: float = 0.0
    kept: bool = False


def result_of(outcome: Outcome) -> Any:
    """The result of a unit.

    Raises:
        EdgepruneError: the error that its function ended with, or its process was lost twice.
        RuntimeError: it ended with an exception that nobody meant.
    """
    failure = outcome.failure
    if failure is None:
        return outcome.result
    if failure.kind is FailureKind.FAULT:
        raise RuntimeError(f"{outcome.unit.name}: {failure.sentence}\n{failure.traceback}")
    if failure.kind is FailureKind.REFUSED:
        kinds = {kind.exit_status: kind for kind in EdgepruneError.__subclasses__()}
        raise kinds.get(failure.exit_status, EdgepruneError)(failure.sentence)
    raise UsageError(
        f"{outcome.unit.name} was lost {outcome.attempts} times: {failure.sentence}; fewer workers have more "
        "memory each"
    )


class Watcher:
    """Is told of units; by default nothing follows from it."""

    def began(self, unit: Unit, attempt: int) -> None:
        """A unit begins, for the first or the second time."""

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        """An attempt failed, and another one follows."""

    def ended(self, outcome: Outcome) -> None:
        """A unit has its result, or none."""

    def tick(self) -> None:
        """Some time has passed."""


class Session(Protocol):
    """Runs units, call after call, in processes that have what is shared once."""

    @property
    def most_units(self) -> int:
        """How many run at once."""
        ...

    def run(self, units: Sequence[Unit], watcher: Watcher | None = None) -> tuple[Outcome, ...]:
        """Outcomes in the order of ``units``, as :meth:`Executor.run` gives them."""
        ...


class Telling(Watcher):
    """Says in the log which units are done again, and why."""

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        """An attempt failed, and another one follows."""
        _log.warning("%s is computed again: %s", unit.name, failure.sentence)


def settled(done: Unit, number: int, began_s: float, answer: Answer, watcher: Watcher) -> Outcome | None:
    """The outcome of a unit after so many attempts, the last one begun at ``began_s`` of the monotonic clock.

    ``None`` where another attempt is due. The watcher is told either way.
    """
    if answer.failure is not None and answer.failure.may_pass and number < MOST_ATTEMPTS:
        watcher.tries_again(done, answer.failure)
        return None
    outcome = Outcome(
        unit=done,
        result=answer.result,
        failure=answer.failure,
        attempts=number,
        duration_s=time.monotonic() - began_s,
    )
    watcher.ended(outcome)
    return outcome


class Executor(Protocol):
    """Runs units somewhere. Results depend neither on where, nor on how many at once, nor on their order."""

    def run(
        self, units: Sequence[Unit], shared: Any = None, watcher: Watcher | None = None
    ) -> tuple[Outcome, ...]:
        """Outcomes in the order of ``units``; ``shared`` is handed to each process once.

        A unit that fails does not end the others. On ``KeyboardInterrupt`` what runs is stopped, and no
        process is left.

        Raises:
            UsageError: the executor cannot be had here.
        """
        ...

    def session(self, shared: Any = None) -> AbstractContextManager[Session]:
        """For many short units: processes stay from call to call, and end with the block.

        Raises:
            UsageError: the executor cannot be had here.
        """
        ...
