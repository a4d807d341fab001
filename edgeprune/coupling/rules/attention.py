"""Rules of attention: products of activations, softmax. Head dimensions leave in step in all heads.

A channel of queries and keys enters at their product; one of values passes to the layer that follows.
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
    """(..., m, k) times (..., k, n): k leaves on both sides, m and n pass, the others are coupled."""
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
    """What is summed over leaves on both sides, masked on the left; or stays where one side has to."""
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
    """Queries and keys (..., d) lose their d together; values (..., e) pass theirs on; heads are coupled."""
    query, key, value = node.args[:3]
    assert isinstance(query, Node)
    assert isinstance(key, Node)
    assert isinstance(value, Node)
    last = len(context.shape(query)) - 1
    found = [dict(context.labels(operand)) for operand in (query, key, value)]
    _contract(context, node, (query, last, found[0].pop(last, None)), (key, found[1].pop(last, None)))
    labels: DimLabels = {}
    if (atoms := found[2].pop(last, None)) is not None:
        labels[last] = atoms
    for each in found:
        if (tokens := each.pop(last - 1, None)) is not None:
            context.freeze(node, {last - 1: tokens}, "attention mixes along this dimension")
    for dim in range(last - 1):
        first = found[0].get(dim)
        for other in found[1:]:
            _join(context, node, dim, first, other.get(dim), labels)
    _meet_bias(context, node, last + 1, labels)
    return labels


def _meet_bias(context: Context, node: Node, rank: int, labels: DimLabels) -> None:
    """What is added to the products before the softmax: its heads are those of the queries."""
    bias = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if not isinstance(bias, Node):
        return
    found, shape = context.labels(bias), context.shape(bias)
    for dim, size in enumerate(shape):
        place = dim + rank - len(shape)
        if place >= rank - 2:
            context.freeze(node, {d: a for d, a in found.items() if d == dim}, "attention mixes along it")
        elif size > 1 and (place in labels or dim in found):
            if not (place in labels and dim in found):
                labels.pop(place, None)
            _join(context, node, place, labels.get(place), found.get(dim), labels)


@rewrite("scaled_dot_product_attention")
def keep_scale(sizes: Sizes, node: Node) -> None:
    """The default scale follows the width of the queries, which pruning must not change."""
    query = source_of(node)
    last = len(query.meta["val"].shape) - 1
    if sizes.kept(query.name, last) is not None and node.kwargs.get("scale") is None:
        node.update_kwarg("scale", 1.0 / math.sqrt(int(query.meta["val"].shape[last])))


@rule("einsum")
def einsum(context: Context, node: Node) -> Labelling:
    """Products of two tensors: letters that both share meet, letters that are summed over are contracted."""
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
    found = [
        {x[dim]: atoms for dim, atoms in context.labels(operand).items()}
        for x, operand in zip(letters, (left, right), strict=True)
    ]
    labels: DimLabels = {}
    for letter in sorted(set(found[0]) | set(found[1])):
        a, b = found[0].get(letter), found[1].get(letter)
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
