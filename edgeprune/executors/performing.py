"""A unit performed in this process, whatever becomes of it."""

from __future__ import annotations

import traceback
from typing import Any

from edgeprune.errors import INTERNAL_EXIT_STATUS, EdgepruneError
from edgeprune.executors.units import Answer, Failure, FailureKind, Unit, Work
from edgeprune.showing import in_short
from edgeprune.system.memory import is_out_of_memory


def perform(unit: Unit, same: Any = None) -> Answer:
    """Call the function of a unit; any exception but ``KeyboardInterrupt`` becomes a failure."""
    try:
        return Answer(result=unit.function(Work(payload=unit.payload, seed=unit.seed, shared=same)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Answer(failure=failure_of(error))


def failure_of(error: BaseException) -> Failure:
    """An exception as a failure with its sentence."""
    if isinstance(error, EdgepruneError):
        return Failure(kind=FailureKind.REFUSED, sentence=str(error), exit_status=error.exit_status)
    if is_out_of_memory(error):
        return Failure(
            kind=FailureKind.OUT_OF_MEMORY, sentence=f"there was not enough memory ({_first_line(error)})"
        )
    return Failure(
        kind=FailureKind.FAULT,
        sentence=f"unexpected {type(error).__name__}: {_first_line(error)}",
        exit_status=INTERNAL_EXIT_STATUS,
        traceback="".join(traceback.format_exception(error)),
    )


def _first_line(error: BaseException) -> str:
    return in_short(next(iter(str(error).splitlines()), "") or "no message")
