"""Keyword arguments of an architecture from the text of ``--arch-kwargs``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgeprune.errors import UsageError
from edgeprune.limits import read_number
from edgeprune.showing import in_short

Keyword = int | float | bool | str
"""What a keyword argument may be."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_TRUTH = {"true": True, "false": False}


def parse_keywords(value: str | Mapping[str, Keyword]) -> dict[str, Keyword]:
    """``{"width": 0.5, "num_classes": 10}`` from ``width=0.5,num_classes=10``.

    Whole numbers, other numbers, ``true`` and ``false`` are what they look like; all else, and what stands in
    quotes, is text.

    Raises:
        UsageError: no NAME=VALUE separated by commas, or a name twice.
    """
    if isinstance(value, Mapping):
        return dict(value)
    keywords: dict[str, Keyword] = {}
    for item in value.split(","):
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name.isidentifier() or not text or name in keywords:
            raise UsageError(
                f"--arch-kwargs {in_short(value)} was given; accepted is NAME=VALUE, several separated by "
                "commas, each name once, such as width=0.5,num_classes=10"
            )
        keywords[name] = _typed(text)
    return keywords


def keywords_text(keywords: Mapping[str, object]) -> str:
    """``width=0.5,num_classes=10``, as the option is given."""
    return ",".join(f"{name}={value}" for name, value in keywords.items())


def _typed(text: str) -> Keyword:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    number = read_number(text)
    return text if number is None else number
