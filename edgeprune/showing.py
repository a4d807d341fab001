"""Words of others, such as names of layers and files, as they can be shown: harmless and not too long."""

from __future__ import annotations

import re
from typing import Any

_UNSEEN = re.compile(
    # Control characters but tabs and ends of lines; what turns the writing or takes no room; lone
    # halves of characters, as of file names in no known encoding.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_LONG = re.compile(r"\S{201,}")


def plain(text: str) -> str:
    r"""Text whose control characters show as ``\x1b``, so that a terminal takes none of it for a command."""
    return _UNSEEN.sub(_escaped, text)


def shown(text: str) -> str:
    """The same with very long words shortened in the middle."""
    return _LONG.sub(lambda found: without_middle(found[0], head=110, tail=60), plain(text))


def without_middle(text: str, *, head: int, tail: int) -> str:
    """The first and the last characters of a text, with dots for what is between."""
    return f"{text[:head]}...{text[-tail:]}"


def plain_values(value: Any) -> Any:
    """JSON values with plain text in all places."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain_values(item) for item in value]
    if isinstance(value, dict):
        return {plain_values(key): plain_values(item) for key, item in value.items()}
    return value


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
