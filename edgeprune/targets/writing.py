"""Profiles as TOML, and what differs between two of them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from edgeprune.targets.profile import TargetProfile


def to_toml(profile: TargetProfile) -> str:
    """The profile as a file that reads back equal; what is unknown is left out."""
    return "\n".join(_lines(_plain(profile), "")) + "\n"


def differences(first: TargetProfile, second: TargetProfile) -> tuple[tuple[str, Any, Any], ...]:
    """Fields that differ by their path, with both values; ``None`` where one has no such field."""
    one, two = _flat(_plain(first)), _flat(_plain(second))
    paths = dict.fromkeys((*one, *two))
    return tuple((p, one.get(p), two.get(p)) for p in paths if one.get(p) != two.get(p))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _plain(v) for f, v in pairs if v is not None and (v != f.default or v is False)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _lines(table: dict[str, Any], path: str) -> list[str]:
    """Single values first: in TOML what follows a header belongs to it."""
    lines = [f"{key} = {_written(value)}" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{path}{key}]", *_lines(value, f"{path}{key}.")]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{path}{key}]]", *_lines(item, f"{path}{key}.")]
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_written(item) for item in value)}]"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:_}"
    if isinstance(value, float):
        return repr(value)
    # JSON's texts and booleans are TOML's, but for the escape of DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        inner = [_flat(v, f"{path}.{k}" if path else k) for k, v in value.items()]
    elif _is_table(value):
        inner = [_flat(v, f"{path}[{_label(v, i)}]") for i, v in enumerate(value)]
    else:
        return {path: value}
    return {key: item for found in inner for key, item in found.items()}


def _label(item: dict[str, Any], place: int) -> str:
    known = [str(item[k]) for k in ("kind", "op_type") if item.get(k)]
    flags = [k for k in ("integer", "blocked") if item.get(k)]
    return ", ".join([*known, *flags]) or str(place)
