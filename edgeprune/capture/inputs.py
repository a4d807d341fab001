"""Model inputs: shapes as given by a caller, and random examples."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from edgeprune.artifacts.model import InputShape, InputShapes, takes_several
from edgeprune.errors import CaptureError


def input_shapes(given: InputShape | InputShapes) -> InputShapes:
    """One shape per input, from one shape or a tuple of shapes.

    Raises:
        CaptureError: neither of them, or a size that is not a positive integer.
    """
    several = takes_several(given)
    shapes = given if several else (given,)
    if not all(_is_shape(shape) for shape in shapes):
        raise CaptureError(
            f"the input shape {given!r} is not accepted: give the sizes of one input without the batch, such "
            "as (3, 224, 224), or one such tuple for each input, such as ((3, 224, 224), (5,))"
        )
    return tuple(tuple(shape) for shape in shapes)  # type: ignore[arg-type]


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple | list) and all(type(size) is int and size > 0 for size in shape)


def input_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the tensors that a module is called with, in order; empty where its code does not say."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()  # not written in Python
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


def random_inputs(shapes: InputShapes, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Uniform values in [0, 1) of shape (batch, *shape), one tensor per input."""
    return tuple(torch.rand((batch, *shape), generator=generator) for shape in shapes)
