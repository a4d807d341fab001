"""Prune: remove players from the graph's weights and rewrite the shape constants that depend on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule, Node

from edgeprune.artifacts.coupling import CouplingGraph, kept_positions
from edgeprune.artifacts.model import CapturedModel
from edgeprune.graph.capture import get_attribute, set_attribute
from edgeprune.graph.context import op_name

SURGERY_SCHEMA_VERSION = "1.0"


def prune(captured: CapturedModel, coupling: CouplingGraph, removed: tuple[int, ...]) -> GraphModule:
    """A new, physically smaller graph without the ``removed`` players; the captured one is not changed."""
    gone = coupling.removed_mask(removed)
    pruned = copy.deepcopy(captured.graph_module)
    _slice_parameters(pruned, coupling, gone)
    for node in pruned.graph.nodes:
        if node.op == "call_function":
            rewrite = _REWRITES.get(op_name(node))
            if rewrite is not None:
                rewrite(_Sizes(coupling, gone), node)
    for node in pruned.graph.nodes:
        node.meta.pop("val", None)
    pruned.recompile()
    return pruned


def _slice_parameters(module: nn.Module, coupling: CouplingGraph, gone: NDArray[np.bool_]) -> None:
    for (name, dim), players in coupling.parameter_players.items():
        keep = torch.from_numpy(kept_positions(players, gone))
        value = get_attribute(module, name)
        sliced = value.detach().index_select(dim, keep).clone()
        if isinstance(value, nn.Parameter):
            sliced = nn.Parameter(sliced, requires_grad=False)
        set_attribute(module, name, sliced)


def surgery_recipe(coupling: CouplingGraph, removed: tuple[int, ...]) -> dict[str, Any]:
    """What was kept of each parameter: name -> dimension -> kept indices; replays on the user's own class."""
    gone = coupling.removed_mask(removed)
    parameters: dict[str, dict[str, list[int]]] = {}
    for (name, dim), players in sorted(coupling.parameter_players.items()):
        keep = kept_positions(players, gone)
        if keep.size < players.size:
            parameters.setdefault(name, {})[str(dim)] = keep.tolist()
    return {"schema_version": SURGERY_SCHEMA_VERSION, "kept_indices": parameters}


class _Sizes:
    """Sizes and positions after pruning, by node and dimension."""

    def __init__(self, coupling: CouplingGraph, gone: NDArray[np.bool_]) -> None:
        self._coupling = coupling
        self._gone = gone

    def kept(self, name: str, dim: int) -> NDArray[np.int64] | None:
        """Kept positions of a node's dimension, or ``None`` where nothing goes."""
        players = self._coupling.node_players.get((name, dim))
        if players is None:
            return None
        keep = kept_positions(players, self._gone)
        return None if keep.size == players.size else keep

    def changed(self, name: str, rank: int) -> dict[int, int]:
        """New size of every dimension of a node that changes."""
        found = {dim: self.kept(name, dim) for dim in range(rank)}
        return {dim: len(keep) for dim, keep in found.items() if keep is not None}


def _rank(node: Node) -> int:
    return len(node.meta["val"].shape)


def _source(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source


def _rewrite_sizes(sizes: _Sizes, node: Node) -> None:
    """``view``, ``expand`` and the like: the size of a changed dimension (an inferred -1 stays)."""
    changed = sizes.changed(node.name, _rank(node))
    given = node.args[1]
    if not changed or not isinstance(given, (list, tuple)):
        return
    new = [changed[i] if i in changed and size != -1 else size for i, size in enumerate(given)]
    node.update_arg(1, new)


def _rewrite_unflatten(sizes: _Sizes, node: Node) -> None:
    dim, given = node.args[1], node.args[2]
    assert isinstance(dim, int)
    assert isinstance(given, (list, tuple))
    dim %= _rank(_source(node))
    changed = sizes.changed(node.name, _rank(node))
    new = [changed.get(dim + i, size) if size != -1 else size for i, size in enumerate(given)]
    node.update_arg(2, new)


def _rewrite_slice(sizes: _Sizes, node: Node) -> None:
    """A slice of a labelled dimension: the positions that stay, counted anew (steps are frozen earlier)."""
    dim = _int(node, 1, "dim", 0) % _rank(node)
    before = sizes.kept(_source(node).name, dim)
    if before is None:
        return
    size = int(_source(node).meta["val"].shape[dim])
    start, end, step = _int(node, 2, "start", 0), _int(node, 3, "end", size), _int(node, 4, "step", 1)
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
    """Replace a strided slice by picking the surviving positions."""
    owner = node.graph.owning_module
    assert owner is not None
    name = f"_kept_of_{node.name}"
    owner.register_buffer(name, torch.from_numpy(kept.astype(np.int64)))
    with node.graph.inserting_before(node):
        index = node.graph.get_attr(name)
    node.target = torch.ops.aten.index_select.default
    node.args = (node.args[0], dim, index)
    node.kwargs = {}


def _int(node: Node, index: int, name: str, default: int) -> int:
    value = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
    return default if value is None else int(value)  # type: ignore[arg-type]


def _rewrite_pad(sizes: _Sizes, node: Node) -> None:
    """Padding of a labelled dimension: as many positions on each side as survive there."""
    amounts = list(node.args[1])  # type: ignore[arg-type]
    rank = _rank(node)
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


def _rewrite_split(sizes: _Sizes, node: Node) -> None:
    """``split`` and ``chunk`` of a labelled dimension become a split by the sizes that remain."""
    index = 2
    dim = _int(node, index, "dim", 0) % len(node.meta["val"][0].shape)
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


def _rewrite_convolution(sizes: _Sizes, node: Node) -> None:
    """A depthwise convolution has as many groups as channels enter it."""
    place = 8 if op_name(node) == "convolution" else 6
    groups = _int(node, place, "groups", 1)
    keep = sizes.kept(_source(node).name, 1)
    if keep is None or groups == 1 or groups != int(_source(node).meta["val"].shape[1]):
        return
    if len(node.args) > place:
        node.update_arg(place, len(keep))
    else:
        node.update_kwarg("groups", len(keep))


_REWRITES: dict[str, Callable[[_Sizes, Node], None]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "expand"), _rewrite_sizes),
    "unflatten": _rewrite_unflatten,
    "slice": _rewrite_slice,
    "pad": _rewrite_pad,
    "constant_pad_nd": _rewrite_pad,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _rewrite_split),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _rewrite_convolution),
}
