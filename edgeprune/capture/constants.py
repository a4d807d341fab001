"""Inputs of a model that are the same for every image."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

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
    twice = next((name for name, count in Counter(name for name, *_ in pairs).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"--input was given twice for {twice}; accepted is one array for an input")
    return {name: _tensor(name, path) for name, _, path in pairs}


def _tensor(name: str, given: Any) -> Tensor:
    accepted = "accepted is an array of numbers as the model takes it, saved with numpy.save(path, array)"
    try:
        read = given
        if isinstance(given, (str, Path)):
            read = np.load(Path(given).expanduser(), allow_pickle=False)
        if isinstance(read, Tensor):
            read = read.detach().cpu().float() if read.is_floating_point() else read.detach().cpu()
        array = np.array(read)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UsageError(
            f"--input {name}={in_short(str(given))} cannot be read ({_reason(error)}); {accepted}"
        ) from error
    if array.dtype.kind not in "uifb" or not array.size:
        raise UsageError(
            f"--input {name}={in_short(str(given))} is of type {array.dtype} and shape {array.shape}; "
            f"{accepted}"
        )
    if array.dtype.kind != "f":
        return torch.as_tensor(array)
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise UsageError(f"--input {name} has NaN or infinite values; accepted are finite numbers: repair it")
    return torch.as_tensor(numbers)


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
    if isinstance(module, GraphModule):
        return _in_graph(module, constants)
    return _bound(module, names, free, dict(constants))


def _bound(
    module: nn.Module, names: Sequence[str], free: Sequence[str], constants: dict[str, Tensor]
) -> nn.Module:
    own = type(module)

    def forward(self: nn.Module, *images: Tensor) -> Any:
        if len(images) > len(free):
            raise TypeError(f"takes {len(free)} inputs beside the constant ones; {len(images)} were given")
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


def _in_graph(module: GraphModule, constants: Mapping[str, Tensor]) -> GraphModule:
    """A graph, of which torch.export reads the nodes and not the forward method, with its inputs replaced."""
    graph = copy.deepcopy(module.graph)
    graph.set_codegen(CodeGen())
    bound = GraphModule(module, graph)
    for node in [each for each in graph.nodes if each.op == "placeholder" and each.target in constants]:
        name = f"constant_{node.target}"
        bound.register_buffer(name, constants[str(node.target)].clone(), persistent=False)
        with graph.inserting_after(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)
    graph.lint()
    bound.recompile()
    return bound
