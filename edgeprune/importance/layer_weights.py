"""The weights that produce a channel and those that read it, for every kind of weighted layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.artifacts.coupling import CouplingGraph, MaskPoint, WeightedLayer
from edgeprune.artifacts.model import CapturedModel
from edgeprune.attributes import get_attribute
from edgeprune.fx import op_name


def producers(captured: CapturedModel, coupling: CouplingGraph) -> Iterator[tuple[WeightedLayer, Tensor]]:
    """Every weight once, with its filters (out channels, filter size) in float64."""
    nodes = _nodes(captured)
    seen: set[str] = set()
    for layer in coupling.layers:
        if layer.weight in seen:
            continue
        seen.add(layer.weight)
        weight = _weight(captured, layer)
        if _is_transposed(nodes[layer.node]):
            groups = layer.out_players.size // weight.shape[1]
            parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
            weight = parts.transpose(1, 2).reshape(layer.out_players.size, -1)
        yield layer, weight.reshape(weight.shape[0], -1)


def reading_power(captured: CapturedModel, coupling: CouplingGraph, point: MaskPoint) -> Tensor | None:
    """Squared norm (C,) in float64 of the weights that read each channel at a mask point.

    ``None`` where the consumer has no weights (a product of activations, a mean over channels), or reads
    these channels as another input than the one that its weights are told for.
    """
    layer = next((x for x in coupling.layers if x.node == point.consumer), None)
    if layer is None:
        return None
    weight = _weight(captured, layer).square()
    if _is_transposed(_nodes(captured)[layer.node]):
        return weight.flatten(1).sum(1)
    groups, others = divmod(point.players.size, weight.shape[1])
    if not groups or others or weight.shape[0] % groups:
        return None
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return parts.sum((1, 3)).flatten()


def _weight(captured: CapturedModel, layer: WeightedLayer) -> Tensor:
    weight = get_attribute(captured.graph_module, layer.weight)
    assert isinstance(weight, Tensor)
    return weight.detach().to(torch.float64)


def _nodes(captured: CapturedModel) -> dict[str, Node]:
    return {node.name: node for node in captured.graph_module.graph.nodes}


def _is_transposed(node: Node) -> bool:
    name = op_name(node)
    return name.startswith("conv_transpose") or (name == "convolution" and bool(node.args[6]))
