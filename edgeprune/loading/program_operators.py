"""Operators that a torch.export archive may call: an explicit list, never a walk through attributes."""

from __future__ import annotations

import inspect
import math
import operator
import re
from collections.abc import Collection
from types import ModuleType

import torch

from edgeprune.system.compat import import_torchvision

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_OPERATOR = re.compile(rf"torch\.ops\.({_NAME})\.({_NAME})\.({_NAME})")
_WHOLE_NAMESPACES = ("aten", "prims")
_REFUSED = {"aten::from_file", "aten::_print"}
"""They read, make or write something outside the process."""

_TORCHVISION = {"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"}

_ON_SIZES = {
    *(f"_operator.{n}" for n in ("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "and_", "or_", "getitem")),
    *(f"_operator.{n}" for n in ("mul", "add", "sub", "floordiv", "mod", "truediv", "pow")),
    *(f"torch.sym_{n}" for n in ("not", "int", "float", "ite", "max", "min")),
    *("torch._sym_sqrt", "math.trunc"),
}
_HIGHER_ORDER = {f"torch.ops.higher_order.{n}" for n in ("wrap_with_set_grad_enabled", "wrap_with_autocast")}
"""What ``torch.no_grad()`` and ``torch.autocast()`` inside a model become; their graphs are checked, too."""

_QUALIFIED_NAME = re.compile(rf"{_NAME}(\.({_NAME}|<locals>))*")


def is_accepted(target: str, extra: Collection[str]) -> bool:
    """Whether a node may call ``target``; ``extra`` are ``namespace::op`` of other packages."""
    if target in _ON_SIZES or target in _HIGHER_ORDER:
        return True
    parts = _OPERATOR.fullmatch(target)
    if parts is None:
        return False
    namespace, name, overload = parts.groups()
    full = f"{namespace}::{name}"
    if namespace == "torchvision" and name in _TORCHVISION:
        import_torchvision()  # registers them
    elif (namespace not in _WHOLE_NAMESPACES or full in _REFUSED) and full not in extra:
        return False
    try:
        torch._C._dispatch_find_schema_or_throw(full, "" if overload == "default" else overload)
    except RuntimeError:
        return False
    return True


def is_origin(text: str) -> bool:
    """Whether a node's origin, the name of a function or class, cannot resolve outside torch.

    torch looks the name up without calling it.
    """
    first, *rest = text.split(".")
    if not _QUALIFIED_NAME.fullmatch(text) or any(name.startswith("__") for name in rest):
        return False
    if not text.startswith(("torch", "_operator", "math")):
        return True
    place: object = {"_operator": operator, "math": math}.get(first, torch)
    for name in rest:
        place = inspect.getattr_static(place, name, None)
        if isinstance(place, ModuleType) and place.__name__.partition(".")[0] != "torch":
            return False
    return True
