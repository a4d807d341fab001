"""Mean and covariance of the channels at every mask point of the original network."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from edgeprune.artifacts.coupling import CouplingGraph
from edgeprune.artifacts.model import CapturedModel
from edgeprune.graph.masking import mask_sources

MAX_CHANNELS = 4096
"""Wider mask points (a flattened feature map) are masked instead of reconstructed."""
_MOST_AT_ONCE = 64
_LIMIT_BYTES = 2**29
_FLOAT_BYTES = 4


@torch.no_grad()
def channel_statistics(
    captured: CapturedModel, coupling: CouplingGraph, images: Tensor, *, images_at_once: int | None = None
) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    """Mean (C,) float32 and covariance (C, C) float64 by (node, dimension), streamed over ``images``.

    Only where all consumers are weighted layers, since only those can absorb an estimate.

    Products are taken about the means of the first images: about zero, single precision would lose a small
    spread beside a large mean, and what is left need not be positive definite. ``images_at_once`` is by
    default what keeps the activations within 512 MiB.
    """
    layers = {layer.node for layer in coupling.layers}
    wanted = [
        (source, dim)
        for source, dim, points in mask_sources(coupling)
        if points[0].players.size <= MAX_CHANNELS and all(p.consumer in layers for p in points)
    ]
    if images_at_once is None:
        images_at_once = _images_within_memory(captured.graph_module, {s for s, _ in wanted})
    tapped = _tap(captured.graph_module, [s for s, _ in wanted])
    origins: dict[tuple[str, int], Tensor] = {}
    sums: dict[tuple[str, int], Tensor] = {}
    products: dict[tuple[str, int], Tensor] = {}
    rows: dict[tuple[str, int], int] = {}
    for batch in torch.split(images, images_at_once):
        for key, value in zip(wanted, tapped(batch), strict=True):
            channels = value.movedim(key[1], 0).flatten(1)
            channels = channels - origins.setdefault(key, channels.mean(1, keepdim=True))
            sums[key] = sums.get(key, torch.zeros(())) + channels.sum(1).double()
            products[key] = products.get(key, torch.zeros(())) + (channels @ channels.T).double()
            rows[key] = rows.get(key, 0) + channels.shape[1]
    result = {}
    for key in wanted:
        shift = sums[key] / rows[key]
        mean = origins[key][:, 0].double() + shift
        result[key] = (mean.float(), products[key] / rows[key] - shift[:, None] * shift)
    return result


def _images_within_memory(module: GraphModule, names: set[str]) -> int:
    """As many images as leave all these activations within the limit."""
    values = (n.meta.get("val") for n in module.graph.nodes if n.name in names)
    numbers = sum(math.prod(int(size) for size in v.shape[1:]) for v in values if isinstance(v, Tensor))
    return max(1, min(_MOST_AT_ONCE, _LIMIT_BYTES // max(1, _FLOAT_BYTES * numbers)))


def _tap(module: GraphModule, names: list[str]) -> GraphModule:
    """A copy of the graph, weights shared, that returns the named activations."""
    graph = Graph()
    mapping: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.graph_copy(module.graph, mapping)
    by_name = {old.name: new for old, new in mapping.items()}
    graph.output(tuple(by_name[n] for n in names))
    graph.eliminate_dead_code()
    return GraphModule(copy.copy(module), graph, class_name="TappedGraph")
