"""A minute of the fuzzer: the same cases each time, one for every format and command; more are wide."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_cases import FORMATS, PAIRS, Case
from fuzz_judge import documented_statuses
from fuzz_runner import describe, run_case
from killed import RUNS, kill_at_points

LONG = frozenset({"compress", "search", "rank", "resume", "sweep"})
"""Commands that take seconds where the file is accepted; the others get twice as many cases."""
CASES = 2
FIRST = (1,)
"""Seeds of the cases of every pair that are no wide ones."""
POINTS = {"--ratio": 2, "budget search": 1}
"""Where each run is killed; a search takes longer."""


def more_numbers(command: str) -> tuple[int, ...]:
    """Seeds of the wide cases of a pair."""
    count = CASES if command in LONG else 2 * CASES
    return tuple(number for number in range(1, count + 1) if number not in FIRST)


@pytest.mark.parametrize(
    ("name", "command", "numbers"),
    [
        *(pytest.param(*pair, FIRST, id=":".join(pair)) for pair in PAIRS),
        *(
            pytest.param(*pair, more_numbers(pair[1]), id=":".join((*pair, "more")), marks=pytest.mark.wide)
            for pair in PAIRS
        ),
    ],
)
def test_changed_files_never_break_the_promise(
    name: str, command: str, numbers: tuple[int, ...], seeds: Path, tmp_path: Path
) -> None:
    cases = [Case(name, command, number) for number in numbers]
    found = [run_case(case, seeds, documented_statuses(), keep=tmp_path) for case in cases]
    against = [describe(outcome) for outcome in found if outcome.faults]
    assert not against, (
        f"{against}; what was given is in {tmp_path}; again: python tests/fuzz/run.py --case CASE"
    )


@pytest.mark.wide
@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bytes(run: str, seeds: Path) -> None:
    found = kill_at_points(POINTS[run], seeds, seed=0, runs=(run,))
    assert len(found) == POINTS[run]
    assert [fault for one in found for fault in one.faults] == []


def test_cases_are_the_same_each_time(seeds: Path, tmp_path: Path) -> None:
    from fuzz_cases import built
    from small_project import snapshot

    for name, form in FORMATS.items():
        for again in ("one", "two"):
            (tmp_path / name / again).mkdir(parents=True)
        case = Case.parsed(f"{name}:{form.commands[0]}:5")
        one, two = (built(case, seeds, tmp_path / name / again) for again in ("one", "two"))
        assert one == two
        assert snapshot(tmp_path / name / "one") == snapshot(tmp_path / name / "two")
