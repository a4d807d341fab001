"""Rules of ops that select positions by index or create constant tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.attributes import get_attribute
from edgeprune.coupling.context import Context, Labelling, repeat_each
from edgeprune.coupling.labels import DimLabels
from edgeprune.coupling.rewrites import Sizes, int_argument, rewrite, source_of, stored_numbers
from edgeprune.coupling.rules.table import rule
from edgeprune.fx import op_name

_PICKED = "picked by numbers that are computed"


@rule("index_select")
def index_select(context: Context, node: Node) -> Labelling:
    """Channels reordered or selected by stored indices, which are renumbered when channels are removed."""
    source, index = source_of(node), node.args[2]
    assert isinstance(index, Node)
    dim = int_argument(node, 1, "dim", 0) % len(context.shape(source))
    labels = dict(context.labels(source))
    if dim in labels:
        if context.is_parameter(index):
            labels[dim] = labels[dim][context.tensor(index).numpy()]
        else:
            context.freeze(node, {dim: labels.pop(dim)}, _PICKED)
    return labels


@rewrite("index_select")
def rewrite_index_select(sizes: Sizes, node: Node) -> None:
    """Renumber the stored indices to the kept positions."""
    dim = int_argument(node, 1, "dim", 0) % len(node.meta["val"].shape)
    if (new := _counted_anew(sizes, node, dim, node.args[2])) is not None:
        node.update_arg(2, new)


@rule("index")
def index(context: Context, node: Node) -> Labelling:
    """``x[:, i, j]``: dimensions that are not indexed pass; one stored index tensor may select channels."""
    source = source_of(node)
    indices = _indices(node)
    for used in (i for i in indices if i is not None):
        if not context.is_parameter(used):
            context.freeze(node, context.labels(used), "used as numbers to pick by")
    labels: DimLabels = {}
    places = _places(context, node)
    for dim, atoms in context.labels(source).items():
        if dim in places:
            labels[places[dim]] = atoms
        elif _lone_list(context, indices, dim):
            labels[dim] = atoms[context.tensor(indices[dim]).numpy()]  # type: ignore[arg-type]
        else:
            context.freeze(node, {dim: atoms}, _PICKED)
    return labels


@rewrite("index")
def rewrite_index(sizes: Sizes, node: Node) -> None:
    """Renumber the stored indices to the kept positions, where they select channels."""
    indices = _indices(node)
    used = [d for d, i in enumerate(indices) if i is not None]
    if len(used) != 1:
        return
    (dim,) = used
    if (new := _counted_anew(sizes, node, dim, indices[dim])) is not None:
        node.update_arg(1, [new if d == dim else i for d, i in enumerate(indices)])


def _indices(node: Node) -> list[Node | None]:
    given = node.args[1]
    assert isinstance(given, (list, tuple))
    return [i if isinstance(i, Node) else None for i in given]


def _lone_list(context: Context, indices: list[Node | None], dim: int) -> bool:
    """Whether ``dim`` is the only dimension indexed, by a stored one-dimensional tensor of indices."""
    numbers = indices[dim] if dim < len(indices) else None
    if numbers is None or sum(i is not None for i in indices) != 1 or not context.is_parameter(numbers):
        return False
    return context.tensor(numbers).dim() == 1 and context.tensor(numbers).dtype != torch.bool


def _places(context: Context, node: Node) -> dict[int, int]:
    """Place in the result of each dimension that is not indexed (NumPy's advanced indexing)."""
    indices = _indices(node)
    rank = len(context.shape(source_of(node)))
    used = [d for d, i in enumerate(indices) if i is not None]
    free = [d for d in range(rank) if d not in used]
    added = len(context.shape(node)) - len(free)
    adjacent = used == list(range(used[0], used[-1] + 1))
    before = used[0] if adjacent else 0
    return {d: place if place < before else place + added for place, d in enumerate(free)}


@rule("embedding")
def embedding(context: Context, node: Node) -> Labelling:
    """Rows of a table: its last dimension is that of the result."""
    table, numbers = node.args[0], node.args[1]
    context.freeze(node, context.labels(numbers), "used as numbers to pick by")
    table_labels = context.labels(table)
    if 0 in table_labels:
        context.freeze(node, {0: table_labels[0]}, "picked by number")
    return {len(context.shape(node)) - 1: table_labels[1]} if 1 in table_labels else {}


@rule("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def constant(context: Context, node: Node) -> Labelling:
    """A constant tensor may be made smaller along any dimension of fixed size."""
    symbolic = context.symbolic_dims(node)
    return {
        dim: context.atoms.new(size)
        for dim, size in enumerate(context.shape(node))
        if size > 1 and dim not in symbolic
    }


@rewrite("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def rewrite_constant(sizes: Sizes, node: Node) -> None:
    """Update the sizes of a constant tensor."""
    place = 1 if op_name(node).startswith("new_") else 0
    given = node.args[place]
    changed = sizes.changed(node.name, len(node.meta["val"].shape))
    if changed and isinstance(given, (list, tuple)):
        node.update_arg(place, [changed.get(i, size) for i, size in enumerate(given)])


@rule("im2col")
def im2col(context: Context, node: Node) -> Labelling:
    """Patches of every channel: (batch, channels x window, positions)."""
    source = source_of(node)
    labels = dict(context.labels(source))
    channels = labels.pop(1, None)
    context.freeze(node, labels, "patches are cut along this dimension")
    if channels is None:
        return {}
    return {1: repeat_each(channels, context.shape(node)[1] // len(channels))}


@rule("col2im")
def col2im(context: Context, node: Node) -> Labelling:
    """Patches summed to an image: the positions of a channel's window are removed together."""
    labels = dict(context.labels(source_of(node)))
    windows = labels.pop(1, None)
    context.freeze(node, labels, "patches are put together along this dimension")
    if windows is None:
        return {}
    rows = windows.reshape(context.shape(node)[1], -1)
    for place in range(1, rows.shape[1]):
        context.couple(node, rows[:, place - 1], rows[:, place])
    return {1: rows[:, 0]}


@rule("unfold")
def unfold(context: Context, node: Node) -> Labelling:
    """Windows along one dimension, which is frozen, become a new last dimension."""
    source = source_of(node)
    dim = int_argument(node, 1, "dimension", 0) % len(context.shape(source))
    labels = dict(context.labels(source))
    if dim in labels:
        context.freeze(node, {dim: labels.pop(dim)}, "windows are cut along this dimension")
    return dict(labels)


def _counted_anew(sizes: Sizes, node: Node, dim: int, index: Any) -> Node | None:
    """Renumbered indices of the kept positions along ``dim``, as a node; ``None`` where nothing changes."""
    source = source_of(node)
    kept, kept_here = sizes.kept(source.name, dim), sizes.kept(node.name, dim)
    if kept is None and kept_here is None:
        return None
    owner = node.graph.owning_module
    assert owner is not None
    old = get_attribute(owner, str(index.target)).numpy()
    kept = np.arange(int(old.max()) + 1) if kept is None else kept
    place = np.full(int(max(old.max(), kept.max())) + 1, -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    return stored_numbers(node, place[old if kept_here is None else old[kept_here]])
