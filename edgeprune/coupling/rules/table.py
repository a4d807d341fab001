"""One coupling rule per op type. An op without a rule freezes the channels of its operands.

Rules of weighted layers are in ``coupling.rules.layers``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling, Rule, concrete_argument
from edgeprune.coupling.labels import Atoms, DimLabels
from edgeprune.coupling.movement import MOVEMENT, move
from edgeprune.fx import op_name

RULES: dict[str, Rule] = {}
"""Rule by name of the ATen op (without overload)."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the named ATen ops."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


ELEMENTWISE = [
    "relu",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "silu",
    "gelu",
    "sigmoid",
    "tanh",
    "leaky_relu",
    "elu",
    "celu",
    "selu",
    "mish",
    "softplus",
    "softsign",
    "logsigmoid",
    "threshold",
    "hardshrink",
    "softshrink",
    "clamp",
    "clamp_min",
    "clamp_max",
    "add",
    "sub",
    "rsub",
    "mul",
    "div",
    "neg",
    "abs",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "pow",
    "square",
    "reciprocal",
    "sin",
    "cos",
    "tan",
    "atan",
    "erf",
    "expm1",
    "log1p",
    "log2",
    "sign",
    "floor",
    "ceil",
    "round",
    "trunc",
    "fmod",
    "remainder",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_not",
    "bitwise_not",
    "maximum",
    "minimum",
    "where",
    "masked_fill",
    "addcmul",
    "addcdiv",
    "lerp",
    "prelu",
    "dropout",
    "native_dropout",
    "clone",
    "contiguous",
    "alias",
    "detach",
    "detach_",
    "to",
    "_to_copy",
    "lift_fresh_copy",
    "zeros_like",
    "ones_like",
    "full_like",
    "fill",
    "zero",
    "copy",
    "alpha_dropout",
    "feature_dropout",
]

POOLING = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
]


@rule(*ELEMENTWISE)
def elementwise(context: Context, node: Node) -> Labelling:
    """Operands that meet under broadcasting are coupled index by index."""
    operands = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, Node) and _is_tensor(a)]
    if op_name(node) == "prelu":
        return _prelu(context, node)
    out_shape = context.shape(node)
    labels: DimLabels = {}
    for dim, size in enumerate(out_shape):
        vectors = _operand_labels(context, operands, dim, len(out_shape), size)
        labelled = [v for v in vectors if v is not None]
        for left, right in pairwise(labelled):
            context.couple(node, left, right)
        if labelled and any(v is None for v in vectors):
            context.freeze(node, {dim: labelled[0]}, "meets a tensor whose channels cannot go")
        elif labelled:
            labels[dim] = labelled[0]
    return labels


def _is_tensor(node: Node) -> bool:
    return node.op == "get_attr" or hasattr(node.meta.get("val"), "shape")


def _operand_labels(
    context: Context, operands: list[Node], dim: int, rank: int, size: int
) -> list[Atoms | None]:
    """Label vector of each operand that spans output dimension ``dim`` (broadcast ones are left out)."""
    vectors: list[Atoms | None] = []
    for operand in operands:
        shape = context.shape(operand)
        own = dim - (rank - len(shape))
        if own >= 0 and size > 1 and shape[own] == size:
            vectors.append(context.labels(operand).get(own))
    return vectors


def _prelu(context: Context, node: Node) -> Labelling:
    source, slope = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(slope, Node)
    labels = context.labels(source)
    if 1 in labels and context.shape(slope)[0] > 1:
        context.couple(node, labels[1], context.parameter(slope, 0))
    return dict(labels)


@rule(*MOVEMENT)
def movement(context: Context, node: Node) -> Labelling:
    """Data movement, traced on an index tensor."""
    labels = move(context, node)
    if op_name(node) == "expand" and isinstance(labels, dict):
        labels.update(_repeated(context, node))
    return labels


def _repeated(context: Context, node: Node) -> DimLabels:
    """Dimensions of size 1 that ``expand`` makes larger may become any size."""
    source = node.args[0]
    assert isinstance(source, Node)
    before, after = context.shape(source), context.shape(node)
    added = len(after) - len(before)
    symbolic = context.symbolic_dims(node)
    return {
        dim: context.atoms.new(size)
        for dim, size in enumerate(after)
        if size > 1 and dim not in symbolic and (dim < added or before[dim - added] == 1)
    }


@rule("select")
def select(context: Context, node: Node) -> Labelling:
    """Selection of one index: other dimensions keep their labels; a labelled dimension is frozen."""
    source, dim = node.args[0], concrete_argument(node.args[1])
    assert isinstance(source, Node)
    dim = dim % len(context.shape(source))
    labels = dict(context.labels(source))
    if dim in labels:
        context.freeze(node, {dim: labels.pop(dim)}, "a channel is picked out alone")
    return {d - (d > dim): v for d, v in labels.items()}


@rule(*POOLING)
def pooling(context: Context, node: Node) -> Labelling:
    """Pooling and interpolation act on each channel alone; spatial labels are frozen."""
    source = node.args[0]
    assert isinstance(source, Node)
    labels = dict(context.labels(source))
    shape = context.shape(source)
    spatial = [d for d in labels if d >= _channel_dim(op_name(node), len(shape)) + 1]
    for dim in spatial:
        context.freeze(node, {dim: labels.pop(dim)}, "pooling mixes along this dimension")
    value = node.meta["val"]
    return [dict(labels) for _ in value] if isinstance(value, (list, tuple)) else labels


def _channel_dim(op: str, rank: int) -> int:
    spatial = next((int(c) for c in op if c in "123"), 2)
    return rank - spatial - 1


@rule("getitem")
def getitem(context: Context, node: Node) -> Labelling:
    """One of several results."""
    source, index = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(index, int)
    several = context.values.get(source, [])
    return several[index] if isinstance(several, list) and several else {}


@rule("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size")
def assertion(context: Context, node: Node) -> Labelling:  # noqa: ARG001 - every rule takes both
    """Assertions have no result and freeze nothing."""
    return {}


@rule("type_as")
def type_as(context: Context, node: Node) -> Labelling:
    """Only the dtype of the second tensor is used."""
    source = node.args[0]
    assert isinstance(source, Node)
    return dict(context.labels(source))


@rule("sym_size", "sym_numel", "mul", "add", "sub", "floordiv")
def scalar_or_elementwise(context: Context, node: Node) -> Labelling:
    """Arithmetic on sizes carries no channels; the same names on tensors are elementwise."""
    return elementwise(context, node) if hasattr(node.meta.get("val"), "shape") else {}


def freeze_all(context: Context, node: Node, reason: str) -> Labelling:
    """Freeze every label that touches ``node``; its value carries none."""
    for operand in node.all_input_nodes:
        several = context.values.get(operand, {})
        if operand.op == "get_attr":
            several = context.labels(operand)
        for labels in several if isinstance(several, list) else [several]:
            context.freeze(node, labels, reason)
    value = node.meta.get("val")
    return [{} for _ in value] if isinstance(value, (list, tuple)) else {}
