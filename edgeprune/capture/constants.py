"""Inputs of a model that are the same for every image."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.capture.inputs import input_names
from edgeprune.errors import UsageError
from edgeprune.showing import in_short


def read_constants(given: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Tensor]:
    """Constants by the name of their input: ``NAME=FILE.npy`` texts, or arrays, tensors and paths by name.

    Raises:
        UsageError: another form, or a file that is no array of numbers.
    """
    if not given:
        return {}
    if isinstance(given, Mapping):
        return {name: _tensor(name, value) for name, value in given.items()}
    pairs = [text.partition("=") for text in given]
    for text, (name, sign, path) in zip(given, pairs, strict=True):
        if not (name.isidentifier() and sign and path):
            raise UsageError(
                f"--input {text!r} was given; accepted is NAME=FILE.npy, such as scale=scale.npy"
            )
    return {name: _tensor(name, path) for name, _, path in pairs}


def _tensor(name: str, value: Any) -> Tensor:
    try:
        if isinstance(value, (str, Path)):
            value = np.load(Path(value).expanduser(), allow_pickle=False)
        tensor = torch.as_tensor(np.array(value))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UsageError(
            f"--input {name}={in_short(str(value))} cannot be read ({_reason(error)}); accepted is an array "
            "of numbers as the model takes it, saved with numpy.save(path, array)"
        ) from error
    if not tensor.is_floating_point():
        return tensor
    if not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"--input {name} has NaN or infinite values; accepted are finite numbers: repair it")
    return tensor.float()


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def with_constants(module: nn.Module, constants: Mapping[str, Tensor]) -> nn.Module:
    """A module of the same tensors that is called without the inputs that are constant.

    Raises:
        UsageError: the module has no such input, or no other one.
    """
    if not constants:
        return module
    names = input_names(module)
    unknown = next((name for name in constants if name not in names), None)
    if unknown is not None:
        told = ", ".join(names) or "which its code does not name"
        raise UsageError(f"--input {unknown} was given, and the model's inputs are {told}; name one of them")
    free = [name for name in names if name not in constants]
    if not free:
        raise UsageError(
            "--input was given for all inputs of the model; accepted is one for all but the images"
        )
    return _bound(module, names, free, dict(constants))


def _bound(
    module: nn.Module, names: Sequence[str], free: Sequence[str], constants: dict[str, Tensor]
) -> nn.Module:
    own = type(module)

    def forward(self: nn.Module, *images: Tensor) -> Any:
        given = {**dict(zip(free, images, strict=False)), **constants}
        last = max(place for place, name in enumerate(names) if name in given)
        missing = [name for name in names[: last + 1] if name not in given]
        if missing:
            raise TypeError(f"missing a required argument: {missing[0]!r}")
        return own.forward(self, *(given[name] for name in names[: last + 1]))

    parameters = [p for p in inspect.signature(own.forward).parameters.values() if p.name not in constants]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bound = copy.copy(module)
    bound.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
    return bound
