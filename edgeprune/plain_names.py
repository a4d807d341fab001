"""Tensor names that torch can write into Python code and that a reader can accept from untrusted files.

torch writes parameter names into code verbatim: Python keywords, quotes and characters that Python
normalises give code that does not run, and names of its own attributes overwrite them.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, GraphModule

LONGEST_NAME = 4_000
_PLAIN = re.compile(r"[A-Za-z0-9_-]")
_CALL_NUMBER = re.compile(r"(?<=[^.@])@[0-9]+$")
_TAKEN = frozenset(
    {
        *dir(GraphModule(nn.Module(), Graph())),
        *("self", "_in_spec", "_out_spec", "_guards_fn", "range_constraints", "shape_env", "validate_inputs"),
    }
)
"""Attribute names that torch's modules, and modules of exported programs, use themselves."""

_OF_INPUTS = (InputKind.USER_INPUT, OutputKind.USER_INPUT_MUTATION)
"""Kinds whose targets are nodes, which torch names itself."""


class NameFaultError(ValueError):
    """Names cannot be written; the message says why."""


def plain_name(name: str) -> str:
    """Encode a dotted name in ASCII letters, digits, ``_`` and ``-``, as stored; plain names stay unchanged.

    Other characters become their code points (``layer-x20-2`` for ``layer 2``); Python keywords and names of
    torch's own attributes get a trailing hyphen (``class-``).
    """
    return ".".join(map(_plain_part, name.split(".")))


def code_name(name: str) -> str:
    """Encode only the parts of a name from which torch would write wrong code."""
    return ".".join(part if _is_written_right(part) else _plain_part(part) for part in name.split("."))


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name that changes to its plain name.

    Raises:
        NameFaultError: two names become equal, one is too long, or is not valid text.
    """
    own = list(dict.fromkeys(names))
    for name in own:
        if any("\ud800" <= c <= "\udfff" for c in name):  # a lone surrogate, which cannot be encoded
            raise NameFaultError(f"the name {name!r} is no text that a file can hold: rename it")
    plain = {name: plain_name(name) for name in own}
    longest = max(plain.values(), key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise NameFaultError(f"a name of {len(longest)} characters, and at most {LONGEST_NAME} are accepted")
    owners: dict[str, str] = {}
    for name, given in plain.items():
        if owners.setdefault(given, name) != name:
            raise NameFaultError(f"the names {owners[given]!r} and {name!r} are too much alike: rename one")
    return {name: given for name, given in plain.items() if given != name}


def make_names_plain(program: ExportedProgram) -> dict[str, str]:
    """Give all tensors and modules of a program plain names (in place); return new name -> former name.

    Raises:
        NameFaultError: see :func:`plain_names`.
    """
    signature = program.graph_signature
    stores: tuple[dict[str, Any], ...] = (program.state_dict, program.constants)
    specs = [
        spec
        for spec in (*signature.input_specs, *signature.output_specs)
        if spec.target is not None and spec.kind not in _OF_INPUTS
    ]
    changed = plain_names(
        [*(spec.target or "" for spec in specs), *(name for store in stores for name in store)]
    )
    for spec in specs:
        spec.target = changed.get(spec.target or "", spec.target)
    for store in stores:
        renamed = {changed.get(name, name): value for name, value in store.items()}
        store.clear()
        store.update(renamed)
    for entry in program.module_call_graph:
        entry.fqn = plain_module_name(entry.fqn)
    return {plain: own for own, plain in changed.items()}


def plain_module_name(name: str) -> str:
    """Plain name of a module, whose repeated calls torch numbers (``relu@1``)."""
    called = _CALL_NUMBER.search(name)
    return plain_name(name) if called is None else plain_name(name[: called.start()]) + called[0]


def _plain_part(part: str) -> str:
    text = "".join(c if _PLAIN.fullmatch(c) else f"-x{ord(c):x}-" for c in part)
    if text.startswith("__"):
        text = f"-x5f-{text[1:]}"
    return f"{text}-" if _is_taken(text) else text


def _is_taken(part: str) -> bool:
    return keyword.iskeyword(part) or part in _TAKEN


def _is_written_right(part: str) -> bool:
    """Whether ``self.part`` or, for a non-identifier, ``getattr(self, "part")`` finds it."""
    if part.isidentifier():
        return not _is_taken(part) and unicodedata.normalize("NFKC", part) == part
    try:
        return bool(ast.literal_eval(f'"{part}"') == part)
    except (ValueError, SyntaxError):
        return False
