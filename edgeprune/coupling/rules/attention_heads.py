"""Find the views that split channels into attention heads, and the dimensions that count heads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node

from edgeprune.coupling.context import Context, HeadSplit
from edgeprune.coupling.movement import MAX_ELEMENTS, MOVEMENT, index_type, run_movement, spread, varies
from edgeprune.coupling.rewrites import source_of
from edgeprune.fx import op_name

_SPLITTING = ("view", "_unsafe_view", "reshape", "unflatten")
_PASSING = ("clone", "contiguous", "mul", "div", "add", "softmax", "_softmax", "to", "_to_copy", "alias")
"""Ops between the split and the product that leave every element where it is."""

_SEVERAL = ("split", "split_with_sizes", "chunk", "unbind")


def find_head_splits(context: Context) -> tuple[dict[Node, HeadSplit], list[Node]]:
    """Roles of the dimensions of every view that splits channels before an attention product.

    The movements of each operand are traced back to the layer that produced it. A dimension that ends up
    before the product's last two may count heads; one from which a single index is selected separates
    queries, keys and values. Also returns the products for which no heads were found.
    """
    splits: dict[Node, HeadSplit] = {}
    without = []
    for node in context.graph_module.graph.nodes:
        operands = _operands(context, node)
        known = False
        for operand in operands:
            chain = _way_back(context, operand)
            for place, view in enumerate(chain):
                if view not in splits and (split := _split_of(context, chain, place)) is not None:
                    splits[view] = split
                known = known or (view in splits and bool(splits[view].counting))
        if operands and not known:
            without.append(node)
    return splits, without


def _operands(context: Context, node: Node) -> list[Node]:
    """Queries, keys and values of an attention product: activations of at least three dimensions."""
    if node.op != "call_function":
        return []
    name = op_name(node)
    if name not in ("scaled_dot_product_attention", "matmul", "bmm"):
        return []
    count = 3 if name == "scaled_dot_product_attention" else 2
    given = [a for a in node.args[:count] if isinstance(a, Node)]
    plain = len(given) == count and not any(context.is_parameter(a) for a in given)
    return [a for a in given if len(context.shape(a)) > 2] if plain else []


def _way_back(context: Context, operand: Node) -> list[Node]:
    """Movements and pass-through ops from the producing layer to ``operand``, in graph order."""
    chain: list[Node] = []
    node = operand
    while node.op == "call_function":
        name = op_name(node)
        if name not in (*MOVEMENT, *_PASSING, "select", "getitem"):
            break
        chain.append(node)
        sources = [
            s for s in node.all_input_nodes if hasattr(s.meta.get("val"), "shape") or name == "getitem"
        ]
        activations = [s for s in sources if not context.is_parameter(s)]
        first = node.args[0]
        if len(activations) > 1 and name in _PASSING and isinstance(first, Node) and first in activations:
            activations = [first]  # such as a tensor divided by its own norm
        if len(activations) != 1:
            break
        (node,) = activations
    return chain[::-1]


def _split_of(context: Context, chain: list[Node], place: int) -> HeadSplit | None:
    """The dimensions of the view ``chain[place]``, if it splits any."""
    view = chain[place]
    if op_name(view) not in _SPLITTING:
        return None
    shape = context.shape(view)
    if len(shape) <= len(context.shape(source_of(view))) or math.prod(shape) > MAX_ELEMENTS:
        return None
    fixed = [d for d, size in enumerate(shape) if size > 1 and d not in context.symbolic_dims(view)]
    arrivals = {dim: _arrives_at(context, chain, place, dim) for dim in fixed}
    last = len(context.shape(chain[-1])) - 2
    return HeadSplit(
        counting={d for d, at in arrivals.items() if at is not None and len(at) == 1 and at[0] < last},
        picked={d for d, at in arrivals.items() if at == []},
    )


def _arrives_at(context: Context, chain: list[Node], place: int, dim: int) -> list[int] | None:
    """Dimensions of the last node of ``chain`` that hold a dimension of ``chain[place]`` completely.

    Empty if a single index is selected; ``None`` if it is spread, cut, or mixed with the batch.
    """
    shape = context.shape(chain[place])
    indices: Any = spread(torch.arange(shape[dim], dtype=index_type(shape[dim])), shape, dim)
    for node in chain[place + 1 :]:
        if op_name(node) == "getitem":
            indices = indices[node.args[1]]
        elif op_name(node) in _PASSING:
            if indices.shape != context.shape(node):
                return None
        else:
            moved = run_movement(node, indices)
            indices = moved if op_name(node) in _SEVERAL else moved[0]
    varying = [d for d in range(indices.dim()) if varies(indices, d)]
    if len(varying) > 1 or set(varying) & context.symbolic_dims(chain[-1]):
        return None
    return varying if all(indices.shape[d] == shape[dim] for d in varying) else None
