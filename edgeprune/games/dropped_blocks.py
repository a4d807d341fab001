"""Drop residual blocks: their sums become their shortcuts, and their branches are removed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx import GraphModule

from edgeprune.artifacts.model import CapturedModel
from edgeprune.games.block_game import ResidualBlock


def drop_blocks(captured: CapturedModel, blocks: Sequence[ResidualBlock]) -> CapturedModel:
    """The network without the branches of some residual blocks; weights are shared, the names of nodes stay.

    The outputs are those of the network with these branches masked.
    """
    graph = copy.deepcopy(captured.graph_module.graph)
    nodes = {node.name: node for node in graph.nodes}
    for block in blocks:
        # The sum becomes a copy of the shortcut under its own name, which later stages look up.
        total = nodes[block.add]
        total.target = torch.ops.aten.alias.default
        total.args, total.kwargs = (nodes[block.shortcut],), {}
    graph.eliminate_dead_code()
    graph_module = GraphModule(captured.graph_module, graph, class_name="WithoutBlocks")
    graph_module.train(False)
    return replace(captured, graph_module=graph_module)
