"""Rewrite the constants of ops whose operands have become smaller: shapes, splits, paddings, groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.artifacts.coupling import CouplingGraph, kept_positions
from edgeprune.fx import CONVOLUTIONS, op_name


class Sizes:
    """Sizes and positions after pruning, by node and dimension."""

    def __init__(self, coupling: CouplingGraph, gone: NDArray[np.bool_]) -> None:
        self._coupling = coupling
        self._gone = gone

    def kept(self, name: str, dim: int) -> NDArray[np.int64] | None:
        """Kept positions of a node's dimension, or ``None`` where none is removed."""
        players = self._coupling.node_players.get((name, dim))
        if players is None:
            return None
        keep = kept_positions(players, self._gone)
        return None if keep.size == players.size else keep

    def changed(self, name: str, rank: int) -> dict[int, int]:
        """New size of every dimension of a node that changes."""
        positions = {dim: self.kept(name, dim) for dim in range(rank)}
        return {dim: len(keep) for dim, keep in positions.items() if keep is not None}


Rewrite = Callable[[Sizes, Node], None]
REWRITES: dict[str, Rewrite] = {}
"""Rewrite by name of the ATen op (without overload); an op without one has no constants to change."""


def rewrite(*names: str) -> Callable[[Rewrite], Rewrite]:
    """Register a rewrite for the named ATen ops."""

    def register(function: Rewrite) -> Rewrite:
        for name in names:
            REWRITES[name] = function
        return function

    return register


def rank_of(node: Node) -> int:
    """Number of dimensions of a node's value."""
    return len(node.meta["val"].shape)


def source_of(node: Node) -> Node:
    """First argument, which has to be a node."""
    source = node.args[0]
    assert isinstance(source, Node)
    return source


@rewrite("view", "_unsafe_view", "reshape", "expand")
def rewrite_sizes(sizes: Sizes, node: Node) -> None:
    """``view``, ``expand`` and the like: the size of a changed dimension (an inferred -1 stays)."""
    changed = sizes.changed(node.name, rank_of(node))
    given = node.args[1]
    if not changed or not isinstance(given, (list, tuple)):
        return
    new = [changed[i] if i in changed and size != -1 else size for i, size in enumerate(given)]
    node.update_arg(1, new)


@rewrite("unflatten")
def rewrite_unflatten(sizes: Sizes, node: Node) -> None:
    """``unflatten``: the sizes of the dimensions that one is split into."""
    dim, given = node.args[1], node.args[2]
    assert isinstance(dim, int)
    assert isinstance(given, (list, tuple))
    dim %= rank_of(source_of(node))
    changed = sizes.changed(node.name, rank_of(node))
    new = [changed.get(dim + i, size) if size != -1 else size for i, size in enumerate(given)]
    node.update_arg(2, new)


@rewrite("slice")
def rewrite_slice(sizes: Sizes, node: Node) -> None:
    """A slice of a labelled dimension: the kept positions, renumbered."""
    dim = int_argument(node, 1, "dim", 0) % rank_of(node)
    before = sizes.kept(source_of(node).name, dim)
    if before is None:
        return
    size = int(source_of(node).meta["val"].shape[dim])
    start, end, step = (
        int_argument(node, 2, "start", 0),
        int_argument(node, 3, "end", size),
        int_argument(node, 4, "step", 1),
    )
    picked = np.arange(size)[start:end:step]
    kept = np.flatnonzero(np.isin(before, picked))
    contiguous = kept.size == 0 or bool((np.diff(kept) == 1).all())
    if step == 1 or contiguous:
        first = int(kept[0]) if kept.size else 0
        node.args = (node.args[0], dim, first, first + int(kept.size))
        node.kwargs = {}
        return
    _gather(node, dim, kept)


def _gather(node: Node, dim: int, kept: NDArray[np.int64]) -> None:
    """Replace a strided slice by an ``index_select`` of the kept positions."""
    node.target = torch.ops.aten.index_select.default
    node.args = (node.args[0], dim, stored_numbers(node, kept))
    node.kwargs = {}


def stored_numbers(node: Node, numbers: NDArray[np.int64]) -> Node:
    """Indices that ``node`` selects by, as a buffer of the graph."""
    owner = node.graph.owning_module
    assert owner is not None
    name = f"_kept_of_{node.name}"
    owner.register_buffer(name, torch.from_numpy(numbers.astype(np.int64)))
    with node.graph.inserting_before(node):
        return node.graph.get_attr(name)


def int_argument(node: Node, index: int, name: str, default: int) -> int:
    """An integer argument by position or name; ``default`` where it is missing or ``None``."""
    value = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
    return default if value is None else int(value)  # type: ignore[arg-type]


@rewrite("pad", "constant_pad_nd")
def rewrite_pad(sizes: Sizes, node: Node) -> None:
    """Padding of a labelled dimension: as many positions on each side as are kept there."""
    amounts = list(node.args[1])  # type: ignore[arg-type]
    rank = rank_of(node)
    for place in range(0, len(amounts), 2):
        dim = rank - 1 - place // 2
        keep = sizes.kept(node.name, dim)
        before, after = amounts[place], amounts[place + 1]
        if keep is None or (before, after) == (0, 0):
            continue
        total = int(node.meta["val"].shape[dim])
        amounts[place] = int((keep < before).sum())
        amounts[place + 1] = int((keep >= total - after).sum())
    node.update_arg(1, amounts)


@rewrite("split", "split_with_sizes", "chunk")
def rewrite_split(sizes: Sizes, node: Node) -> None:
    """``split`` and ``chunk`` of a labelled dimension become a split by the sizes that remain."""
    index = 2
    dim = int_argument(node, index, "dim", 0) % len(node.meta["val"][0].shape)
    parts = len(node.meta["val"])
    new, any_changed = [], False
    for part in range(parts):
        keep = sizes.kept(f"{node.name}[{part}]", dim)
        new.append(int(node.meta["val"][part].shape[dim]) if keep is None else len(keep))
        any_changed |= keep is not None
    if any_changed:
        node.target = torch.ops.aten.split_with_sizes.default
        node.args = (node.args[0], new, dim)
        node.kwargs = {}


@rewrite(*CONVOLUTIONS)
def rewrite_convolution(sizes: Sizes, node: Node) -> None:
    """A depthwise convolution has as many groups as input channels."""
    place = 8 if op_name(node) == "convolution" else 6
    groups = int_argument(node, place, "groups", 1)
    keep = sizes.kept(source_of(node).name, 1)
    if keep is None or groups == 1 or groups != int(source_of(node).meta["val"].shape[1]):
        return
    if len(node.args) > place:
        node.update_arg(place, len(keep))
    else:
        node.update_kwarg("groups", len(keep))
