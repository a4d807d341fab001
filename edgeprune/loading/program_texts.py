"""Rules for the strings of a torch.export archive, one for each use that torch makes of them.

Node names appear unquoted in the Python code that torch generates; parameter names appear as attributes,
quoted if they are not identifiers. Python normalises full-width and other letters to ASCII (NFKC), so only
ASCII is accepted. Remarks (stack traces, modules, origins) are kept unchanged and become at most comments of
that code, which only a line break could end: any printable lines are accepted.
"""

from __future__ import annotations

import json
import re
from typing import Any

from torch import nn

from edgeprune.loading.program_operators import is_origin
from edgeprune.plain_names import LONGEST_NAME

_LONGEST_NAME = LONGEST_NAME + 96
"""Names of inputs are those of parameters with a little before."""

_LONGEST_REMARK = 1_000_000
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DUNDER = re.compile(r"__.*__")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_CALL_NUMBER = re.compile(r"@[0-9]{1,9}$")
_VERSION = re.compile(r"[A-Za-z0-9.+<>=_-]{1,60}")
_PAYLOAD = re.compile(r"(weight|tensor)_[0-9]{1,9}")
_KEY = re.compile(r"[A-Za-z0-9_ ./:-]{0,200}")
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_OWN_ATTRIBUTES = frozenset(vars(nn.Module()))
_SEPARATOR = ";"


def is_identifier(text: str) -> bool:
    """A name that torch writes into Python code unquoted."""
    return (
        len(text) <= _LONGEST_NAME and _IDENTIFIER.fullmatch(text) is not None and not _DUNDER.fullmatch(text)
    )


def is_identifier_or_empty(text: str) -> bool:
    """An identifier, or an empty string where there may be no name."""
    return not text or is_identifier(text)


def is_parameter_name(text: str) -> bool:
    """Dotted name of a parameter, a buffer or a constant."""
    parts = text.split(".")
    return len(text) <= _LONGEST_NAME and all(_is_attribute(part) for part in parts)


def is_module_name(text: str) -> bool:
    """Dotted name of a module, empty for the whole; torch numbers repeated calls (``relu@1``)."""
    return not text or is_parameter_name(_CALL_NUMBER.sub("", text))


def _is_attribute(part: str) -> bool:
    return _PART.fullmatch(part) is not None and not part.startswith("__") and part not in _OWN_ATTRIBUTES


def is_version(text: str) -> bool:
    """Version of torch."""
    return _VERSION.fullmatch(text) is not None


def is_payload(text: str) -> bool:
    """Member of the archive that holds a tensor as plain bytes."""
    return _PAYLOAD.fullmatch(text) is not None


def is_constant(text: str) -> bool:
    """Text argument of an operator, such as ``bilinear`` or ``bchw->bc``; torch writes it with ``repr``."""
    return len(text) <= _LONGEST_NAME and text.isascii() and text.isprintable()


def is_input_constant(text: str) -> bool:
    """Text argument of the whole program; torch writes it between plain quotes."""
    return is_constant(text) and not set(text) & set("'\"\\")


def is_remark(text: str) -> bool:
    """Printable lines, such as a stack trace."""
    lines = text.split("\n")
    return len(text) <= _LONGEST_REMARK and all(line.replace("\t", " ").isprintable() for line in lines)


def is_line(text: str) -> bool:
    """One printable line."""
    return "\n" not in text and is_remark(text)


def is_json_remark(text: str) -> bool:
    """JSON whose content torch only stores."""
    return is_line(text) and all(map(is_remark, _texts(json.loads(text))))


def _texts(value: Any) -> list[str]:
    texts: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend([*item, *item.values()])
    return texts


def is_origins(text: str) -> bool:
    """One or more pairs ``name,function`` that a node was traced from."""
    pairs = [pair.split(",") for pair in text.split(_SEPARATOR)]
    return all(len(pair) == 2 and is_line(pair[0]) and is_origin(pair[1]) for pair in pairs)


METADATA = {
    "stack_trace": is_remark,
    "nn_module_stack": is_line,
    "torch_fn": is_line,
    "custom": is_json_remark,
    "from_node": is_json_remark,
    "source_fn_stack": is_origins,
}
"""Rule by key of a node's metadata."""


def is_input_structure(text: str) -> bool:
    """Nesting of the inputs; dictionary keys are argument names."""
    return _is_structure(text, _IDENTIFIER)


def is_output_structure(text: str) -> bool:
    """Nesting of the outputs."""
    return _is_structure(text, _KEY)


def _is_structure(text: str, key: re.Pattern[str]) -> bool:
    if not text:
        return True
    content = json.loads(text)
    if not isinstance(content, list) or len(content) != 2 or content[0] != 1:
        return False
    pending = [content[1]]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
            return False
        children = node["children_spec"]
        if not isinstance(children, list) or not _is_container(node["type"], node["context"], key):
            return False
        pending.extend(children)
    return True


def _is_container(kind: Any, context: Any, key: re.Pattern[str]) -> bool:
    """Accept only plain containers: torch imports modules for others. ``context`` holds keys as JSON."""
    if kind is None:
        return context is None
    if not isinstance(kind, str) or kind not in _CONTAINERS or not isinstance(context, str):
        return False
    keys = json.loads(context)
    if kind in {"builtins.tuple", "builtins.list"}:
        return keys is None
    return isinstance(keys, list) and all(type(k) is int or _fits(k, key) for k in keys)


def _fits(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
