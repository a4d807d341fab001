"""The original network with a mask on every player: reversible, and equal to physical removal."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgeprune.artifacts.coupling import NO_PLAYER, CouplingGraph, MaskPoint
from edgeprune.artifacts.model import CapturedModel


def apply_mask(value: Tensor, masks: Tensor, players: Tensor, dim: int) -> Tensor:
    """Multiply ``value`` along ``dim`` by each image's mask of the player found there.

    ``masks`` is (batch, players + 1); its last column is 1 and serves positions without a player.
    """
    shape = [1] * value.dim()
    shape[0], shape[dim] = masks.shape[0], players.shape[0]
    return value * masks.index_select(1, players).view(shape)


def mask_module(captured: CapturedModel, coupling: CouplingGraph) -> GraphModule:
    """The captured network with a second input ``masks`` (batch, players + 1) applied at every mask point.

    The weights are shared with ``captured``, not copied.
    """
    source = captured.graph_module
    graph = Graph()
    graph.output(graph.graph_copy(source.graph, mapping := {}))
    by_name = {old.name: new for old, new in mapping.items()}
    root = copy.copy(source)
    first = next(n for n in graph.nodes if n.op == "placeholder")
    with graph.inserting_after(first):
        masks = graph.placeholder("masks")
    grouped = itertools.groupby(
        sorted(coupling.mask_points, key=lambda p: (p.source, p.dim)), key=lambda p: (p.source, p.dim)
    )
    buffers: dict[str, Tensor] = {}
    for number, (_, points) in enumerate(grouped):
        _insert(graph, by_name, masks, list(points), f"_mask_players_{number}", buffers, coupling.num_players)
    for name, value in buffers.items():
        setattr(root, name, value)
    return GraphModule(root, graph, class_name="MaskedGraph")


def _insert(
    graph: Graph,
    by_name: dict[str, Node],
    masks: Node,
    points: list[MaskPoint],
    name: str,
    buffers: dict[str, Tensor],
    num_players: int,
) -> None:
    source = by_name[points[0].source]
    players = np.where(points[0].players == NO_PLAYER, num_players, points[0].players)
    buffers[name] = torch.from_numpy(players)
    with graph.inserting_after(source):
        index = graph.get_attr(name)
    with graph.inserting_after(index):
        masked = graph.call_function(apply_mask, (source, masks, index, points[0].dim))
    for point in points:
        by_name[point.consumer].replace_input_with(source, masked)


def full_masks(batch: int, num_players: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Masks (batch, players + 1) of the grand coalition."""
    return torch.ones((batch, num_players + 1), dtype=dtype)
