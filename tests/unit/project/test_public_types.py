"""What public functions take and return can be had from ``edgeprune`` itself, without loading torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import edgeprune

FUNCTIONS = [name for name in edgeprune.__all__ if inspect.isfunction(getattr(edgeprune, name))]
PUBLIC = {
    getattr(edgeprune, name) for name in edgeprune.__all__ if isinstance(getattr(edgeprune, name), type)
}


def classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, types.GenericAlias) or typing.get_args(annotation):
        for part in (typing.get_origin(annotation), *typing.get_args(annotation)):
            yield from classes(part)
    elif isinstance(annotation, type) and annotation.__module__.startswith("edgeprune"):
        yield annotation


def test_there_are_functions_and_types() -> None:
    assert set(FUNCTIONS) >= {
        "compress",
        "rank",
        "inspect",
        "quantize",
        "verify",
        "profile",
        "pick",
        "apply_surgery",
    }
    assert len(PUBLIC) > 12


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_type_of_a_public_function_is_public(name: str) -> None:
    hints = typing.get_type_hints(getattr(edgeprune, name))
    found = {kind for annotation in hints.values() for kind in classes(annotation)}
    assert found <= PUBLIC
    # And so is what is needed to make one of them.
    options = {k for part, hint in hints.items() if part != "return" for k in classes(hint)}
    for kind in options:
        inner = {k for hint in typing.get_type_hints(kind).values() for k in classes(hint)}
        assert inner <= PUBLIC, kind


def test_they_are_listed_once_and_in_order() -> None:
    assert edgeprune.__all__ == sorted(set(edgeprune.__all__))
    assert set(edgeprune.__all__) <= set(dir(edgeprune))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        edgeprune.Nothing  # noqa: B018


def test_options_come_without_torch() -> None:
    code = (
        "import sys, edgeprune\n"
        "edgeprune.Budget(max_size_bytes=1), edgeprune.Effort.QUICK, edgeprune.Finetune(steps=1)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
