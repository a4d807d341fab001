"""Rules of attention: products of activations, softmax. A head dimension is removed from all heads together.

Channels of queries and keys enter a consumer at their product; those of values pass to the next layer.
"""

from __future__ import annotations

import math

from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling
from edgeprune.coupling.labels import Atoms, DimLabels
from edgeprune.coupling.layout import mask
from edgeprune.coupling.rewrites import Sizes, rewrite, source_of
from edgeprune.coupling.rules.table import freeze_all, rule


@rule("matmul", "bmm")
def matmul(context: Context, node: Node) -> Labelling:
    """(..., m, k) times (..., k, n): k is removed on both sides, m and n pass, the others are coupled."""
    left, right = node.args[0], node.args[1]
    assert isinstance(left, Node)
    assert isinstance(right, Node)
    left_shape, right_shape = context.shape(left), context.shape(right)
    left_labels, right_labels = dict(context.labels(left)), dict(context.labels(right))
    rank = len(context.shape(node))
    if len(left_shape) < 2 or len(right_shape) < 2:
        context.freeze(node, left_labels, "product of vectors")
        context.freeze(node, right_labels, "product of vectors")
        return {}
    inner_left = left_labels.pop(len(left_shape) - 1, None)
    inner_right = right_labels.pop(len(right_shape) - 2, None)
    _contract(context, node, (left, len(left_shape) - 1, inner_left), (right, inner_right))
    labels: DimLabels = {}
    if (rows := left_labels.pop(len(left_shape) - 2, None)) is not None:
        labels[rank - 2] = rows
    if (columns := right_labels.pop(len(right_shape) - 1, None)) is not None:
        labels[rank - 1] = columns
    for dim in range(rank - 2):
        _join(context, node, dim, left_labels.get(dim), right_labels.get(dim), labels)
    return labels


def _contract(
    context: Context, node: Node, left: tuple[Node, int, Atoms | None], right: tuple[Node, Atoms | None]
) -> None:
    """Couple the summed dimension of both sides, masked on the left; freeze it where one side is frozen."""
    source, dim, left_atoms = left
    right_atoms = right[1]
    if left_atoms is not None and right_atoms is not None:
        context.couple(node, left_atoms, right_atoms)
        mask(context, node, source, dim, left_atoms)
        return
    for atoms in (left_atoms, right_atoms):
        if atoms is not None:
            context.freeze(node, {dim: atoms}, "multiplied with a tensor whose channels cannot go")


def _join(
    context: Context, node: Node, dim: int, left: Atoms | None, right: Atoms | None, labels: DimLabels
) -> None:
    if left is not None and right is not None and len(left) == len(right):
        context.couple(node, left, right)
        labels[dim] = left
        return
    for atoms in (left, right):
        if atoms is not None:
            context.freeze(node, {dim: atoms}, "meets a tensor whose channels cannot go")


@rule("scaled_dot_product_attention")
def attention(context: Context, node: Node) -> Labelling:
    """Queries and keys (..., d) are coupled along d; e of values (..., e) passes; heads are coupled."""
    query, key, value = node.args[:3]
    assert isinstance(query, Node)
    assert isinstance(key, Node)
    assert isinstance(value, Node)
    last = len(context.shape(query)) - 1
    carried = [dict(context.labels(operand)) for operand in (query, key, value)]
    _contract(context, node, (query, last, carried[0].pop(last, None)), (key, carried[1].pop(last, None)))
    labels: DimLabels = {}
    if (atoms := carried[2].pop(last, None)) is not None:
        labels[last] = atoms
    for each in carried:
        if (tokens := each.pop(last - 1, None)) is not None:
            context.freeze(node, {last - 1: tokens}, "attention mixes along this dimension")
    for dim in range(last - 1):
        first = carried[0].get(dim)
        for other in carried[1:]:
            _join(context, node, dim, first, other.get(dim), labels)
    _meet_bias(context, node, last + 1, labels)
    return labels


def _meet_bias(context: Context, node: Node, rank: int, labels: DimLabels) -> None:
    """Bias added to the products before the softmax: its heads are coupled with those of the queries."""
    bias = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if not isinstance(bias, Node):
        return
    bias_labels, shape = context.labels(bias), context.shape(bias)
    for dim, size in enumerate(shape):
        place = dim + rank - len(shape)
        if place >= rank - 2:
            context.freeze(
                node, {d: a for d, a in bias_labels.items() if d == dim}, "attention mixes along it"
            )
        elif size > 1 and (place in labels or dim in bias_labels):
            if not (place in labels and dim in bias_labels):
                labels.pop(place, None)
            _join(context, node, place, labels.get(place), bias_labels.get(dim), labels)


@rewrite("scaled_dot_product_attention")
def keep_scale(sizes: Sizes, node: Node) -> None:
    """Fix the default scale, which would otherwise follow the pruned width of the queries."""
    query = source_of(node)
    last = len(query.meta["val"].shape) - 1
    if sizes.kept(query.name, last) is not None and node.kwargs.get("scale") is None:
        node.update_kwarg("scale", 1.0 / math.sqrt(int(query.meta["val"].shape[last])))


@rule("einsum")
def einsum(context: Context, node: Node) -> Labelling:
    """Products of two tensors: letters shared in the output are coupled, summed letters are contracted."""
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(operands, (list, tuple))
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    plain = arrow and len(letters) == len(operands) == 2 and all(len(set(x)) == len(x) for x in letters)
    if not plain or "." in equation:
        return freeze_all(context, node, "no rule for an einsum of this form")
    left, right = operands
    assert isinstance(left, Node)
    assert isinstance(right, Node)
    by_letter = [
        {x[dim]: atoms for dim, atoms in context.labels(operand).items()}
        for x, operand in zip(letters, (left, right), strict=True)
    ]
    labels: DimLabels = {}
    for letter in sorted(set(by_letter[0]) | set(by_letter[1])):
        a, b = by_letter[0].get(letter), by_letter[1].get(letter)
        shared = letter in letters[0] and letter in letters[1]
        if letter in output and shared:
            _join(context, node, output.index(letter), a, b, labels)
        elif letter in output:
            labels[output.index(letter)] = a if a is not None else b  # type: ignore[assignment]
        elif shared:
            _contract(context, node, (left, letters[0].index(letter), a), (right, b))
        else:
            context.freeze(node, {0: a if a is not None else b}, "summed over")  # type: ignore[dict-item]
    return labels
