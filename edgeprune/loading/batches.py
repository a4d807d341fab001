"""Make the batch of an exported program dynamic where torch.export fixed it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from edgeprune.errors import ModelLoadError
from edgeprune.system.imports import ended_in_the_open, first_line, user_code

_TOLERANCE = 1e-4
_SIZED = {"aten.view.default", "aten.reshape.default", "aten.expand.default", "aten._unsafe_view.default"}


def free_batch(module: nn.Module, batch: int, shape: tuple[int, ...], source: str) -> None:
    """Make a program exported for ``batch`` images of ``shape`` accept any batch size (in place).

    Its outputs for another batch size are compared with those for ``batch``.

    Raises:
        ModelLoadError: the graph depends on its batch size.
    """
    count = 2 if batch == 3 else 3
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((math.ceil(count / batch) * batch, *shape), generator=generator)
    # Images of different brightness, so that mixing them changes outputs.
    images *= torch.linspace(0.5, 1.5, len(images)).view(-1, *[1] * len(shape))
    given = [_run(module, part, source, batch) for part in torch.split(images, batch)]
    expected = [torch.cat(parts)[:count] for parts in zip(*given, strict=True) if parts[0].dim()]
    # Remaining checks of the example's sizes.
    module._forward_pre_hooks.clear()
    module._forward_pre_hooks_with_kwargs.clear()
    if isinstance(module, GraphModule):
        _free_sizes(module, batch)
    try:
        with torch.no_grad(), ended_in_the_open():
            outputs = _tensors(module(images[:count]))
    except Exception as error:
        raise _refused(source, batch, first_line(error)) from error
    if len(outputs) != len(expected) or not all(map(agree, expected, outputs)):
        raise _refused(source, batch, "other batches give other results")


def _run(module: nn.Module, images: Tensor, source: str, batch: int) -> list[Tensor]:
    remedy = "export the model again, from one that runs"
    with torch.no_grad(), user_code(f"{source!r}, run on {batch} images,", ModelLoadError, remedy):
        return _tensors(module(images))


def _free_sizes(module: GraphModule, batch: int) -> None:
    """Infer the leading size of every ``view`` or similar operator that keeps a leading size of ``batch``."""
    for node in module.graph.nodes:
        if str(node.target) not in _SIZED or not isinstance(node.args[0], Node):
            continue
        before, after = _sizes(node.args[0]), _sizes(node)
        if before[:1] == after[:1] == (batch,) and all(isinstance(size, int) for size in after):
            node.update_arg(1, [-1, *after[1:]])
    module.recompile()


def _sizes(node: Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def agree(expected: Tensor, actual: Tensor) -> bool:
    """Whether two tensors have the same shape and, to rounding, the same values."""
    if expected.shape != actual.shape:
        return False
    finite = expected[expected.isfinite()]  # NaN and infinity give no usable tolerance
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(expected, actual, rtol=0.0, atol=_TOLERANCE * (scale or 1.0), equal_nan=True)


def _refused(source: str, batch: int, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"{source!r} was exported for a fixed batch of {batch} and its graph depends on it ({reason}); "
        "export the model again with dynamic_shapes=({0: torch.export.Dim('batch')},)"
    )
