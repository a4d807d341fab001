"""Where channels are split into attention heads: which view does it, which dimension counts them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.fx import op_name
from edgeprune.graph.context import Context
from edgeprune.graph.movement import MAX_ELEMENTS, MOVEMENT, run_movement, varies

_SPLITTING = ("view", "_unsafe_view", "reshape", "unflatten")
_PASSING = ("clone", "contiguous", "mul", "div", "add", "softmax", "_softmax", "to", "_to_copy", "alias")
"""Ops between the split and the product that leave every element where it is."""


def find_head_dims(context: Context) -> tuple[dict[Node, int], list[Node]]:
    """For every view that splits channels into heads: which of its dimensions counts the heads.

    From each operand of an attention product its movements are followed back to the layer that made it;
    the dimension of a view on that way that ends up before the product's last two is that of the heads.
    Also returns the products for which no such view was found.
    """
    found: dict[Node, int] = {}
    without = []
    for node in context.graph_module.graph.nodes:
        operands = _operands(context, node)
        known = False
        for operand in operands:
            chain = _way_back(context, operand)
            for place, view in enumerate(chain):
                if view not in found and (dim := _heads_of(context, chain, place)) is not None:
                    found[view] = dim
                known = known or view in found
        if operands and not known:
            without.append(node)
    return found, without


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
    """Movements (and what passes) from the first after a layer down to ``operand``."""
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
        if len(activations) != 1:
            break
        (node,) = activations
    return chain[::-1]


def _heads_of(context: Context, chain: list[Node], place: int) -> int | None:
    """Dimension of the view ``chain[place]`` that counts heads at the end of the chain."""
    view = chain[place]
    if op_name(view) not in _SPLITTING:
        return None
    shape = context.shape(view)
    source = context.shape(view.all_input_nodes[0])
    if len(shape) <= len(source) or torch.Size(shape).numel() > MAX_ELEMENTS:
        return None
    symbolic = context.symbolic_dims(view)
    heads = [
        dim
        for dim, size in enumerate(shape)
        if size > 1 and dim not in symbolic and size not in source and _counts(context, chain, place, dim)
    ]
    return heads[0] if len(heads) == 1 else None


def _counts(context: Context, chain: list[Node], place: int, dim: int) -> bool:
    """Whether a dimension of ``chain[place]`` arrives whole, alone, and before the last two."""
    shape = context.shape(chain[place])
    line = [1] * len(shape)
    line[dim] = shape[dim]
    indices: Tensor | list[Tensor] = torch.arange(shape[dim], dtype=torch.int32).view(line).expand(shape)
    for node in chain[place + 1 :]:
        if op_name(node) == "getitem":
            assert isinstance(indices, list)
            number = node.args[1]
            assert isinstance(number, int)
            indices = indices[number]
        elif op_name(node) in _PASSING:
            continue
        else:
            assert isinstance(indices, Tensor)
            moved = run_movement(node, indices)
            indices = moved if op_name(node) in _SEVERAL else moved[0]
    assert isinstance(indices, Tensor)
    varying = [d for d in range(indices.dim()) if varies(indices, d)]
    if len(varying) != 1 or varying[0] >= indices.dim() - 2 or varying[0] in context.symbolic_dims(chain[-1]):
        return False
    return indices.shape[varying[0]] == shape[dim]


_SEVERAL = ("split", "split_with_sizes", "chunk", "unbind")


def unfold_heads(graph_module: GraphModule) -> None:
    """Write heads that pass through the batch, as in ``nn.MultiheadAttention``, without that detour.

    ``view(L, B h, d).transpose(0, 1).view(B, h, L, d)`` is ``view(L, B, h, d).permute(1, 2, 0, 3)``.
    ``graph_module`` is changed in place; its values are not.
    """
    for last in list(graph_module.graph.nodes):
        if (found := _detour(last)) is None:
            continue
        first, middle = found
        source = first.args[0]
        assert isinstance(source, Node)
        batch, heads, length, width = last.args[1]
        with graph_module.graph.inserting_before(last):
            split = graph_module.graph.call_function(
                torch.ops.aten.view.default, (source, [length, batch, heads, width])
            )
            value = last.meta["val"]
            b, h, n, d = value.shape
            split.meta["val"] = source.meta["val"].view(n, b, h, d)
            moved = graph_module.graph.call_function(torch.ops.aten.permute.default, (split, [1, 2, 0, 3]))
            moved.meta["val"] = split.meta["val"].permute(1, 2, 0, 3)
        last.replace_all_uses_with(moved)
        for dead in (last, middle, first):
            graph_module.graph.erase_node(dead)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()


def _detour(last: Node) -> tuple[Node, Node] | None:
    """The view and the transposition before ``last`` that fold heads into the batch, if it unfolds them."""
    middle = last.args[0] if last.args else None
    if not _is(last, "view") or not isinstance(middle, Node) or not _is(middle, "transpose"):
        return None
    first = middle.args[0]
    if not isinstance(first, Node) or not _is(first, "view") or set(middle.args[1:]) != {0, 1}:
        return None
    if len(first.users) != 1 or len(middle.users) != 1:
        return None
    source = first.args[0]
    assert isinstance(source, Node)
    before, folded, after = (tuple(n.meta["val"].shape) for n in (source, first, last))
    given = last.args[1]
    if (
        (len(before), len(folded), len(after)) != (3, 3, 4)
        or not isinstance(given, (list, tuple))
        or -1 in given
    ):
        return None
    (n, b, _), (batch, _, length, width) = before, after
    return (first, middle) if (length, batch, width, folded[2]) == (n, b, folded[2], width) else None


def _is(node: Node, name: str) -> bool:
    return node.op == "call_function" and op_name(node) == name
