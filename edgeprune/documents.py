"""JSON and TOML files as others wrote them: whatever is wrong with one is a ``ValueError`` that says so."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

_LEAST, _MOST = -(2**63), 2**63 - 1
_DIGITS = len(str(_MOST))

T = TypeVar("T")


def load_json(path: Path) -> Any:
    """The value in a JSON file in UTF-8.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, not UTF-8, nested too deeply, or has a whole number beyond 64 bits.
    """
    return _parsed(lambda text: json.loads(text, parse_int=_whole_number), path)


def load_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: as of :func:`load_json`.
    """
    table = _parsed(tomllib.loads, path)
    # TOML has whole numbers in 64 bits; Python's reader takes them of any size, which no float holds.
    if not all(_LEAST <= number <= _MOST for number in _whole_numbers(table)):
        raise _beyond()
    return table


def _parsed(parse: Callable[[str], T], path: Path) -> T:
    text = path.read_text(encoding="utf-8")
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply to be read") from None


def _whole_number(text: str) -> int:
    number = int(text) if len(text) <= _DIGITS + 1 else _MOST + 1
    if _LEAST <= number <= _MOST:
        return number
    raise _beyond()


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _whole_numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _whole_numbers(item)


def _beyond() -> ValueError:
    return ValueError(f"it has a whole number beyond 64 bits; accepted are {_LEAST} to {_MOST}")
