"""A masked graph cut at given mask points: nodes that these do not reach are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgeprune.fx import tensor_leaves
from edgeprune.games.suffix import part_of, reached_from
from edgeprune.pruning.masking import POINTS


@dataclass(frozen=True, kw_only=True)
class PartialGraph:
    """``rest(*inputs, masks, *first(*inputs, masks))`` is bit-identical to the masked graph.

    ``points`` are the mask points whose coalition only ``rest`` reads.
    """

    first: GraphModule
    rest: GraphModule
    points: tuple[Any, ...]

    def before(self, inputs: tuple[Tensor, ...], masks: Tensor) -> tuple[Any, ...]:
        """Values that ``first`` passes to ``rest``."""
        values: tuple[Any, ...] = self.first(*inputs, masks)
        return values

    def outputs(self, inputs: tuple[Tensor, ...], masks: Tensor, before: tuple[Any, ...]) -> list[Tensor]:
        """Outputs under the coalition currently set at ``points``."""
        return tensor_leaves(self.rest(*inputs, masks, *before))


def cut_at_points(masked: GraphModule, varying: Tensor) -> PartialGraph:
    """Cut before the mask points of the players in ``varying`` (players + 1,), a boolean each."""
    starts = {node: point for node, point in _points(masked) if bool(varying[point.players.cpu()].any())}
    reached = reached_from(masked.graph, starts)
    again = [node for node in masked.graph.nodes if node in reached or node.op == "output"]
    taken = {
        operand: None
        for node in again
        for operand in node.all_input_nodes
        if operand not in reached and operand.op not in ("placeholder", "get_attr")
    }
    return PartialGraph(
        first=_first(masked, reached, list(taken)),
        rest=_rest(masked, again, list(taken)),
        points=tuple(dict.fromkeys(starts.values())),
    )


def _points(masked: GraphModule) -> list[tuple[Node, Any]]:
    called = [
        (node, masked.get_submodule(str(node.target)))
        for node in masked.graph.nodes
        if node.op == "call_module"
    ]
    return [(node, module) for node, module in called if isinstance(module, POINTS)]


def _first(masked: GraphModule, reached: set[Node], taken: list[Node]) -> GraphModule:
    graph = Graph()
    copied: dict[Node, Node] = {}
    for node in masked.graph.nodes:
        if node not in reached and node.op != "output":
            copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.output(tuple(copied[node] for node in taken))
    return part_of(masked, graph, "FirstGraph")


def _rest(masked: GraphModule, again: list[Node], taken: list[Node]) -> GraphModule:
    graph = Graph()
    copied: dict[Node, Node] = {}
    for node in masked.graph.nodes:
        if node.op == "placeholder":
            copied[node] = graph.node_copy(node)
    for number, node in enumerate(taken):
        copied[node] = graph.placeholder(f"before_{number}")
    wanted = set(again)
    for node in masked.graph.nodes:
        if node in wanted or node.op == "get_attr":
            copied[node] = graph.node_copy(node, copied.__getitem__)
    return part_of(masked, graph, "RestGraph")
