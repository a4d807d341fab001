"""Rewrite a captured graph into an equivalent canonical form for all later consumers."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from edgeprune.fx import op_name


def unfold_heads(graph_module: GraphModule) -> None:
    """Rewrite attention heads folded into the batch, as in ``nn.MultiheadAttention``, without the folding.

    ``view(L, B h, d).transpose(0, 1).view(B, h, L, d)`` is ``view(L, B, h, d).permute(1, 2, 0, 3)``.
    ``graph_module`` is changed in place; its values are not.
    """
    for last in list(graph_module.graph.nodes):
        if (detour := _detour(last)) is None:
            continue
        first, middle = detour
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
    """The view and the transpose before ``last`` that fold heads into the batch, if ``last`` unfolds them."""
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


def four_dimensional_attention(graph_module: GraphModule) -> None:
    """Rewrite fused attention on inputs that are not 4-D (windows, one head) as 4-D attention.

    Some consumers of a graph, such as the ONNX exporter, accept only 4-D. ``graph_module`` is changed in
    place; its values are not.
    """
    graph = graph_module.graph
    for node in list(graph.nodes):
        if not _is(node, "scaled_dot_product_attention") or len(node.args) < 3:
            continue
        value = node.meta["val"]
        biased = len(node.args) > 3 or node.kwargs.get("attn_mask") is not None
        if value.dim() == 4 or biased or not all(isinstance(s, int) for s in value.shape[1:]):
            continue
        with graph.inserting_before(node):
            flat = [_call(graph, *_to_four(operand)) for operand in node.args[:3]]
        for place, operand in enumerate(flat):
            node.update_arg(place, operand)
        node.meta["val"] = _value(node)
        users = list(node.users)
        with graph.inserting_after(node):
            back = _call(graph, torch.ops.aten.reshape.default, (node, [-1, *value.shape[1:]]))
        for user in users:
            user.replace_input_with(node, back)
    graph_module.recompile()


def _to_four(operand: Any) -> tuple[Any, tuple[Any, ...]]:
    """The operator and arguments that give an operand four dimensions."""
    shape = operand.meta["val"].shape
    if len(shape) == 3:
        return torch.ops.aten.unsqueeze.default, (operand, 1)
    return torch.ops.aten.reshape.default, (operand, [-1, *shape[-3:]])


def _call(graph: Graph, target: Any, args: tuple[Any, ...]) -> Node:
    node = graph.call_function(target, args)
    node.meta["val"] = _value(node)
    return node


def _value(node: Node) -> Any:
    """Shape and type of a node's value, inferred from its operands."""
    assert callable(node.target)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    return node.target(*args, **kwargs)


def reshape_views(graph_module: GraphModule) -> None:
    """Replace views by reshapes: whether a view exists depends on strides, and those on widths.

    Attention, for one, gives its result in another layout where the dimensions of a head are not what its
    kernel wants.
    """
    for node in graph_module.graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default
    graph_module.recompile()


def drop_assertions(graph_module: GraphModule) -> None:
    """Erase data type assertions, which hold only for the data type of the capture."""
    for node in list(graph_module.graph.nodes):
        if _is(node, "_assert_tensor_metadata"):
            graph_module.graph.erase_node(node)
    graph_module.recompile()
