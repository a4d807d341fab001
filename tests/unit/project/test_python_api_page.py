"""``docs/python-api.md`` is what the code says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generate_python_api import page

import edgeprune

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python-api.md"


def test_the_page_is_that_of_the_code(golden: Any) -> None:
    golden(PAGE, page())


def test_every_public_name_has_its_place() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [n for n in edgeprune.__all__ if f"### `{n}`\n" not in text] == ["__version__"]


def test_nothing_of_the_machine_or_of_sphinx_is_left() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [mark for mark in ("<factory>", " object at ", ":func:", "``docs", "pathlib.") if mark in text]
