"""Rules of the layers with weights: where channels are made, where they enter, and what they cost."""

from __future__ import annotations

import math
from itertools import pairwise

from torch.fx import Node

from edgeprune.graph.context import (
    Context,
    Labelling,
    LayerRecord,
    op_name,
    positions,
    repeat_each,
)
from edgeprune.graph.labels import Atoms
from edgeprune.graph.rules import freeze_all, rule


@rule("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm")
def batch_norm(context: Context, node: Node) -> Labelling:
    """Scale, shift and statistics leave with their channel."""
    source = node.args[0]
    assert isinstance(source, Node)
    labels = dict(context.labels(source))
    if 1 in labels:
        for stored in node.args[1:5]:
            if isinstance(stored, Node):
                context.couple(node, labels[1], context.parameter(stored, 0))
    value = node.meta["val"]
    return [labels, *({} for _ in value[1:])] if isinstance(value, (list, tuple)) else labels


@rule("conv1d", "conv2d", "conv3d", "convolution")
def convolution(context: Context, node: Node) -> Labelling:
    """Output channels are the weight's; input channels enter at a mask point (or pass, if depthwise)."""
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    transposed = op_name(node) == "convolution" and bool(node.args[6])
    if not context.is_parameter(weight) or transposed:
        return freeze_all(
            context, node, "its weight is computed" if not transposed else "transposed convolution"
        )
    labels = context.labels(source)
    groups = _argument(node, 8 if op_name(node) == "convolution" else 6, "groups", 1)
    in_channels = context.shape(source)[1]
    out_atoms = context.parameter(weight, 0)
    in_atoms = context.parameter(weight, 1)
    _couple_bias(context, node, out_atoms)
    for dim, atoms in labels.items():
        if dim != 1:
            context.freeze(node, {dim: atoms}, "convolved over")
    entering = labels.get(1)
    if groups == 1:
        _enter(context, node, source, 1, entering, in_atoms)
    elif groups == in_channels:
        if entering is None:
            context.freeze(node, {0: out_atoms}, "its input channels cannot go")
        else:
            context.couple(node, repeat_each(entering, len(out_atoms) // groups), out_atoms)
        context.atoms.freeze(in_atoms, context.because(node, "one input channel per filter"))
    else:
        _couple_groups(context, node, out_atoms, groups)
        if entering is None:
            context.freeze(node, {0: in_atoms}, "its input channels cannot go")
        else:
            _couple_groups(context, node, entering, groups)
            context.couple(node, entering[: len(in_atoms)], in_atoms)
            _mask(context, node, source, 1, entering)
    _add_layer(context, node, weight, out_atoms, in_atoms, positions(context.shape(node)))
    return {1: out_atoms}


def _couple_groups(context: Context, node: Node, atoms: Atoms, groups: int) -> None:
    """The same place in every group leaves together, so that the groups stay equally wide."""
    rows = atoms.reshape(groups, -1)
    for upper, lower in pairwise(rows):
        context.couple(node, upper, lower)


def _couple_bias(context: Context, node: Node, out_atoms: Atoms) -> None:
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if isinstance(bias, Node):
        context.couple(node, out_atoms, context.parameter(bias, 0))


def _enter(
    context: Context, node: Node, source: Node, dim: int, entering: Atoms | None, in_atoms: Atoms
) -> None:
    if entering is None:
        context.atoms.freeze(in_atoms, context.because(node, "its input channels cannot go"))
        return
    context.couple(node, entering, in_atoms)
    _mask(context, node, source, dim, entering)


def _mask(context: Context, node: Node, source: Node, dim: int, entering: Atoms) -> None:
    """A mask point; an image's mask needs an input with one row per image."""
    if context.one_row_per_image(source):
        context.add_mask(node, source, dim, entering)
    else:
        context.freeze(node, {dim: entering}, "its input is not laid out as one row per image")


def _add_layer(
    context: Context, node: Node, weight: Node, out_atoms: Atoms, in_atoms: Atoms, spatial: int
) -> None:
    macs_per_weight = spatial * math.prod(context.shape(weight)[2:])
    context.add_layer(
        LayerRecord(
            node=node,
            weight=str(weight.target),
            op=op_name(node),
            macs_per_weight=macs_per_weight,
            out_atoms=out_atoms,
            in_atoms=in_atoms,
        )
    )


@rule("linear")
def linear(context: Context, node: Node) -> Labelling:
    """The last dimension enters at a mask point; the others pass through."""
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    if not context.is_parameter(weight):
        return freeze_all(context, node, "its weight is computed")
    shape = context.shape(source)
    last = len(shape) - 1
    labels = dict(context.labels(source))
    entering = labels.pop(last, None)
    out_atoms = context.parameter(weight, 0)
    in_atoms = context.parameter(weight, 1)
    _couple_bias(context, node, out_atoms)
    _enter(context, node, source, last, entering, in_atoms)
    _add_layer(context, node, weight, out_atoms, in_atoms, math.prod(shape[1:-1]))
    labels[last] = out_atoms
    return labels


def _argument(node: Node, index: int, name: str, default: int) -> int:
    value = node.args[index] if len(node.args) > index else node.kwargs.get(name, default)
    assert isinstance(value, int)
    return value
