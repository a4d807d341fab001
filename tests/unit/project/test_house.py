"""The counts of ``tests/house.py`` keep their bounds, and count what they say."""

from __future__ import annotations

from pathlib import Path

import house


def test_every_bound_holds() -> None:
    exceeded = [(count.what, count.number, count.places) for count in house.counts() if not count.holds]
    assert exceeded == []


def test_no_test_reaches_private_names() -> None:
    count = house.private_in_tests()
    assert count.holds, count.places


WRONG = """
from typing import Literal
from edgeprune.games import losses, _hidden

def wide(a, b, c, d, e, f, /, g, h, i, *, j, k, l, m):
    n = 1
    return dict(a=a, b=c, d=d) or Made(e=e, n=n) or losses._private or losses.__doc__

def choose(way: Literal["x", "y"]):
    pass
"""


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "wrong.py").write_text(WRONG)
    (package / "long.py").write_text("x = 1\n" * 401)
    for number in range(14):
        (package / f"file{number}.py").write_text("")
    numbers = {count.what: count.number for count in house.counts(package)}
    assert numbers == {
        "files above 400 lines": 1,
        "folders above 14 files": 1,
        "private names of other modules": 2,
        "choices given as texts": 1,
        "functions above 12 parameters": 1,
        "keywords x=x": 4,
        "parameters passed through": 2,
    }
