"""Writes ``docs/python-api.md`` from the signatures and docstrings of ``edgeprune.__all__``.

python tests/generate_python_api.py      # prints the page
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import edgeprune

_HEAD = """\
# Python API

Written by `pytest --overwrite-golden tests/unit/project/test_python_api_page.py`; do not edit by hand.

Everything here can be had from `edgeprune` itself. Functions call what the command line calls, with the same
names where Python allows it. Failures are the classes of `edgeprune.errors` ([statuses](exit-statuses.md)).
Fields of reports are described in [report.json](report-schema.md) and [ranking.json](ranking-schema.md).
"""
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_PAGE = re.compile(r"``docs/([\w-]+\.md)``")
_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")
_SECTIONS = {"Args:": "argument", "Raises:": "raises"}


def page() -> str:
    """The whole page."""
    public = {name: getattr(edgeprune, name) for name in edgeprune.__all__ if not name.startswith("__")}
    functions = {name: thing for name, thing in public.items() if inspect.isfunction(thing)}
    kinds = {name: thing for name, thing in public.items() if isinstance(thing, type)}
    choices = {name: kind for name, kind in kinds.items() if issubclass(kind, enum.Enum)}
    records = {name: kind for name, kind in kinds.items() if name not in choices}
    if left := public.keys() - functions.keys() - kinds.keys():
        raise TypeError(f"neither functions nor classes: {', '.join(sorted(left))}")
    lines = [_HEAD, "`edgeprune.__version__` is the version as a text.", "", "## Functions"]
    shown: dict[tuple[str, ...], str] = {}
    for name, function in functions.items():
        lines += ["", f"### `{name}`", "", *_function(name, function, shown)]
    lines += ["", "## Choices"]
    for name, choice in choices.items():
        rows = [f"| `{name}.{member.name}` | `{member.value}` |" for member in choice]
        title = ["", f"### `{name}`", "", *_prose(inspect.getdoc(choice) or "")]
        lines += [*title, "", "| member | on the command line |", "|---|---|", *rows]
    lines += ["", "## Arguments and results", "", "All of them are frozen and take their fields by name."]
    for name, record in records.items():
        lines += ["", f"### `{name}`", "", *_record(name, record)]
    return "\n".join(lines) + "\n"


def _function(name: str, function: Any, shown: dict[tuple[str, ...], str]) -> Iterator[str]:
    signature = inspect.signature(function)
    parameters = tuple(_parameter(p) for p in signature.parameters.values())
    gives = _type(signature.return_annotation)
    if parameters in shown:
        yield from _code(f"{name}(...) -> {gives}")
        yield from ("", f"Arguments are those of `{shown[parameters]}`.", "")
    else:
        shown[parameters] = name
        yield from _code(f"{name}(", *(f"    {p}," for p in _with_star(signature)), f") -> {gives}")
        yield ""
    yield from _prose(inspect.getdoc(function) or "")


def _with_star(signature: inspect.Signature) -> Iterator[str]:
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        yield _parameter(parameter)


def _record(name: str, record: type) -> Iterator[str]:
    if not is_dataclass(record):
        raise TypeError(f"{name} is no dataclass")
    yield from _code(f"{name}(", "    *,", *(f"    {_field(f)}," for f in fields(record)), ")")
    yield ""
    yield from _prose(inspect.getdoc(record) or "")
    members = [m for m in vars(record).items() if not m[0].startswith("_")]
    told = [row for member, what in members if (row := _member(member, what))]
    if told:
        yield from ("", *told)


def _member(name: str, what: Any) -> str | None:
    brackets = "()" if inspect.isfunction(what) else ""
    if not brackets and not isinstance(what, property):
        return None
    first = (inspect.getdoc(what) or "").partition("\n\n")[0].replace("\n", " ")
    return f"- `{name}{brackets}`: {_markup(first)}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = f"{parameter.name}: {_type(parameter.annotation)}"
    if parameter.default is inspect.Parameter.empty:
        return text
    if repr(parameter.default) == "<factory>":
        return f"{text} = {_type(parameter.annotation)}()"
    return f"{text} = {_value(parameter.default)}"


def _field(given: Field[Any]) -> str:
    text = f"{given.name}: {_type(given.type)}"
    if given.default is not MISSING:
        return f"{text} = {_value(given.default)}"
    return f"{text} = {_type(given.type)}()" if given.default_factory is not MISSING else text


def _value(value: Any) -> str:
    return f"{type(value).__name__}.{value.name}" if isinstance(value, enum.Enum) else repr(value)


def _type(annotation: Any) -> str:
    """As it would be written, without modules: the same from every version of Python."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    parts = [_type(part) for part in typing.get_args(annotation)]
    origin = typing.get_origin(annotation)
    if origin in {types.UnionType, typing.Union}:
        return " | ".join(parts)
    return f"{origin.__name__}[{', '.join(parts)}]" if origin else str(annotation.__name__)


def _code(*lines: str) -> Iterator[str]:
    yield from ("```python", *lines, "```")


def _prose(docstring: str) -> Iterator[str]:
    """A docstring of this project as Markdown: sections become tables."""
    kind, rows = "", list[list[str]]()
    for line in docstring.splitlines():
        if line in _SECTIONS:
            kind = _SECTIONS[line]
        elif kind and (entry := _ENTRY.match(line)):
            rows.append([entry[1], entry[2]])
        elif kind and line.startswith(" " * 8):
            rows[-1][1] += f" {line.strip()}"
        else:
            yield from _table(kind, rows)
            kind, rows = "", []
            yield _markup(line)
    yield from _table(kind, rows)


def _table(kind: str, rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield from (f"| {kind} | meaning |", "|---|---|")
        yield from (f"| `{name}` | {_markup(text).replace('|', chr(92) + '|')} |" for name, text in rows)


def _markup(text: str) -> str:
    text = _PAGE.sub(r"[\1](\1)", _ROLE.sub(r"`\1`", text))
    return text.replace("``", "`")


if __name__ == "__main__":
    print(page(), end="")
