"""Digests by which a page of figures tells whether the code that it rests on has changed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import edgeprune.storage.files  # noqa: F401

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "code_digests.py"
CODE = '''"""What this is for."""
def double(x: int) -> int:
    """Twice."""
    # why
    return 2 * x
'''


@pytest.fixture(scope="module")
def digests() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("code_digests", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("What this is for", "What it does", True),
        ("Twice.", "Two times.", True),
        ("    # why\n", "", True),
        ("2 * x", "2*x", True),
        ("2 * x", "x * 2", False),
        ("2 * x", "3 * x", False),
        ("x: int", "x: float", False),
    ],
)
def test_prose_and_layout_do_not_count(digests: ModuleType, old: str, new: str, same: bool) -> None:
    found = digests.digest_of_code(CODE.replace(old, new))
    assert (found == digests.digest_of_code(CODE)) is same


def test_a_body_of_a_docstring_alone_is_that_of_pass(digests: ModuleType) -> None:
    assert digests.digest_of_code('class A:\n    """One."""') == digests.digest_of_code("class A:\n    pass")


def test_loaded_modules_are_told_and_those_that_changed_since(digests: ModuleType) -> None:
    loaded = digests.loaded_code()
    assert "edgeprune.storage.files" in loaded
    assert set(loaded) <= set(sys.modules)
    name = "edgeprune.storage.files"
    pages = {
        "as it is": {name: [loaded[name]]},
        "other code": {name: ["0" * 10]},
        "of two states": {name: [loaded[name], "0" * 10]},
        "gone": {"edgeprune.no_such_module": ["0" * 10]},
    }
    assert digests.changed(pages) == {
        "as it is": [],
        "other code": [name],
        "of two states": [name],
        "gone": ["edgeprune.no_such_module"],
    }
