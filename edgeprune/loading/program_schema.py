"""Check the JSON of a torch.export archive, field by field, before torch evaluates any of it.

The check follows torch's own schema of the format, so that no field is missed: every string is checked by the
rule of its field, and fields not listed here get the strictest rule. Anything that is not in the schema is
rejected.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch._export.serde import schema
from torch._export.serde.union import _Union

from edgeprune.loading import program_texts as texts
from edgeprune.loading.program_operators import is_accepted
from edgeprune.loading.program_sizes import SYMBOL, is_guard, is_size

_LARGEST_NUMBER = 2**64
_LARGEST_EXPONENT = 8
_SHOWN = 60
_NOT_FINITE = ("Infinity", "-Infinity", "NaN")

Rule = Callable[[str], bool]


class UnsafePartError(Exception):
    """A field holds a value that is not accepted."""


def _is_symbol(text: str) -> bool:
    return SYMBOL.fullmatch(text) is not None


_RULES: dict[str, Rule] = {
    "ExportedProgram.torch_version": texts.is_version,
    "ExportedProgram.guards_code": is_guard,
    "ExportedProgram.verifiers": texts.is_identifier_or_empty,
    "SymExpr.expr_str": is_size,
    "NamedArgument.name": texts.is_identifier_or_empty,
    "Argument.as_string": texts.is_constant,
    "Argument.as_strings": texts.is_constant,
    "ConstantValue.as_string": texts.is_input_constant,
    "InputToParameterSpec.parameter_name": texts.is_parameter_name,
    "InputToBufferSpec.buffer_name": texts.is_parameter_name,
    "InputToTensorConstantSpec.tensor_constant_name": texts.is_parameter_name,
    "BufferMutationSpec.buffer_name": texts.is_parameter_name,
    "ParameterMutationSpec.parameter_name": texts.is_parameter_name,
    "GradientToParameterSpec.parameter_name": texts.is_parameter_name,
    "ModuleCallEntry.fqn": texts.is_module_name,
    "ModuleCallSignature.in_spec": texts.is_input_structure,
    "ModuleCallSignature.out_spec": texts.is_output_structure,
    "PayloadMeta.path_name": texts.is_payload,
}
"""Rule by class and field; every other text has to be an identifier."""

_KEY_RULES: dict[str, Rule] = {
    "ExportedProgram.range_constraints": _is_symbol,
    "PayloadConfig.config": texts.is_parameter_name,
    "GraphModule.treespec_namedtuple_fields": texts.is_parameter_name,
}
"""The same for the keys of a mapping."""

_REFUSED = {
    "Argument.as_custom_obj": "pickled objects",
    "Argument.as_operator": "an operator as an argument",
    "InputSpec.custom_obj": "pickled objects",
}

_METADATA_FIELDS = {"Node.metadata", "GraphModule.metadata"}


def check_program(content: Any, operators: Collection[str]) -> None:
    """Check the content of ``models/*.json``; ``operators`` (``space::op``) are accepted beside torch's.

    Raises:
        UnsafePartError: names the field and its value.
    """
    _Walk(operators).check(schema.ExportedProgram, content, "ExportedProgram")


def check_payloads(content: Any) -> None:
    """Check the content of a configuration of weights or constants.

    Raises:
        UnsafePartError: see :func:`check_program`.
    """
    _Walk(()).check(schema.PayloadConfig, content, "PayloadConfig")


@functools.cache
def _fields(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, globalns=vars(schema))


class _Walk:
    def __init__(self, operators: Collection[str]) -> None:
        self.operators = operators

    def check(self, kind: Any, value: Any, field: str) -> None:
        """Check a value against the declared type of its field."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in {typing.Union, types.UnionType}:
            if value is not None:
                self.check(next(a for a in arguments if a is not type(None)), value, field)
        elif origin is list:
            for item in _typed(list, value, field):
                self.check(arguments[0], item, field)
        elif origin is dict:
            self._mapping(arguments[1], _typed(dict, value, field), field)
        elif isinstance(kind, type) and issubclass(kind, _Union):
            self._union(kind, _typed(dict, value, field), field)
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            self._record(kind, _typed(dict, value, field), field)
        else:
            self._leaf(kind, value, field)

    def _mapping(self, kind: Any, value: dict[str, Any], field: str) -> None:
        if field in _METADATA_FIELDS:
            for key, text in value.items():
                _check_text(key, texts.is_identifier, field)
                _check_text(text, texts.METADATA.get(key, texts.is_identifier), f"{field} {key}")
            return
        for key, item in value.items():
            _check_text(key, _KEY_RULES.get(field, texts.is_identifier), field)
            self.check(kind, item, field)

    def _union(self, kind: type, value: dict[str, Any], field: str) -> None:
        fields = _fields(kind)
        if len(value) != 1 or (name := next(iter(value))) not in fields:
            raise UnsafePartError(f"{_shown(list(value))} in {field}")
        place = f"{kind.__name__}.{name}"
        if place in _REFUSED:
            raise UnsafePartError(_REFUSED[place])
        self.check(fields[name], value[name], place)

    def _record(self, kind: type, value: dict[str, Any], field: str) -> None:
        if kind is schema.PayloadMeta and (value.get("use_pickle") is not False or _is_pickled(value)):
            raise UnsafePartError("pickled objects")
        fields = _fields(kind)
        for name, item in value.items():
            if name not in fields:
                raise UnsafePartError(f"the unknown entry {_shown(name)} in {field}")
            self.check(fields[name], item, f"{kind.__name__}.{name}")
        if kind is schema.Node:
            _check_power(value)

    def _leaf(self, kind: Any, value: Any, field: str) -> None:
        if kind is str:
            if field == "Node.target":
                if not isinstance(value, str) or not is_accepted(value, self.operators):
                    raise UnsafePartError(f"the operator {_shown(value)}")
                return
            _check_text(value, _RULES.get(field, texts.is_identifier), field)
            return
        whole = type(value) is int and abs(value) <= _LARGEST_NUMBER
        number = whole or isinstance(value, float) or (isinstance(value, str) and value in _NOT_FINITE)
        fits = {
            bool: isinstance(value, bool),
            int: whole,
            float: number,
        }.get(kind, whole and isinstance(kind, type) and issubclass(kind, enum.IntEnum))
        if not fits:
            raise UnsafePartError(f"{_shown(value)} in {field}")


def _typed(kind: type, value: Any, field: str) -> Any:
    if not isinstance(value, kind):
        raise UnsafePartError(f"{_shown(value)} in {field}")
    return value


def _check_text(value: Any, rule: Rule, field: str) -> None:
    try:
        fits = isinstance(value, str) and rule(value)
    except ValueError:  # malformed JSON inside JSON
        fits = False
    if not fits:
        what = "the size" if rule is is_size else "the text"
        raise UnsafePartError(f"{what} {_shown(value)} in {field}")


def _is_pickled(payload: dict[str, Any]) -> bool:
    return str(payload.get("path_name")).startswith(("custom_obj", "opaque_obj"))


def _check_power(node: dict[str, Any]) -> None:
    """Limit powers of sizes: they are computed in Python, whose integers are unbounded."""
    if node.get("target") != "_operator.pow":
        return
    exponent = node["inputs"][-1]["arg"].get("as_int") if node.get("inputs") else None
    if not isinstance(exponent, int) or not 0 <= exponent <= _LARGEST_EXPONENT:
        raise UnsafePartError("a power of a size whose exponent is not one of 0 to 8")


def _shown(value: Any) -> str:
    text = ascii(value) if isinstance(value, (str, int, float)) else ascii(type(value).__name__)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
