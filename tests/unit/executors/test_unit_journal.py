"""Finished units are found in the journal, and only those."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import executor_units as work
import pytest
from executor_units import unit

from edgeprune.executors.journal import UnitJournal, run_journaled
from edgeprune.executors.performing import perform
from edgeprune.executors.units import Outcome, Unit, Watcher, Work


@dataclass(frozen=True, kw_only=True)
class Sum:
    value: float


def added(given: Work) -> Sum:
    return Sum(value=given.payload + given.shared)


class Here:
    """Runs units in this process, and counts them."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.ran: list[str] = []
        self.stop_before = stop_before

    def run(
        self, units: list[Unit], shared: object = None, watcher: Watcher | None = None
    ) -> tuple[Outcome, ...]:
        outcomes = []
        for each in units:
            if len(self.ran) == self.stop_before:
                raise KeyboardInterrupt
            self.ran.append(each.name)
            answer = perform(each, shared)
            outcomes.append(Outcome(unit=each, result=answer.result, failure=answer.failure))
            (watcher or Watcher()).ended(outcomes[-1])
        return tuple(outcomes)


def units() -> list[Unit]:
    return [unit(added, f"{n}", payload=float(n)) for n in range(4)]


def test_a_stopped_run_goes_on_behind_what_is_finished(tmp_path: Path) -> None:
    journal, stopped, resumed = UnitJournal(tmp_path, Sum), Here(stop_before=2), Here()
    with pytest.raises(KeyboardInterrupt):
        run_journaled(stopped, units(), journal, 10)  # type: ignore[arg-type]
    found = run_journaled(resumed, units(), journal, 10)  # type: ignore[arg-type]
    assert (stopped.ran, resumed.ran) == (["0", "1"], ["2", "3"])
    assert [o.result.value for o in found] == [10, 11, 12, 13]
    assert [o.kept for o in found] == [True, True, False, False]


def test_what_failed_is_run_again_and_what_is_damaged_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, first, second = UnitJournal(tmp_path, Sum), Here(), Here()
    given = [unit(work.refused, "refused"), *units()[:2]]
    run_journaled(first, given, journal, 10)  # type: ignore[arg-type]
    kept = sorted(tmp_path.iterdir())
    kept[0].write_text(kept[0].read_text().replace("1", "2"))
    with caplog.at_level(logging.WARNING):
        found = run_journaled(second, given, journal, 10)  # type: ignore[arg-type]
    assert len(second.ran) == 2
    assert "refused" in second.ran
    assert "is damaged, so" in caplog.text
    assert [o.result.value for o in found[1:]] == [10, 11]
