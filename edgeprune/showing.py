"""Display of untrusted text, such as layer and file names: escaped and of bounded length.

People see it escaped and shortened. Programs read names whole: JSON that a later run reads back uses JSON's
own escapes, which preserve the characters.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from edgeprune.notes import Fact

_T = TypeVar("_T")

_UNSEEN = re.compile(
    # Control characters except tabs and line ends; lone surrogates, as in file names of unknown encoding;
    # bidirectional controls, and all other Unicode format and ignorable characters.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LONG = re.compile(r"\S{201,}")
_LONG_IN_CELL = re.compile(r"\S{81,}")


def did_you_mean(given: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Question suggesting the nearest known name, with a trailing space; empty if none is near."""
    near = nearest(given, known, cutoff)
    return "" if near is None else f"did you mean {near!r}? "


def nearest(given: str, known: Iterable[str], cutoff: float) -> str | None:
    """The nearest known name; ``None`` if none is near."""
    return next(iter(difflib.get_close_matches(given, list(known), 1, cutoff)), None)


def plain(text: str) -> str:
    r"""Escape control characters, as in ``\x1b``, so that a terminal executes none of them."""
    return _UNSEEN.sub(_escaped, text)


def shown(text: str) -> str:
    """Escaped text with very long words shortened in the middle."""
    return _LONG.sub(lambda match: without_middle(match[0], head=110, tail=60), plain(text))


def shown_in_cell(text: str) -> str:
    """Escaped text for a table cell, shorter still: a cell folds long words over many lines."""
    return _LONG_IN_CELL.sub(lambda match: without_middle(match[0], head=50, tail=27), plain(text))


def shown_sentence(text: str) -> str:
    """Escaped error message; the middle is left out if it is very long."""
    sentence = shown(text)
    return sentence if len(sentence) <= 690 else without_middle(sentence, head=440, tail=220)


def without_middle(text: str, *, head: int, tail: int) -> str:
    """First and last characters of a text, with dots in between."""
    return f"{text[:head]}...{text[-tail:]}"


def first_few(names: Sequence[str], most: int) -> str:
    """``a, b and 3 more``; all names if there are at most ``most``."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def in_short(value: Any, limit: int = 60) -> str:
    """``repr`` of a value, with its middle left out if it is long."""
    try:
        text = repr(value)
    except Exception:  # a number of more digits than Python writes, or an object of the user's own
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else without_middle(text, head=limit * 2 // 3, tail=limit // 4)


def plain_values(value: Any) -> Any:
    """JSON values with all texts escaped."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    if isinstance(value, dict):
        return {plain_values(key): plain_values(item) for key, item in value.items()}
    return value


def for_people(value: _T) -> _T:
    """A result with all texts as displayed, including nested dataclasses, tuples and dictionaries."""
    return _for_people(value)  # type: ignore[no-any-return]


def _for_people(value: Any) -> Any:
    if isinstance(value, Fact):
        return Fact(shown(value))
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, tuple):
        return tuple(map(_for_people, value))
    if isinstance(value, dict):
        return {_for_people(key): _for_people(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _for_people(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **changes)
    return value


def escaped_json(text: str) -> str:
    r"""Escape invisible characters of JSON as ``\u001b``: the same to programs, harmless to terminals."""
    return _UNSEEN.sub(_escaped_in_json, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
