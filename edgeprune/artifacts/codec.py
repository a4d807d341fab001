"""JSON codec of frozen dataclasses: what is written reads back equal."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from edgeprune.showing import in_short

T = TypeVar("T")

NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def to_jsonable(value: Any) -> Any:
    """Turn dataclasses, enums, tuples, paths and numpy values into plain JSON values.

    JSON has no NaN and no infinity: those floats become the strings of ``NON_FINITE``.

    Raises:
        TypeError: a value has no JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    if isinstance(value, dict):
        return {str(k): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NON_FINITE[str(value)]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_jsonable(cls: type[T], data: Any) -> T:
    """Rebuild an instance of ``cls`` from what :func:`to_jsonable` wrote.

    Raises:
        ValueError: a field is missing or unknown, or a value is not of the field's type.
    """
    return cast(T, _decode(cls, data))


def _decode(kind: Any, data: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        members = [m for m in typing.get_args(kind) if m is not type(None)]
        return None if data is None else _decode(members[0], data)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"expected a list, got {in_short(data)}")
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item) for item in data)
        return tuple(_decode(a, item) for a, item in zip(args, data, strict=True))
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, got {in_short(data)}")
        key_kind, value_kind = typing.get_args(kind)
        return {key_kind(k): _decode(value_kind, v) for k, v in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _decode_enum(kind, data)
    if kind is np.ndarray or origin is np.ndarray:
        return _decode_array(data)
    if kind is Path:
        return Path(_decode_scalar(str, data))
    return _decode_scalar(kind, data)


def _decode_enum(kind: type[Enum], data: Any) -> Enum:
    for member in kind:
        if type(member.value) is type(data) and member.value == data:
            return member
    raise ValueError(f"expected {' or '.join(repr(m.value) for m in kind)}, got {in_short(data)}")


def _decode_array(data: Any) -> np.ndarray[Any, Any]:
    if isinstance(data, np.ndarray):
        return data
    array = np.asarray(data) if isinstance(data, list) else np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers in lists of one length, got {in_short(data)}")
    return array


def _decode_scalar(kind: Any, data: Any) -> Any:
    if kind is float and isinstance(data, str) and data in NON_FINITE.values():
        return float(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind in (int, float, str, bool) and type(data) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {in_short(data)}")
    return data


def _decode_dataclass(kind: type[Any], data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__}: expected an object, got {in_short(data)}")
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(data) - names)
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if unknown or missing:
        raise ValueError(
            f"{kind.__name__}: unknown fields {in_short(unknown)}, missing fields {in_short(missing)}"
        )
    return kind(**{name: _decode(hints[name], data[name]) for name in data})
