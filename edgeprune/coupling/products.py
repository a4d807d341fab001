"""Products of activations, as in attention: multiply-accumulates that no weight tells of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch.fx import Node

from edgeprune.artifacts.arrays import IndexArray
from edgeprune.artifacts.coupling import ActivationProduct
from edgeprune.coupling.context import CONCRETE_BATCH, Context
from edgeprune.fx import op_name

NodePlayers = Mapping[tuple[str, int], IndexArray]
"""Players along a dimension of a node's value; of dimensions that keep their size there is none."""


def activation_products(context: Context, node_players: NodePlayers) -> tuple[ActivationProduct, ...]:
    """Every product of two activations in the graph; attention is two, of queries and of values."""
    layers = {record.node for record in context.layers}
    return tuple(
        product
        for node in context.graph_module.graph.nodes
        if node not in layers
        for product in _products(context, node, node_players)
    )


def _products(context: Context, node: Node, node_players: NodePlayers) -> Iterator[ActivationProduct]:
    name = op_name(node)
    if name in ("matmul", "bmm"):
        left, shape = node.args[0], context.shape(node)
        assert isinstance(left, Node)
        inner = len(context.shape(left)) - 1
        dims = [(node, dim) for dim in range(len(shape))] + [(left, inner)]
        yield _product(context, node, dims, 1, node_players)
    elif name == "scaled_dot_product_attention":
        query, key = node.args[:2]
        assert isinstance(query, Node)
        assert isinstance(key, Node)
        last = len(context.shape(node)) - 1
        tokens = context.shape(key)[-2]
        outer = [(node, dim) for dim in range(last)]
        for channels in ((query, last), (node, last)):
            yield _product(context, node, [*outer, channels], tokens, node_players)
    elif name == "einsum":
        yield from _of_einsum(context, node, node_players)


def _of_einsum(context: Context, node: Node, node_players: NodePlayers) -> Iterator[ActivationProduct]:
    """Of two operands; each letter is a dimension of the work."""
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(operands, (list, tuple))
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or len(letters) != len(operands) or len(operands) != 2 or "." in equation:
        return
    places: dict[str, tuple[Node, int]] = {}
    for word, operand in zip((output, *letters), (node, *operands), strict=True):
        assert isinstance(operand, Node)
        for dim, letter in enumerate(word):
            places.setdefault(letter, (operand, dim))
    yield _product(context, node, list(places.values()), 1, node_players)


def _product(
    context: Context, node: Node, dims: list[tuple[Node, int]], factor: int, node_players: NodePlayers
) -> ActivationProduct:
    """The product of the sizes of ``dims`` and of ``factor``, for one image."""
    narrowed: list[IndexArray] = []
    fixed = factor
    for source, dim in dims:
        players = node_players.get((source.name, dim))
        if players is None:
            fixed *= context.shape(source)[dim]
        else:
            narrowed.append(players)
    by_image = any(context.symbolic_dims(source) for source, _ in dims)
    return ActivationProduct(
        node=node.name,
        macs_per_element=fixed // CONCRETE_BATCH if by_image else fixed,
        dimensions=tuple(narrowed),
    )
