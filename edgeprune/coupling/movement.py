"""Data-movement ops, traced by running them on an index tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.choices import AttentionUnit
from edgeprune.coupling.context import Context, HeadSplit, Labelling, concrete_argument
from edgeprune.coupling.labels import Atoms, DimLabels

MAX_ELEMENTS = 2**27

MOVEMENT = (
    "view",
    "_unsafe_view",
    "reshape",
    "flatten",
    "unflatten",
    "permute",
    "transpose",
    "t",
    "squeeze",
    "unsqueeze",
    "movedim",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "narrow",
    "slice",
    "expand",
    "expand_as",
    "flip",
    "roll",
    "repeat",
    "repeat_interleave",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
)
"""Ops that only move data, or repeat it."""


def move(context: Context, node: Node) -> Labelling:
    """Labels after a data movement with one tensor input (view, permute, slice, split, pixel shuffle ...).

    Where one dimension is split over several, the smaller ones are coupled so that the pruned tensor is
    rectangular (channel shuffle: the same position in every group is removed together).
    """
    source = node.args[0]
    assert isinstance(source, Node)
    value = node.meta["val"]
    several = isinstance(value, (list, tuple))
    outputs: list[DimLabels] = [{} for _ in value] if several else [{}]
    for dim, atoms in context.labels(source).items():
        if math.prod(context.shape(source)) > MAX_ELEMENTS:
            context.freeze(node, {dim: atoms}, "the tensor is too large to trace")
            continue
        moved = run_on_indices(node, context.shape(source), dim)
        for number, indices in enumerate(moved):
            symbolic = _symbolic_dims(value[number] if several else value)
            _read_off(context, node, indices, symbolic, atoms, outputs[number])
    return outputs if several else outputs[0]


def run_on_indices(node: Node, shape: tuple[int, ...], dim: int) -> list[Tensor]:
    """Apply a movement to a tensor whose entries are their indices along ``dim``."""
    return run_movement(node, spread(torch.arange(shape[dim], dtype=index_type(shape[dim])), shape, dim))


def index_type(size: int) -> torch.dtype:
    """Narrowest type that holds the indices: with many tokens a wider one would take more than the model."""
    return torch.int16 if size <= torch.iinfo(torch.int16).max else torch.int32


def spread(line: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """``line`` along ``dim``, broadcast to ``shape``."""
    view = [1] * len(shape)
    view[dim] = shape[dim]
    return line.view(view).expand(shape)


def run_movement(node: Node, indices: Tensor) -> list[Tensor]:
    """Apply a movement to ``indices`` in place of its operand."""
    args = [indices, *(concrete_argument(a) for a in node.args[1:])]
    kwargs = {k: concrete_argument(v) for k, v in node.kwargs.items()}
    assert callable(node.target)
    result = node.target(*args, **kwargs)
    return [result] if isinstance(result, Tensor) else list(result)


def _symbolic_dims(value: Any) -> set[int]:
    return {i for i, s in enumerate(value.shape) if not isinstance(s, int)}


def _read_off(
    context: Context, node: Node, indices: Tensor, symbolic: set[int], atoms: Atoms, into: DimLabels
) -> None:
    """Turn an index tensor into labels along one dimension and add them to ``into``."""
    varying = [d for d in range(indices.dim()) if varies(indices, d)]
    if not varying or all(d in symbolic for d in varying):
        reason = "a channel is picked out alone" if not varying else "channels are folded into the batch"
        context.freeze(node, {0: atoms}, reason)
        return
    keep = _dim_to_keep(context, node, indices, varying, symbolic)
    if keep is None:
        context.freeze(node, {0: atoms}, "channels are spread over several dimensions irregularly")
        return
    labels = atoms[_first_line(indices, keep).numpy()]
    if len(varying) > 1:
        along = indices.movedim(keep, 0).reshape(indices.shape[keep], -1).numpy()
        for row, label in zip(along, labels, strict=True):
            members = np.unique(row)
            context.couple(node, atoms[members], np.full(len(members), label, dtype=np.int64))
    if keep in into:
        context.couple(node, into[keep], labels)
    else:
        into[keep] = labels


def _first_line(indices: Tensor, dim: int) -> Tensor:
    """The values along a dimension at the first position of all others, without a copy."""
    return indices[tuple(slice(None) if d == dim else 0 for d in range(indices.dim()))]


def varies(indices: Tensor, dim: int) -> bool:
    """Whether an index tensor changes along a dimension."""
    if indices.shape[dim] < 2 or indices.stride(dim) == 0:
        return False
    # Compared without a boolean tensor of the indices' size, which would exceed a small model's memory.
    return not torch.equal(indices, indices.narrow(dim, 0, 1).expand_as(indices))


def _dim_to_keep(
    context: Context, node: Node, indices: Tensor, varying: list[int], symbolic: set[int]
) -> int | None:
    """The dimension that stays prunable: the largest of fixed size whose indices are all different.

    Between attention heads and their channels, the user's option decides.
    """
    if len(varying) == 1:
        return varying[0]
    candidates = []
    for dim in sorted(set(varying) - symbolic):
        if len(torch.unique(_first_line(indices, dim))) == indices.shape[dim]:
            candidates.append(dim)
    split = context.head_splits.get(node, HeadSplit())
    whole_heads = context.options.attention is AttentionUnit.HEADS
    for avoided in (split.picked, set(candidates) - split.counting if whole_heads else split.counting):
        candidates = [d for d in candidates if d not in avoided] or candidates
    return max(candidates, key=lambda d: int(indices.shape[d]), default=None)
