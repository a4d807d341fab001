"""Symbolic sizes of a torch.export archive: arithmetic that torch may evaluate as Python."""

from __future__ import annotations

import ast
import re

_LONGEST_TEXT = 20_000
_LARGEST = 2**64
_DEEPEST = 100
_MOST_PARTS = 3_000
_MOST_POWERS = 3
_LARGEST_EXPONENT = 8

SYMBOL = re.compile(r"s[0-9]{1,9}|zf[0-9]{1,9}|(u|zuf)[0-9]{1,4}")
"""Sizes of the inputs (s), and those that only a run tells (u), up to whose number torch counts."""

_DECIMAL = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?(e[+-]?[0-9]{1,3})?")

_FUNCTIONS = {
    *(
        "Add",
        "Mul",
        "Max",
        "Min",
        "Abs",
        "floor",
        "ceiling",
        "Integer",
        "Rational",
        "Identity",
        "Mod",
        "PythonMod",
    ),
    *(
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "IntTrueDiv",
        "FloatTrueDiv",
        "ModularIndexing",
        "Where",
        "Piecewise",
    ),
    *("ToFloat", "TruncToInt", "TruncToFloat", "FloorToInt", "CeilToInt", "RoundToInt", "ExprCondPair"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality"),
    *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
}
"""What sympy's ``srepr`` writes for sizes that torch derives from sizes; none computes for long."""

_POWERS = {"Pow", "PowByNatural", "FloatPow"}
_GUARD_FUNCTIONS = {"max", "min", "abs", "int", "float"}
_ASSUMPTIONS = {
    "positive",
    "nonnegative",
    "negative",
    "integer",
    "real",
    "finite",
    "zero",
    "even",
    "odd",
    "precision",
}
_CONSTANTS = {"oo", "int_oo", "true", "false"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd)
_LOGIC = (ast.Not, ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)

_SOURCE = re.compile(
    r"L(\['[A-Za-z_][A-Za-z0-9_]*'\]|\[[0-9]{1,6}\])+(\.(size|stride)\(\)\[[0-9]{1,3}\]|\.storage_offset\(\))?"
)


def is_size(text: str) -> bool:
    """Whether the text is plain arithmetic on numbers and sizes, of bounded length, depth and result."""
    return _Checker(set()).accepts(text)


def is_guard(text: str) -> bool:
    """Whether the text is a comparison of sizes of inputs (``L['x'].size()[0] >= 2``)."""
    return _Checker(_GUARD_FUNCTIONS).accepts(_SOURCE.sub("s0", text))


class _Checker:
    """Checks the syntax tree of a text against the lists above; everything else is rejected."""

    def __init__(self, functions: set[str]) -> None:
        self.functions = _FUNCTIONS | functions
        self.parts = 0
        self.powers = 0

    def accepts(self, text: str) -> bool:
        if len(text) > _LONGEST_TEXT or not text.isascii() or not text.isprintable():
            return False
        try:
            tree = ast.parse(text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return self._fits(tree.body, 0)

    def _fits(self, node: ast.AST, depth: int) -> bool:
        self.parts += 1
        if depth > _DEEPEST or self.parts > _MOST_PARTS:
            return False
        match node:
            case ast.Constant(value=value):
                return isinstance(value, (int, float)) and abs(value) < _LARGEST
            case ast.Name(id=name):
                return SYMBOL.fullmatch(name) is not None or name in _CONSTANTS
            case ast.UnaryOp(op=op, operand=operand):
                return isinstance(op, (*_OPERATORS, *_LOGIC)) and self._fits(operand, depth + 1)
            case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
                return self._power([base, exponent], depth)
            case ast.BinOp(left=left, op=op, right=right):
                return isinstance(op, _OPERATORS) and self._all([left, right], depth)
            case ast.BoolOp(values=values):
                return self._all(values, depth)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return all(isinstance(op, _LOGIC) for op in ops) and self._all([left, *others], depth)
            case ast.Tuple(elts=elements):
                return self._all(elements, depth)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                return self._call(name, arguments, keywords, depth)
        return False

    def _all(self, nodes: list[ast.expr], depth: int) -> bool:
        return all(self._fits(node, depth + 1) for node in nodes)

    def _call(self, name: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int) -> bool:
        if name in {"Symbol", "Float"}:
            return _is_quoted(SYMBOL if name == "Symbol" else _DECIMAL, arguments) and all(
                map(_is_assumption, keywords)
            )
        if keywords:
            return False
        if name in _POWERS:
            return self._power(arguments, depth)
        return name in self.functions and self._all(arguments, depth)

    def _power(self, arguments: list[ast.expr], depth: int) -> bool:
        """Accept small integer exponents and few powers, so results have a few thousand digits at most."""
        self.powers += 1
        if len(arguments) != 2 or self.powers > _MOST_POWERS:
            return False
        exponent = _whole(arguments[1])
        return (
            exponent is not None
            and abs(exponent) <= _LARGEST_EXPONENT
            and self._fits(arguments[0], depth + 1)
        )


def _is_quoted(pattern: re.Pattern[str], arguments: list[ast.expr]) -> bool:
    match arguments:
        case [ast.Constant(value=str() as text)]:
            return pattern.fullmatch(text) is not None
    return False


def _is_assumption(keyword: ast.keyword) -> bool:
    known = keyword.arg in _ASSUMPTIONS and isinstance(keyword.value, ast.Constant)
    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
    return known and (
        isinstance(value, bool) or (keyword.arg == "precision" and isinstance(value, int) and 0 < value < 200)
    )


def _whole(node: ast.expr) -> int | None:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _whole(inner)
    return None
