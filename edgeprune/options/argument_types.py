"""Types of arguments from Python, held to what the fields of options say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from edgeprune.errors import UsageError
from edgeprune.limits import is_finite
from edgeprune.options.bounds import bounded_fields
from edgeprune.showing import in_short


def plain_number(value: Any) -> Any:
    """A number of NumPy as one of Python; everything else as it is."""
    kind = type(value)
    return value.item() if kind.__module__ == "numpy" and getattr(value, "shape", None) == () else value


def check_types(
    function: str, kind: Callable[..., Any], hints: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Refuse arguments of other types than ``hints`` say; those with a range are left to its check.

    Raises:
        UsageError: names the argument, its value and what is accepted.
    """
    ranges = bounded_fields(kind) if isinstance(kind, type) else frozenset()
    for name, value in given.items():
        if name not in ranges and name in hints and not _fits(value, hints[name]):
            raise UsageError(
                f"{function}() was given {name}={in_short(value)}; accepted is {_words(hints[name])}"
            )


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is tuple:
        # Lists do as well wherever a tuple does; shapes of several inputs are judged with the model.
        whole = isinstance(value, (tuple, list))
        several = inner[0] is int and whole and value and all(_fits(each, hint) for each in value)
        return several or (whole and (inner[-1] is not ... or all(_fits(each, inner[0]) for each in value)))
    if origin is Sequence:
        several = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
        return several and all(_fits(each, inner[0]) for each in value)
    if origin is not None:
        return not isinstance(origin, type) or isinstance(value, origin)
    if hint is float:
        return is_finite(value) or isinstance(value, float)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, os.PathLike)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(each) for each in inner))
    if origin is tuple:
        return f"a tuple of {_several(inner[0])}"
    if origin is Mapping:
        return "a dictionary"
    if origin is Sequence:
        return f"a list of {_several(inner[0])}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        names = [f"{hint.__name__}.{member.name}" for member in hint]
        return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
    return _NAMES.get(hint) or f"an object of the class {getattr(hint, '__qualname__', hint)}"


def _several(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_several(each) for each in get_args(hint))
    return _PLURAL.get(hint) or _words(hint)


_NAMES: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
_PLURAL: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths"}
