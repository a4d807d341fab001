"""The tree of failures and its table in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from edgeprune import errors

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "exit-statuses.md"


def every_class(
    base: type[errors.EdgepruneError] = errors.EdgepruneError,
) -> list[type[errors.EdgepruneError]]:
    children = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [base, *(found for child in children for found in every_class(child))]


def documented() -> dict[int, str]:
    rows = re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\| \S.*\|$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert len(rows) == len({status for status, _ in rows}), "a status stands twice in the table"
    return {int(status): name for status, name in rows}


def test_the_table_of_exit_statuses_matches_the_classes() -> None:
    in_code = {kind.exit_status: kind.__name__ for kind in every_class()}
    in_code |= {
        0: "",
        errors.INTERRUPTED_EXIT_STATUS: "",
        errors.TERMINATED_EXIT_STATUS: "",
        errors.HUNG_UP_EXIT_STATUS: "",
        errors.INTERNAL_EXIT_STATUS: "",
        errors.BROKEN_PIPE_EXIT_STATUS: "",
    }
    assert documented() == in_code


def test_every_kind_of_failure_has_its_own_status() -> None:
    statuses = [kind.exit_status for kind in every_class()]
    assert len(statuses) == len(set(statuses))
    assert all(0 < status < 126 for status in statuses)


def test_every_class_says_what_it_is_for() -> None:
    assert all(kind.__doc__ for kind in every_class())
