"""Arithmetic, comparisons and conversions, element by element."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.loading.onnx_import.site import Imported, Site
from edgeprune.loading.onnx_import.table import operator
from edgeprune.loading.onnx_import.values import UnknownFormError

Operand = Tensor | float

_UNARY: dict[str, Callable[..., Any]] = {
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Erf": torch.erf,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Atan": torch.atan,
    "Not": torch.logical_not,
}
_BINARY: dict[str, Callable[..., Any]] = {
    "Add": python.add,
    "Sub": python.sub,
    "Mul": python.mul,
    "Equal": python.eq,
    "Less": python.lt,
    "Greater": python.gt,
    "LessOrEqual": python.le,
    "GreaterOrEqual": python.ge,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
_LOGICAL = ("And", "Or", "Xor")
_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    11: torch.float64,
}
"""By the numbers of ``TensorProto.DataType``."""


@operator(*_UNARY)
def unary(site: Site) -> Imported:
    """A function of one tensor."""
    site.ignore("consumed_inputs")
    return _UNARY[site.node.op_type]


@operator(*_BINARY)
def binary(site: Site) -> Imported:
    """A function of two tensors, or of one and a number."""
    site.ignore("consumed_inputs")
    site.numbers = site.node.op_type not in _LOGICAL
    return _BINARY[site.node.op_type]


@operator("Div")
def divide(site: Site) -> Imported:
    """Whole numbers are divided without rest."""
    site.numbers = True
    return _divide


def _divide(left: Operand, right: Operand) -> Any:
    whole = all(
        not (t.is_floating_point() if isinstance(t, Tensor) else isinstance(t, float)) for t in (left, right)
    )
    if whole:
        return torch.div(left, right, rounding_mode="trunc")
    return left / right


@operator("Pow")
def power(site: Site) -> Imported:
    """A square is written as one."""
    site.numbers = True
    return _power


def _power(base: Operand, exponent: Operand) -> Any:
    return torch.pow(base, exponent)  # type: ignore[arg-type]


@operator("Min", "Max")
def extreme(site: Site) -> Imported:
    """Of any number of tensors and numbers."""
    site.numbers = True
    return partial(_extreme, most=site.node.op_type == "Max")


def _extreme(*operands: Operand, most: bool) -> Operand:
    def two(left: Operand, right: Operand) -> Operand:
        if not isinstance(left, Tensor):
            left, right = right, left
        assert isinstance(left, Tensor)
        if isinstance(right, Tensor):
            return torch.maximum(left, right) if most else torch.minimum(left, right)
        return left.clamp(min=right) if most else left.clamp(max=right)

    return functools.reduce(two, operands)


@operator("Sum", "Mean")
def total(site: Site) -> Imported:
    """Of any number of tensors."""
    site.numbers = True
    return partial(_total, mean=site.node.op_type == "Mean")


def _total(*operands: Operand, mean: bool) -> Operand:
    added = functools.reduce(python.add, operands)
    return added / len(operands) if mean else added


@operator("Where")
def where(site: Site) -> Imported:
    """One of two, by a condition."""
    site.numbers = True
    return torch.where


@operator("Cast")
def cast(site: Site) -> Imported:
    """Another type of numbers."""
    site.ignore("saturate")
    number = int(site.attribute("to", 0))
    if number not in _DTYPES:
        raise UnknownFormError(f"converts to the type {number} of ONNX, which is not known")
    return partial(_cast, dtype=_DTYPES[number])


def _cast(values: Tensor, *, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)


def as_number(values: Any) -> float | int | bool | None:
    """The number of a constant of one value, ``None`` of others."""
    array = np.asarray(values)
    return None if array.size != 1 else array.reshape(-1)[0].item()
