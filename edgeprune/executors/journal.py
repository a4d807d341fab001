"""Results of finished units on disk, so that a run that was stopped does none of them again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgeprune.artifacts.codec import from_jsonable, to_jsonable
from edgeprune.executors.units import Executor, Failure, Outcome, Unit, Watcher
from edgeprune.storage.documents import UnreadableError
from edgeprune.storage.records import read_record, write_record

_log = logging.getLogger("edgeprune.executors")

Result = TypeVar("Result")


class UnitJournal(Generic[Result]):
    """One record a unit in an existing folder, found by the unit's key.

    Args:
        folder: of the records.
        kind: the dataclass that results are.
    """

    def __init__(self, folder: Path, kind: type[Result]) -> None:
        self._folder, self._kind = folder, kind

    def find(self, unit: Unit) -> Result | None:
        """The result of a finished unit; ``None`` where there is none, or its record is damaged, with a
        warning."""
        path = self._path(unit)
        if not path.exists():
            return None
        try:
            record = read_record(path)
            if record["key"] != unit.key:
                raise ValueError("a record of another unit")
            return from_jsonable(self._kind, record["result"])
        except (UnreadableError, ValueError, TypeError, KeyError) as error:
            _log.warning("%r is damaged, so %s is done again: %s", str(path), unit.name, error)
            return None

    def keep(self, unit: Unit, result: Result) -> None:
        """Write the result of a unit.

        Raises:
            OutputError: it cannot be written.
        """
        write_record(self._path(unit), {"key": unit.key, "result": to_jsonable(result)})

    def _path(self, unit: Unit) -> Path:
        return self._folder / f"{hashlib.sha256(unit.key.encode()).hexdigest()}.json"


def run_journaled(
    executor: Executor,
    units: Sequence[Unit],
    journal: UnitJournal[Any],
    shared: Any = None,
    watcher: Watcher | None = None,
) -> tuple[Outcome, ...]:
    """Outcomes in the order of ``units``: those of the journal, and of units run now, kept as they end.

    Raises:
        OutputError: a result cannot be written.
        UsageError: the executor cannot be had here.
    """
    watching = _Keeping(journal, watcher or Watcher())
    outcomes = {}
    for unit in units:
        if (found := journal.find(unit)) is not None:
            outcomes[id(unit)] = _kept(unit, found)
            watching.told.ended(outcomes[id(unit)])
    left = [unit for unit in units if id(unit) not in outcomes]
    if left:
        ran = executor.run(left, shared, watching)
        outcomes |= {id(outcome.unit): outcome for outcome in ran}
    return tuple(outcomes[id(unit)] for unit in units)


def _kept(finished: Unit, found: Any) -> Outcome:
    return Outcome(unit=finished, result=found, attempts=0, kept=True)


class _Keeping(Watcher):
    """Keeps results, then tells another watcher."""

    def __init__(self, journal: UnitJournal[Any], told: Watcher) -> None:
        self._journal, self.told = journal, told

    def began(self, unit: Unit, attempt: int) -> None:
        self.told.began(unit, attempt)

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        self.told.tries_again(unit, failure)

    def ended(self, outcome: Outcome) -> None:
        if outcome.failure is None:
            self._journal.keep(outcome.unit, outcome.result)
        self.told.ended(outcome)

    def tick(self) -> None:
        self.told.tick()
