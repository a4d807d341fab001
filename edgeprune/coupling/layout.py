"""Positions of a batch's images in an activation, so that every image can have its own mask."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from edgeprune.artifacts.coupling import BatchLayout
from edgeprune.coupling.context import CONCRETE_BATCH, Context, MaskCandidate, concrete_argument
from edgeprune.coupling.labels import Atoms
from edgeprune.coupling.movement import MAX_ELEMENTS, MOVEMENT, index_type, run_movement, spread, varies
from edgeprune.coupling.rules.joining import stacked_dim
from edgeprune.fx import RECURRENT, op_name

_ADDING_LAST = ("unfold", "col2im")
"""Ops whose result has more dimensions behind the batch, not before it."""

_REDUCING = ("mean", "sum", "amax", "amin")
_JOINING = ("cat", "concat", "concatenate")

Rows = tuple[int, NDArray[np.int64]]
"""Dimension that carries the batch and the image that each of its indices belongs to."""


def image_layout(context: Context, node: Node) -> BatchLayout | None:
    """Batch layout of a value; ``None`` where no single dimension separates its images."""
    rows = context.image_rows.get(node)
    return None if rows is None else _as_layout(*rows)


def mask(
    context: Context,
    node: Node,
    source: Node,
    dim: int,
    entering: Atoms,
    *,
    renormalises: bool = False,
    inside: bool = False,
) -> None:
    """Add a mask point where ``source``'s ``dim`` enters ``node``, with one mask per image.

    Channels that cannot be masked per image are frozen.
    """
    layout = image_layout(context, source)
    if layout is None or layout.dim == dim:
        context.freeze(node, {dim: entering}, "its input does not tell the images of a batch apart")
        return
    context.add_mask(
        MaskCandidate(
            node=node,
            source=source,
            dim=dim,
            atoms=entering,
            batch=layout,
            renormalises=renormalises,
            inside=inside,
        )
    )


def trace_images(context: Context, node: Node) -> Rows | None:
    """Batch rows of ``node``, derived from those of its operands.

    Data movement is traced on an index tensor; joining along the batch concatenates the images. Every
    other op keeps the batch dimension of its first operand that has one, counted from the last dimension
    where broadcasting adds leading ones.
    """
    if node.op == "placeholder":
        return 0, np.arange(CONCRETE_BATCH, dtype=np.int64)
    if node.op != "call_function" or not hasattr(node.meta.get("val"), "shape"):
        return None
    name = op_name(node)
    if name in MOVEMENT or name == "select":
        return _moved(context, node, 0)
    if name == "getitem":
        source, number = node.args
        assert isinstance(source, Node)
        assert isinstance(number, int)
        if op_name(source) in MOVEMENT:
            return _moved(context, source, number)
        if op_name(source) in RECURRENT and number > 0:
            return _of_states(context, source)
        operands = source.all_input_nodes
    else:
        operands = node.all_input_nodes
    if name in _JOINING and _joins_batches(context, node, operands):
        return _joined(context, node)
    for operand in operands:
        if (rows := context.image_rows.get(operand)) is not None:
            return _kept(context, node, operand, rows)
    return None


def _joins_batches(context: Context, node: Node, operands: list[Node]) -> bool:
    dim = concrete_argument(node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0))
    places = {rows[0] for operand in operands if (rows := context.image_rows.get(operand)) is not None}
    return dim % len(context.shape(node)) in places


def _joined(context: Context, node: Node) -> Rows | None:
    """Images of all operands, concatenated; an operand may occur twice."""
    operands = node.args[0]
    assert isinstance(operands, (list, tuple))
    operand_rows = [context.image_rows.get(o) if isinstance(o, Node) else None for o in operands]
    known = [rows for rows in operand_rows if rows is not None]
    if len(known) < len(operand_rows) or len({dim for dim, _ in known}) > 1:
        return None
    return known[0][0], np.concatenate([images for _, images in known])


def _of_states(context: Context, node: Node) -> Rows | None:
    """Last states (layers, batch, units) of a recurrent op, whichever dimension of its input is the batch."""
    source = node.args[0]
    rows = context.image_rows.get(source) if isinstance(source, Node) else None
    return None if rows is None else (1, rows[1])


def _kept(context: Context, node: Node, operand: Node, rows: Rows) -> Rows | None:
    dim, images = rows
    shape = context.shape(node)
    added = len(shape) - len(context.shape(operand))
    place: int | None
    if added < 0 and dim > 0:
        place = _behind_reduction(context, node, dim)
    elif op_name(node) == "stack":
        place = dim + (dim >= stacked_dim(node))
    else:
        place = dim if op_name(node) in _ADDING_LAST else dim + max(added, 0)
    if place is None or place not in context.symbolic_dims(node) or shape[place] != len(images):
        return None
    return place, images


def _behind_reduction(context: Context, node: Node, dim: int) -> int | None:
    """Where a reduction over other dimensions leaves the batch, ``None`` where it takes the batch away."""
    over = node.args[1] if op_name(node) in _REDUCING and len(node.args) > 1 else None
    if not isinstance(over, (list, tuple)):
        return None
    rank = len(context.shape(node)) + len(over)
    gone = {int(d) % rank for d in over}
    return None if dim in gone else dim - sum(d < dim for d in gone)


def _moved(context: Context, node: Node, number: int) -> Rows | None:
    source = node.args[0]
    assert isinstance(source, Node)
    rows = context.image_rows.get(source)
    if rows is None or math.prod(context.shape(source)) > MAX_ELEMENTS:
        return None
    dim, images = rows
    line = torch.from_numpy(images).to(index_type(int(images.max(initial=0)) + 1))
    everywhere = spread(line, context.shape(source), dim)
    moved = run_movement(node, everywhere)[number]
    varying = [d for d in range(moved.dim()) if varies(moved, d)]
    if len(varying) != 1:
        return None
    (place,) = varying
    line = moved.movedim(place, 0).reshape(moved.shape[place], -1)[:, 0]
    return place, line.numpy().astype(np.int64)


def _as_layout(dim: int, images: NDArray[np.int64]) -> BatchLayout | None:
    """Layout outer x batch x inner that gives the image of every index; ``None`` if there is none."""
    inner = int(np.argmax(images != images[0])) or len(images)
    outer, rest = divmod(len(images), CONCRETE_BATCH * inner)
    expected = np.tile(np.repeat(np.arange(CONCRETE_BATCH), inner), outer)
    if rest or not np.array_equal(images, expected):
        return None
    return BatchLayout(dim=dim, outer=outer, inner=inner)
