"""Rules of ops that combine tensors: pad, cat, stack, glu, writing into a slice."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling, concrete_argument
from edgeprune.coupling.labels import Atoms, DimLabels
from edgeprune.coupling.rewrites import Sizes, int_argument, rewrite, source_of
from edgeprune.coupling.rules.table import rule


@rule("pad", "constant_pad_nd")
def pad(context: Context, node: Node) -> Labelling:
    """Padding a labelled dimension adds new atoms, which a later addition may couple with others."""
    source = node.args[0]
    assert isinstance(source, Node)
    amounts = concrete_argument(node.args[1])
    mode = concrete_argument(node.args[2]) if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    rank = len(context.shape(source))
    labels: DimLabels = {}
    for dim, atoms in context.labels(source).items():
        place = 2 * (rank - 1 - dim)
        before, after = (amounts[place], amounts[place + 1]) if place + 1 < len(amounts) else (0, 0)
        if (before, after) == (0, 0):
            labels[dim] = atoms
        elif before < 0 or after < 0 or (isinstance(mode, str) and mode != "constant"):
            context.freeze(node, {dim: atoms}, "channels are cropped or mirrored by padding")
        else:
            labels[dim] = np.concatenate([context.atoms.new(before), atoms, context.atoms.new(after)])
    return labels


@rule("cat", "concat", "concatenate")
def concatenate(context: Context, node: Node) -> Labelling:
    """Labels are joined along the dimension and coupled along the others."""
    sources = node.args[0]
    assert isinstance(sources, (list, tuple))
    rank = len(context.shape(node))
    dim = concrete_argument(node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % rank
    labels: DimLabels = {}
    for other in range(rank):
        vectors = [context.labels(s).get(other) for s in sources]
        if all(v is None for v in vectors):
            continue
        if other == dim:
            parts = [
                np.zeros(context.shape(s)[dim], dtype=np.int64) if v is None else v
                for s, v in zip(sources, vectors, strict=True)
                if isinstance(s, Node)
            ]
            labels[dim] = np.concatenate(parts)
            continue
        joined = _coupled(context, node, other, vectors, "joined with a tensor whose channels cannot go")
        if joined is not None:
            labels[other] = joined
    return labels


@rule("stack")
def stack(context: Context, node: Node) -> Labelling:
    """A new dimension without labels; the labels of the others are coupled between the tensors."""
    sources = node.args[0]
    assert isinstance(sources, (list, tuple))
    dim = stacked_dim(node)
    labels: DimLabels = {}
    for own in range(len(context.shape(node)) - 1):
        vectors = [context.labels(s).get(own) for s in sources]
        joined = _coupled(context, node, own, vectors, "stacked with a tensor whose channels cannot go")
        if joined is not None:
            labels[own + (own >= dim)] = joined
    return labels


def stacked_dim(node: Node) -> int:
    """Index of the new dimension of ``stack``."""
    return int_argument(node, 1, "dim", 0) % len(node.meta["val"].shape)


def _coupled(
    context: Context, node: Node, dim: int, vectors: list[Atoms | None], reason: str
) -> Atoms | None:
    """Couple the label vectors of tensors that must keep equal sizes along ``dim`` and return one of them."""
    labelled = [v for v in vectors if v is not None]
    for left, right in pairwise(labelled):
        context.couple(node, left, right)
    if labelled and len(labelled) < len(vectors):
        context.freeze(node, {dim: labelled[0]}, reason)
        return None
    return labelled[0] if labelled else None


@rule("glu")
def glu(context: Context, node: Node) -> Labelling:
    """The first half times the sigmoid of the second: a channel is removed from both."""
    source = source_of(node)
    dim = int_argument(node, 1, "dim", -1) % len(context.shape(source))
    labels = dict(context.labels(source))
    if dim in labels:
        first, second = np.split(labels[dim], 2)
        context.couple(node, first, second)
        labels[dim] = first
    return labels


@rule("slice_scatter")
def slice_scatter(context: Context, node: Node) -> Labelling:
    """A slice of the first tensor is replaced by the second: written channels are coupled with its places."""
    shape = context.shape(node)
    dim = int_argument(node, 2, "dim", 0) % len(shape)
    picked = _written(node, shape[dim])
    into, new = context.labels(node.args[0]), context.labels(node.args[1])
    reason = "written over by a tensor whose channels cannot go"
    labels: DimLabels = {}
    for own in sorted(set(into) | set(new)):
        whole, written = into.get(own), new.get(own)
        part = whole[picked] if own == dim and whole is not None else whole
        if _coupled(context, node, own, [part, written], reason) is None:
            context.freeze(node, {own: whole} if whole is not None else {}, reason)
        elif own == dim and int_argument(node, 5, "step", 1) != 1:
            context.freeze(node, {own: whole}, "written over with a step")  # type: ignore[dict-item]
        else:
            labels[own] = whole  # type: ignore[assignment]
    return labels


def _written(node: Node, size: int) -> Atoms:
    """Positions that ``slice_scatter`` writes along its dimension of this size."""
    start, step = int_argument(node, 3, "start", 0), int_argument(node, 5, "step", 1)
    return np.arange(size, dtype=np.int64)[start : int_argument(node, 4, "end", size) : step]


@rewrite("slice_scatter")
def rewrite_slice_scatter(sizes: Sizes, node: Node) -> None:
    """The kept written positions, renumbered (the rule freezes slices with a step)."""
    shape = node.meta["val"].shape
    dim = int_argument(node, 2, "dim", 0) % len(shape)
    kept = sizes.kept(node.name, dim)
    if kept is None:
        return
    places = np.flatnonzero(np.isin(kept, _written(node, int(shape[dim]))))
    first = int(places[0]) if places.size else 0
    node.args = (*node.args[:2], dim, first, first + int(places.size))
    node.kwargs = {}
