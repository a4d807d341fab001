"""Tensors of a module by dotted path."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def get_attribute(root: nn.Module, path: str) -> Any:
    """Value behind a dotted path."""
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part)
    return value


def has_attribute(root: nn.Module, path: str) -> bool:
    """Whether a dotted path exists."""
    try:
        get_attribute(root, path)
    except AttributeError:
        return False
    return True


def set_attribute(root: nn.Module, path: str, value: Any) -> None:
    """Register a parameter or buffer under a dotted path; missing parent modules are created."""
    *parents, leaf = path.split(".")
    owner = root
    for part in parents:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        child = owner._modules[part]
        assert child is not None
        owner = child
    if isinstance(value, nn.Parameter):
        owner._buffers.pop(leaf, None)
        owner.register_parameter(leaf, value)
    elif isinstance(value, Tensor):
        owner._parameters.pop(leaf, None)
        owner.register_buffer(leaf, value)
    else:
        setattr(owner, leaf, value)
