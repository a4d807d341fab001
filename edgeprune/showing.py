"""Words of others, such as names of layers and files, as they can be shown: harmless and not too long.

People read them escaped and shortened. Programs read names whole: JSON that a later run reads back has the
escapes of JSON itself, which stand for the very characters.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")

_UNSEEN = re.compile(
    # Control characters but tabs and ends of lines; lone halves of characters, as of file names in no known
    # encoding; what turns the writing, and all else that Unicode calls format characters or ignorable.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LONG = re.compile(r"\S{201,}")
_LONG_IN_CELL = re.compile(r"\S{81,}")


def did_you_mean(given: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The question after the nearest known name, with a space behind it; empty where none is near."""
    near = difflib.get_close_matches(given, list(known), 1, cutoff)
    return f"did you mean {near[0]!r}? " if near else ""


def plain(text: str) -> str:
    r"""Text whose control characters show as ``\x1b``, so that a terminal takes none of it for a command."""
    return _UNSEEN.sub(_escaped, text)


def shown(text: str) -> str:
    """The same with very long words shortened in the middle."""
    return _LONG.sub(lambda found: without_middle(found[0], head=110, tail=60), plain(text))


def shown_in_cell(text: str) -> str:
    """The same for a cell of a table, which would fold long words over many lines."""
    return _LONG_IN_CELL.sub(lambda found: without_middle(found[0], head=50, tail=27), plain(text))


def shown_sentence(text: str) -> str:
    """One sentence on a failure; where many words make it very long, without its middle."""
    found = shown(text)
    return found if len(found) <= 690 else without_middle(found, head=440, tail=220)


def without_middle(text: str, *, head: int, tail: int) -> str:
    """The first and the last characters of a text, with dots for what is between."""
    return f"{text[:head]}...{text[-tail:]}"


def first_few(names: Sequence[str], most: int) -> str:
    """``a, b and 3 more``; all of them where there are no more than ``most``."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def in_short(value: Any, limit: int = 60) -> str:
    """A value as Python writes it, its middle left out where that is long."""
    text = repr(value)
    return text if len(text) <= limit else without_middle(text, head=limit * 2 // 3, tail=limit // 4)


def plain_values(value: Any) -> Any:
    """JSON values with plain text in all places."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    if isinstance(value, dict):
        return {plain_values(key): plain_values(item) for key, item in value.items()}
    return value


def for_people(value: _T) -> _T:
    """A result with its texts as they are shown, in nested dataclasses, tuples and dictionaries, too."""
    return _for_people(value)  # type: ignore[no-any-return]


def _for_people(value: Any) -> Any:
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
    r"""JSON with ``\u001b`` for what cannot be seen: programs read the same, terminals obey none of it."""
    return _UNSEEN.sub(_escaped_in_json, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_in_json(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
