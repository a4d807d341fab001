"""Rules of ops that reduce a dimension: sums are masked, means and softmax taken over present channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling, concrete_argument
from edgeprune.coupling.labels import DimLabels
from edgeprune.coupling.layout import mask
from edgeprune.coupling.rewrites import source_of
from edgeprune.coupling.rules.table import rule
from edgeprune.fx import op_name

BY_CHOICE = "removing some changes the rest (--prune-normalized lets them go)"
"""End of the reason where channels stay because the user did not ask for more."""


_MOVING = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "clone", "contiguous"}
)


@rule("mean", "sum", "amax", "amin", "var", "std", "prod", "logsumexp")
def reduction(context: Context, node: Node) -> Labelling:
    """A sum is masked, a mean is taken over present channels; other reduced dimensions are frozen."""
    rank = len(context.shape(source_of(node)))
    reduced = _reduced(rank, _argument(node, 1, "dim", None))
    return _without(context, node, reduced, keepdim=bool(_argument(node, 2, "keepdim", False)))


@rule("linalg_vector_norm")
def vector_norm(context: Context, node: Node) -> Labelling:
    """A vector norm is the root of a sum, to which masked channels do not contribute."""
    rank = len(context.shape(source_of(node)))
    reduced = _reduced(rank, _argument(node, 2, "dim", None))
    return _without(context, node, reduced, keepdim=bool(_argument(node, 3, "keepdim", False)))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(context: Context, node: Node) -> Labelling:
    """The normalised dimension is frozen, or normalised over the present channels; the others pass."""
    dim = concrete_argument(node.args[1]) % len(context.shape(source_of(node)))
    labels = dict(context.labels(source_of(node)))
    if dim not in labels:
        return labels
    if context.options.prune_normalized and op_name(node) in ("softmax", "_softmax"):
        mask(context, node, source_of(node), dim, labels[dim], renormalises=True)
        return labels
    reason = "softmax of the model's output" if _is_output(node) else f"softmax over it: {BY_CHOICE}"
    context.freeze(node, {dim: labels.pop(dim)}, reason)
    return labels


def _is_output(node: Node) -> bool:
    """Whether what a node gives is only moved on its way out of the model."""
    return bool(node.users) and all(
        user.op == "output" or (op_name(user) in _MOVING and _is_output(user)) for user in node.users
    )


def _argument(node: Node, index: int, name: str, default: Any) -> Any:
    return concrete_argument(node.args[index] if len(node.args) > index else node.kwargs.get(name, default))


def _reduced(rank: int, given: Any) -> set[int]:
    if given is None or given == []:
        return set(range(rank))
    return {d % rank for d in (given if isinstance(given, Iterable) else [given])}


def _without(context: Context, node: Node, reduced: set[int], *, keepdim: bool) -> DimLabels:
    """Labels of dimensions that are not reduced; reduced labelled ones get a mask point or are frozen."""
    labels = dict(context.labels(source_of(node)))
    held = sorted(reduced & set(labels))
    for dim in held:
        atoms = labels.pop(dim)
        if len(held) == 1 and _adds_up(node):
            mask(context, node, source_of(node), dim, atoms)
        elif len(held) == 1 and op_name(node) == "mean" and context.options.prune_normalized:
            mask(context, node, source_of(node), dim, atoms, renormalises=True)
        else:
            possible = len(held) == 1 and op_name(node) == "mean"
            context.freeze(node, {dim: atoms}, f"mean over it: {BY_CHOICE}" if possible else "reduced over")
    if keepdim:
        return labels
    return {d - sum(r < d for r in reduced): atoms for d, atoms in labels.items()}


def _adds_up(node: Node) -> bool:
    """Whether zeros do not contribute: a sum, or a vector norm of positive finite order."""
    if op_name(node) == "linalg_vector_norm":
        order = _argument(node, 1, "ord", 2)
        return isinstance(order, (int, float)) and 0 < order < float("inf")
    return op_name(node) == "sum"
