"""Parse TOML tables into frozen dataclasses, whose annotations say what each key accepts.

``Annotated[int, Gt(0), Expected("a positive whole number")]``: limits are those of ``annotated_types``, which
pydantic checks. Types are strict, but a whole number may stand for a float.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgeprune.showing import did_you_mean, in_short

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


@dataclass(frozen=True)
class Expected:
    """Description of the values that a key accepts, if its type is not enough."""

    words: str


class TableError(ValueError):
    """Invalid table; the message is the end of a sentence that begins with the name of its file."""


def from_table(
    kind: type[T],
    table: dict[str, Any],
    *,
    inside: str = "",
    hyphens: bool = False,
    apart: Sequence[str] = (),
) -> T:
    """Build a dataclass from a table, which may lack keys with a default.

    ``inside`` prefixes names of keys in messages; ``hyphens``: keys have hyphens where fields have
    underscores; ``apart``: further accepted keys, which others read.

    Raises:
        TableError: a key is unknown or missing, or a value is not accepted.
    """
    fields = {(name.replace("_", "-") if hyphens else name): name for name in _hints(kind)}
    for key in table:
        if key not in fields:
            raise unknown_key(f"{inside}{key}", key, [*fields, *apart])
    given = {fields[key]: value for key, value in table.items()}
    shown = {name: key for key, name in fields.items()}
    from pydantic import ValidationError  # slow import, needed only to read such a file

    try:
        (made,) = _adapter(cast(Hashable, kind)).validate_json(json.dumps([given]))
    except TypeError as error:  # dates and times, which no field accepts
        key, value = next((k, v) for k, v in table.items() if not _is_plain(v))
        raise _refused(f"{inside}{key}", value, _words(_hints(kind)[fields[key]])) from error
    except ValidationError as error:
        raise _told(kind, error, inside, shown) from error
    return cast(T, made)


@functools.cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # A dataclass takes its configuration from what contains it.
    contained: Any = tuple[kind]  # type: ignore[valid-type]
    return TypeAdapter(contained, config=ConfigDict(strict=True, extra="forbid"))


def _told(kind: type[Any], error: ValidationError, inside: str, shown: dict[str, str]) -> TableError:
    """Error for the first fault; unknown keys come first, since they may be misspelt missing ones."""
    faults = error.errors(include_url=False, include_context=False)
    order = {"unexpected_keyword_argument": 0, "missing": 1}
    first = min(faults, key=lambda fault: order.get(fault["type"], 2))
    path = [shown.get(str(part), str(part)) for part in first["loc"][1:2]]
    path += [str(part) for part in first["loc"][2:]]
    hint: Any = kind
    for part in first["loc"][1 : -1 if first["type"] in order else None]:
        hint = _inner(hint, str(part))
    name = f"{inside}{'.'.join(path)}"
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(name, path[-1], list(_hints(_core(hint))))
    if first["type"] == "missing":
        return TableError(f"lacks the key {name!r}; add it")
    return _refused(name, first["input"], _words(hint))


def unknown_key(name: str, key: str, accepted: Sequence[str]) -> TableError:
    """Error for an unknown key; ``name`` is its path in the table, such as ``roofline.clock_hz``."""
    hint = did_you_mean(key, accepted)
    return TableError(f"has the unknown key {name!r}; {hint}accepted: {', '.join(accepted)}")


def _refused(name: str, value: Any, words: str) -> TableError:
    return TableError(f"has {name!r} = {in_short(value)}, but {words} is expected")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _inner(hint: Any, part: str) -> Any:
    """Annotation of a field of a dataclass, or of the items of a tuple or a dict."""
    core = _core(hint)
    if dataclasses.is_dataclass(core):
        return _hints(core)[part]
    arguments = typing.get_args(core)
    return arguments[1 if typing.get_origin(core) is dict else 0] if arguments else hint


def _core(hint: Any) -> Any:
    """An annotation without ``Annotated`` and ``| None``."""
    if typing.get_origin(hint) is typing.Annotated:
        return _core(typing.get_args(hint)[0])
    given = _not_none(hint)
    return hint if given is hint else _core(given)


def _not_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    return next(member for member in typing.get_args(hint) if member is not type(None))


_OF_TYPES = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def _words(hint: Any) -> str:
    """Description of the values that an annotation accepts."""
    hint = _not_none(hint)
    if typing.get_origin(hint) is typing.Annotated:
        own = [extra.words for extra in typing.get_args(hint)[1:] if isinstance(extra, Expected)]
        return own[0] if own else _words(typing.get_args(hint)[0])
    if typing.get_origin(hint) is tuple:
        return f"a list, each {_words(typing.get_args(hint)[0])},"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(repr(member.value) for member in hint)
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) is dict:
        return "a table"
    return _OF_TYPES.get(hint, "another value")
