"""Rules of normalisation: what is removed with a channel, and which channels share their statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.coupling.context import Context, Labelling, concrete_argument
from edgeprune.coupling.labels import Atoms, DimLabels
from edgeprune.coupling.layout import mask
from edgeprune.coupling.rewrites import Sizes, int_argument, rewrite, source_of
from edgeprune.coupling.rules.norm_masking import RENORMALISING, affine_of
from edgeprune.coupling.rules.table import freeze_all, rule
from edgeprune.fx import op_name

TOGETHER = "normalised together with all other channels: removing some changes the rest"
BY_CHOICE = f"{TOGETHER} (--prune-normalized lets them go)"
_OVER_POSITIONS = "normalised over this dimension: removing a part changes the rest"


@rule("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm")
def batch_norm(context: Context, node: Node) -> Labelling:
    """Scale, shift and statistics are removed with their channel."""
    labels = dict(context.labels(source_of(node)))
    _couple_stored(context, node, labels.get(1), node.args[1:5])
    return _results(context, node, labels)


@rule("_native_batch_norm_legit")
def batch_norm_of_the_batch(context: Context, node: Node) -> Labelling:
    """Without stored statistics an image's output depends on the others, so nothing can be masked alone."""
    return freeze_all(context, node, "normalised with the statistics of whichever images share a batch")


@rule("instance_norm")
def instance_norm(context: Context, node: Node) -> Labelling:
    """Each channel is normalised alone, with its own scale, shift and (if kept) statistics."""
    labels = _without_positions(context, node)
    _couple_stored(context, node, labels.get(1), node.args[1:5])
    return labels


@rule("group_norm", "native_group_norm")
def group_norm(context: Context, node: Node) -> Labelling:
    """A norm group is removed as a whole: the others are then normalised as before (Wu and He 2018)."""
    labels = _without_positions(context, node)
    atoms = labels.get(1)
    if atoms is not None and (groups := _norm_groups(node)) == 1:
        if _may_renormalise(context, node):
            mask(context, node, source_of(node), 1, atoms, renormalises=True)
            _couple_stored(context, node, atoms, node.args[2:4])
            return labels
        context.freeze(node, {1: labels.pop(1)}, BY_CHOICE)
    elif atoms is not None:
        rows = atoms.reshape(groups, -1)
        for place in range(1, rows.shape[1]):
            context.couple(node, rows[:, place - 1], rows[:, place])
        stored = node.args[2:4] if op_name(node) == "group_norm" else node.args[1:3]
        _couple_stored(context, node, atoms, stored)
    return _results(context, node, labels)


@rewrite("group_norm")
def rewrite_group_norm(sizes: Sizes, node: Node) -> None:
    """Set the number of norm groups to those that remain."""
    if (groups := _remaining_groups(sizes, node)) is not None:
        node.update_arg(1, groups)


@rewrite("native_group_norm")
def rewrite_native_group_norm(sizes: Sizes, node: Node) -> None:
    """Set the numbers of channels and norm groups to those that remain."""
    keep = sizes.kept(source_of(node).name, 1)
    groups = _remaining_groups(sizes, node)
    if keep is not None and groups is not None:
        node.update_arg(4, len(keep))
        node.update_arg(6, groups)


def _remaining_groups(sizes: Sizes, node: Node) -> int | None:
    keep = sizes.kept(source_of(node).name, 1)
    if keep is None:
        return None
    in_a_group = int(source_of(node).meta["val"].shape[1]) // _norm_groups(node)
    return len(np.unique(keep // in_a_group))


def _norm_groups(node: Node) -> int:
    return (
        int_argument(node, 1, "num_groups", 1)
        if op_name(node) == "group_norm"
        else int_argument(node, 6, "group", 1)
    )


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(context: Context, node: Node) -> Labelling:
    """The normalised dimensions (the last ones) are frozen or renormalised; the others pass."""
    normalised = concrete_argument(node.args[1])
    assert isinstance(normalised, (list, tuple))
    rank = len(context.shape(source_of(node)))
    last = context.labels(source_of(node)).get(rank - 1)
    if last is not None and len(normalised) == 1 and _may_renormalise(context, node):
        mask(context, node, source_of(node), rank - 1, last, renormalises=True)
        _couple_stored(context, node, last, affine_of(node))
        return dict(context.labels(source_of(node)))
    possible = len(normalised) == 1 and op_name(node) in RENORMALISING
    reason = BY_CHOICE if possible else TOGETHER
    labels = _hold(context, node, range(rank - len(normalised), rank), reason)
    return _results(context, node, labels)


@rewrite("layer_norm", "rms_norm")
def rewrite_layer_norm(sizes: Sizes, node: Node) -> None:
    """Update the number of normalised channels."""
    keep = sizes.kept(node.name, len(node.meta["val"].shape) - 1)
    if keep is not None:
        node.update_arg(1, [len(keep)])


def _may_renormalise(context: Context, node: Node) -> bool:
    """Whether the norm may take its statistics over fewer channels (a user option)."""
    return context.options.prune_normalized and op_name(node) in RENORMALISING


def _hold(context: Context, node: Node, dims: Iterable[int], reason: str) -> DimLabels:
    """Freeze the labels of some dimensions of the input; those of the others are returned."""
    labels = dict(context.labels(source_of(node)))
    for dim in dims:
        if dim in labels:
            context.freeze(node, {dim: labels.pop(dim)}, reason)
    return labels


def _without_positions(context: Context, node: Node) -> DimLabels:
    rank = len(context.shape(source_of(node)))
    return _hold(context, node, range(2, rank), _OVER_POSITIONS)


def _couple_stored(context: Context, node: Node, atoms: Atoms | None, stored: Iterable[Any]) -> None:
    """Couple per-channel parameters and buffers with their channels."""
    if atoms is None:
        return
    for value in stored:
        if not isinstance(value, Node):
            continue
        if context.is_parameter(value):
            context.couple(node, atoms, context.parameter(value, 0))
        elif (computed := context.labels(value).get(0)) is not None:
            context.couple(node, atoms, computed)
        else:
            context.freeze(node, {1: atoms}, "its scale or shift is computed and cannot lose channels")


def _results(context: Context, node: Node, labels: DimLabels) -> Labelling:
    """Labels of the normalised value; frozen if an op also reads the statistics beside it."""
    value = node.meta["val"]
    if not isinstance(value, (list, tuple)):
        return labels
    if any(user.args[1] != 0 and user.users for user in node.users):
        context.freeze(node, labels, "its statistics are used as well")
        labels = {}
    return [labels, *({} for _ in value[1:])]
