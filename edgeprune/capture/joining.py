"""Several inputs as one: a row of numbers for each image, which the graph takes apart again.

Ranking, recovery and training hold images as one tensor (n, ...). The inputs of an image, flattened and
joined, are such a tensor; only what is exported takes them apart (:func:`with_own_inputs`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.artifacts.model import (
    CapturedModel,
    InputShapes,
    numbered_inputs,
    places_in_a_row,
    taken_apart,
)

JOINED = "joined_inputs"


class TakesJoined(nn.Module):
    """A model of several inputs that is called with rows (n, values)."""

    def __init__(self, module: nn.Module, shapes: InputShapes) -> None:
        super().__init__()
        self.module, self._shapes = module, shapes

    def forward(self, rows: Tensor) -> object:
        """The model's outputs."""
        return self.module(*taken_apart(rows, self._shapes))


def as_joined(module: nn.Module, captured: CapturedModel) -> nn.Module:
    """The user's module, called with one tensor as the ``captured`` network is."""
    joins = tuple(captured.joins.values())
    return TakesJoined(module, joins) if joins else module


def with_joined_inputs(captured: CapturedModel, names: Sequence[str] = ()) -> CapturedModel:
    """The captured network with its inputs joined; ``joins`` has their names and shapes.

    Names are the first of ``names``, or numbered where there are too few. A network of one input is returned
    as it is.
    """
    if len(captured.input_shapes) < 2:
        return captured
    graph_module = copy.deepcopy(captured.graph_module)
    graph = graph_module.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    places = places_in_a_row(captured.input_shapes)
    with graph.inserting_before(inputs[0]):
        rows = graph.placeholder(JOINED)
    example = inputs[0].meta["val"]
    with example.fake_mode:
        rows.meta["val"] = torch.empty((example.shape[0], places[-1][1]))
    last = size = _call_after(inputs[-1], torch.ops.aten.sym_size.int, (rows, 0))
    for node, place, shape in zip(inputs, places, captured.input_shapes, strict=True):
        part = _call_after(last, torch.ops.aten.slice.Tensor, (rows, 1, *place))
        last = _call_after(part, torch.ops.aten.reshape.default, (part, [size, *shape]))
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    graph.lint()
    graph_module.recompile()
    count = len(inputs)
    named = tuple(names[:count]) if len(names) >= count else numbered_inputs(count)
    return replace(
        captured,
        graph_module=graph_module,
        input_shapes=((places[-1][1],),),
        joins=dict(zip(named, captured.input_shapes, strict=True)),
    )


def with_own_inputs(graph_module: GraphModule, captured: CapturedModel) -> GraphModule:
    """A copy of a network made from ``captured``, of which each input is one of its own again."""
    if not captured.joins:
        return graph_module
    own = copy.deepcopy(graph_module)
    graph = own.graph
    rows = next(node for node in graph.nodes if node.op == "placeholder")
    parts = {node.args[2]: node for node in rows.users if node.target is torch.ops.aten.slice.Tensor}
    for name, (start, _) in zip(captured.joins, places_in_a_row(captured.joins.values()), strict=True):
        with graph.inserting_before(rows):
            given = graph.placeholder(name)
        for node in list(parts[start].users) if start in parts else ():
            node.replace_all_uses_with(given)
    graph.eliminate_dead_code()
    graph.erase_node(rows)
    graph.lint()
    own.recompile()
    return own


def _call_after(node: Node, function: Callable[..., object], args: tuple[Any, ...]) -> Node:
    with node.graph.inserting_after(node):
        made = node.graph.call_function(function, args)
    made.meta["val"] = function(*torch.fx.node.map_arg(args, lambda each: each.meta["val"]))
    return made
