"""Rules of weighted layers: where channels are produced, where they enter, and their cost."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling, LayerRecord, repeat_each, rows_per_image
from edgeprune.coupling.labels import FROZEN, Atoms
from edgeprune.coupling.layout import mask
from edgeprune.coupling.rewrites import int_argument, rewrite, rewrite_convolution
from edgeprune.coupling.rules.table import freeze_all, rule
from edgeprune.fx import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, op_name


@rule(*CONVOLUTIONS)
def convolution(context: Context, node: Node) -> Labelling:
    """Output channels are the weight's; input channels enter at a mask point (or pass, if depthwise)."""
    if op_name(node) == "convolution" and bool(node.args[6]):
        return transposed_convolution(context, node)
    source, weight = _operands(node)
    if not context.is_parameter(weight):
        return freeze_all(context, node, "its weight is computed")
    groups = _groups(node)
    in_channels = context.shape(source)[1]
    out_atoms = context.parameter(weight, 0)
    in_atoms = context.parameter(weight, 1)
    _couple_bias(context, node, out_atoms)
    entering = _channels_of(context, node, source)
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
            mask(context, node, source, 1, entering)
    add_weighted(context, node, weight, out_atoms, in_atoms, _places(context, node))
    return {1: out_atoms}


@rule(*TRANSPOSED_CONVOLUTIONS)
def transposed_convolution(context: Context, node: Node) -> Labelling:
    """The same with a weight of (in, out / groups, *kernel): all groups share the atoms of dimension 1."""
    source, weight = _operands(node)
    if not context.is_parameter(weight):
        return freeze_all(context, node, "its weight is computed")
    groups = _groups(node)
    in_channels = context.shape(source)[1]
    entering = _channels_of(context, node, source)
    weight_in, weight_out = context.parameter(weight, 0), context.parameter(weight, 1)
    if 1 < groups == in_channels:
        if entering is None:
            context.freeze(node, {0: weight_in}, "its input channels cannot go")
        else:
            context.couple(node, entering, weight_in)
        context.atoms.freeze(weight_out, context.because(node, "one input channel per filter"))
        out_atoms = repeat_each(weight_in, len(weight_out))
        in_atoms = np.array([FROZEN], dtype=np.int64)
    else:
        if entering is not None:
            _couple_groups(context, node, entering, groups)
        _enter(context, node, source, 1, entering, weight_in)
        out_atoms = np.tile(weight_out, groups)
        in_atoms = weight_in[: in_channels // groups]
    _couple_bias(context, node, out_atoms)
    add_weighted(context, node, weight, out_atoms, in_atoms, _places(context, source))
    return {1: out_atoms}


rewrite(*TRANSPOSED_CONVOLUTIONS)(rewrite_convolution)


def _operands(node: Node) -> tuple[Node, Node]:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    return source, weight


def _groups(node: Node) -> int:
    return int_argument(node, 8 if op_name(node) == "convolution" else 6, "groups", 1)


def _channels_of(context: Context, node: Node, source: Node) -> Atoms | None:
    """Labels of the input channels; labels of positions are frozen."""
    labels = dict(context.labels(source))
    entering = labels.pop(1, None)
    context.freeze(node, labels, "convolved over")
    return entering


def _couple_groups(context: Context, node: Node, atoms: Atoms, groups: int) -> None:
    """Couple the same position of every group, so that the groups keep equal widths."""
    rows = atoms.reshape(groups, -1)
    for upper, lower in pairwise(rows):
        context.couple(node, upper, lower)


def _couple_bias(context: Context, node: Node, out_atoms: Atoms) -> None:
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    if not isinstance(bias, Node):
        return
    if context.is_parameter(bias):
        context.couple(node, out_atoms, context.parameter(bias, 0))
    elif (computed := context.labels(bias).get(0)) is not None:
        context.couple(node, out_atoms, computed)
    else:
        context.freeze(node, {0: out_atoms}, "its bias is computed")


def _enter(
    context: Context, node: Node, source: Node, dim: int, entering: Atoms | None, in_atoms: Atoms
) -> None:
    if entering is None:
        context.atoms.freeze(in_atoms, context.because(node, "its input channels cannot go"))
        return
    context.couple(node, entering, in_atoms)
    mask(context, node, source, dim, entering)


def _places(context: Context, node: Node) -> int:
    """Kernel positions per image, including rows that share the batch dimension with it."""
    batch, _, *spatial = context.shape(node)
    return rows_per_image((batch, *spatial))


def add_weighted(
    context: Context, node: Node, weight: Node, out_atoms: Atoms, in_atoms: Atoms, spatial: int
) -> None:
    """Declare a layer whose weight is applied at ``spatial`` positions of an image."""
    context.add_layer(
        LayerRecord(
            node=node,
            weight=str(weight.target),
            op=op_name(node),
            macs_per_weight=spatial * math.prod(context.shape(weight)[2:]),
            out_atoms=out_atoms,
            in_atoms=in_atoms,
        )
    )


@rule("linear")
def linear(context: Context, node: Node) -> Labelling:
    """The last dimension enters at a mask point; the others pass through."""
    source, weight = _operands(node)
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
    add_weighted(context, node, weight, out_atoms, in_atoms, rows_per_image(shape[:-1]))
    labels[last] = out_atoms
    return labels
